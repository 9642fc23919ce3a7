"""What is mounted where a folder is, and whether each machine has such a folder for itself.

Synopsis::

    mount_of("/ocean/me", read_mounts())                     # ("10.0.0.1@o2ib:/ocean", "lustre")
    own_of_each_node("/tmp/me", read_mounts())               # "/tmp"
"""

from __future__ import annotations

import os
from typing import Optional, Tuple

#: Each machine's own, by name and by kind of file system.
_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")
_IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")


def mount_of(path: str, mounts: str) -> Tuple[str, str]:
    """Finds what is mounted where a path is: device and kind of file system; empty, if nothing is."""
    best, found = "", ("", "")
    for line in mounts.splitlines():
        device, point, kind = (line.split() + ["", "", ""])[:3]
        point = point.replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, (device, kind)
    return found


def own_of_each_node(path: str, mounts: str, shared: Optional[str] = None) -> Optional[str]:
    """Says why no other machine sees a folder; None, if another may see it.

    Args:
        path: The folder.
        mounts: The text of /proc/self/mounts.
        shared: A folder in which all is seen, whatever its name and kind.
    """
    real = os.path.realpath(path)
    if shared is not None and _is_inside(real, os.path.realpath(shared)):
        return None
    for folder in _FOLDERS:
        if _is_inside(real, folder):
            return folder
    kind = mount_of(real, mounts)[1]
    return f"a {kind}" if kind in _IN_MEMORY else None


def read_mounts() -> str:
    """Reads what is mounted on this machine; "" where nothing tells."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
