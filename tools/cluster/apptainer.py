"""Apptainer for the tests, and a real image: neither changes more of the machine than a package does.

Synopsis::

    install()                                   # as root, on Debian
    build(ROOT / ".envs" / "image", python)     # .envs/image/hpcdl-cpu.sif, unless it is up to date
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List, Sequence

from hpcdl.common.errors import HpcdlError
from hpcdl.launch.definitions import render_all
from hpcdl.launch.horovod_recipe import PATCH_LEVEL

_NEEDED = ("debootstrap", "patchelf", "squashfs-tools", "squashfuse", "fuse3", "libsqlite3-0")
_NEWER = ("apptainer", "libc6", "libseccomp2", "libsqlite3-0")
_LIBRARIES = Path("/usr/local/lib/apptainer-libc")
_ARCHITECTURE_LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
_IDS = 65536
_SQUASH = "-comp zstd -Xcompression-level 3"


def is_installed() -> bool:
    """Whether this machine has Apptainer."""
    return shutil.which("apptainer") is not None


def install() -> None:
    """Installs Apptainer on a Debian that has none.

    Debian 12 has it in no suite. Unstable's needs a newer C library: both are taken from there, the library into a
    folder of its own, and only Apptainer's two programs are told to use it.

    Raises:
        subprocess.CalledProcessError: A step failed.
    """
    if is_installed():
        return
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    words = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *_NEEDED]
    _call(words, env=environ, stdout=subprocess.DEVNULL)
    if subprocess.run(
        ["apt-get", "-y", "-qq", "install", "apptainer"], env=environ, capture_output=True
    ).returncode:
        with tempfile.TemporaryDirectory() as name:
            _install_from_unstable(Path(name))
    configuration = Path("/etc/apptainer/apptainer.conf")
    lines = configuration.read_text().splitlines()
    # Root of a virtual machine may lack a capability, and Apptainer asks for all of them by default.
    key = "root default capabilities = "
    configuration.write_text("\n".join(f"{key}no" if line.startswith(key) else line for line in lines) + "\n")


def build(folder: Path, python: str) -> Path:
    """Builds containers/hpcdl-cpu.def by ``hpcdl container build``, unless the image is up to date.

    Raises:
        HpcdlError: It failed; its log is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image, stamp, log = folder / "hpcdl-cpu.sif", folder / "stamp", folder / "build.log"
    wanted = hashlib.sha256(f"{render_all()['hpcdl-cpu.def']} {PATCH_LEVEL}".encode()).hexdigest()
    if image.exists() and stamp.exists() and stamp.read_text() == wanted:
        return image
    started = time.monotonic()
    argv = [python, "-m", "hpcdl", "container", "build", "--force", "cpu", str(image)]
    with log.open("wb") as output:
        status = _in_user_namespace([*argv, "--", "--mksquashfs-args", _SQUASH], output.fileno())
    if status != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise HpcdlError(f"the image for the tests cannot be built; the end of {log}:\n{tail}")
    stamp.write_text(wanted)
    print(f"{image}: built in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return image


def _in_user_namespace(argv: Sequence[str], log: int) -> int:
    """Runs a command as root of a new user namespace, which has the capabilities that this machine's root may lack."""
    words = ["unshare", "--user", "--mount", "sh", "-c", 'read go && exec "$@"', "sh", *argv]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log)
    ours = os.readlink("/proc/self/ns/user")
    while child.poll() is None and os.readlink(f"/proc/{child.pid}/ns/user") == ours:
        time.sleep(0.01)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{child.pid}/{name}").write_text(f"0 0 {_IDS}\n")
    child.communicate(b"go\n")
    return child.returncode


def _install_from_unstable(folder: Path) -> None:
    sources = Path("/etc/apt/sources.list.d/debian.sources").read_text()
    values = dict(line.split(": ", 1) for line in sources.split("\n\n")[0].splitlines() if ": " in line)
    listed = folder / "sources.list"
    listed.write_text(f"deb [signed-by={values['Signed-By']}] {values['URIs']} sid main\n")
    for name in ("lists/partial", "cache/archives/partial", "packages", "root"):
        (folder / name).mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": listed,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
    }
    apt: List[str] = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    _call([*apt, "update"])
    _call([*apt, "download", *_NEWER], cwd=folder / "packages")
    for package in (folder / "packages").glob("*.deb"):
        _call(["dpkg-deb", "-x", str(package), str(folder / "root")])
    root = folder / "root"
    libraries = root / _ARCHITECTURE_LIBRARIES
    _LIBRARIES.mkdir(parents=True, exist_ok=True)
    for library in libraries.glob("*.so*"):
        shutil.copy2(str(library), str(_LIBRARIES), follow_symlinks=False)
    loader = ["--set-interpreter", str(_LIBRARIES / "ld-linux-x86-64.so.2"), "--set-rpath", str(_LIBRARIES)]
    for program in (root / "usr/bin/apptainer", libraries / "apptainer/bin/starter"):
        _call(["patchelf", "--force-rpath", *loader, str(program)])
    for part, target in (
        (root / "usr/bin/apptainer", Path("/usr/bin")),
        (libraries / "apptainer", Path("/") / _ARCHITECTURE_LIBRARIES),
        (root / "etc/apptainer", Path("/etc")),
    ):
        _call(["cp", "-a", str(part), str(target)])
    Path("/var/lib/apptainer/mnt/session").mkdir(parents=True, exist_ok=True)


def _call(argv: Sequence[str], **options: object) -> None:
    subprocess.run(list(argv), check=True, **options)  # type: ignore[call-overload]
