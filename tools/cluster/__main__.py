"""``python -m tools.cluster install | run -- COMMAND``: see the package."""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from hpcdl.common.cache import cache_folder
from hpcdl.common.errors import HpcdlError
from tools.cluster import apptainer
from tools.cluster.config import LOGIN, Plan, address, gres_conf, hosts, node_script, slurm_conf
from tools.environments import guarded

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / ".envs" / "image" / "hpcdl-cpu.sif"
_PACKAGES = ("slurm-wlm", "munge", "libpmix-dev", "iproute2", "util-linux", "procps")
_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "hostname")
_POLICY = Path("/usr/sbin/policy-rc.d")
_UP_S = 30.0
_NAMESPACES = ("--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def main(argv: Sequence[str]) -> int:
    """Runs the command line; ``run`` gives the exit status of its command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.cluster", description="A private Slurm for the tests."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("install", help="install Slurm and what it needs, by apt, as root; start nothing")
    actions.add_parser("image", help="build the image for the tests, unless it is up to date")
    for name, help in (("run", "run a command beside a new cluster"), ("inside", "used by run")):
        action = actions.add_parser(name, help=help)
        action.add_argument(
            "--folder", type=Path, help="keep the cluster's files there (default: a new folder)"
        )
        action.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    options = parser.parse_args(list(argv))
    if options.action == "install":
        return _install()
    if options.action == "image":
        apptainer.build(IMAGE.parent, sys.executable)
        return 0
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if options.action == "inside":
        return _inside(Plan(options.folder, user=getpass.getuser()), command)
    return _run(options.folder, command)


def missing() -> List[str]:
    """Lists the programs that this machine lacks."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]


def _install() -> int:
    lacking = [*missing(), *([] if apptainer.is_installed() else ["apptainer"])]
    if not lacking:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise HpcdlError(f"{', '.join(lacking)} are missing, and need root and apt to be installed")
    is_ours = not _POLICY.exists()
    if is_ours:  # packages must not start daemons of their own
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *_PACKAGES]):
            subprocess.run(["apt-get", *words], check=True, env=environ, stdout=subprocess.DEVNULL)
        apptainer.install()
    finally:
        if is_ours:
            _POLICY.unlink()
    return 0


def _run(folder: Optional[Path], command: Sequence[str]) -> int:
    if missing() or os.geteuid() != 0:
        what = f"lacks {', '.join(missing())}" if missing() else "is used without root"
        raise HpcdlError(
            f"a private Slurm cannot be made here: this machine {what}; see python -m tools.cluster install"
        )
    own = Path(tempfile.mkdtemp(prefix="hpcdl-cluster-")) if folder is None else folder.resolve()
    try:
        inside = [sys.executable, "-m", "tools.cluster", "inside", "--folder", str(own), "--", *command]
        return subprocess.call(["unshare", *_NAMESPACES, *inside], cwd=ROOT)
    finally:
        if folder is None:
            shutil.rmtree(str(own), ignore_errors=True)


def _inside(plan: Plan, command: Sequence[str]) -> int:
    """Starts the cluster in the namespaces of this process, which is the first of them, and runs the command."""
    box = plan.folder
    environ = {**os.environ, "PATH": _path(), "SLURM_CONF": str(box / "etc" / "slurm.conf")}
    for name in [name for name in environ if name.startswith("SLURM_") and name != "SLURM_CONF"]:
        del environ[name]
    _write(plan)
    for words in (
        ["hostname", LOGIN],
        ["mount", "--make-rprivate", "/"],
        ["mount", "--bind", str(box / "etc" / "hosts"), "/etc/hosts"],
        *_open_for_users(box),
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "add", "bridge", "type", "bridge"],
        ["ip", "address", "add", f"{address(0)}/24", "dev", "bridge"],
        ["ip", "link", "set", "bridge", "up"],
        _munged(box),
        ["slurmctld"],
    ):
        subprocess.run(words, check=True, env=environ)
    for number in range(1, plan.num_nodes + 1):
        _boot(plan, number, environ)
    _wait_until_idle(plan, environ)
    if IMAGE.exists():
        environ.setdefault("HPCDL_TEST_IMAGE", str(IMAGE))
    return subprocess.call(list(command), env={**environ, "HPCDL_TEST_CLUSTER": str(box)})


def _write(plan: Plan) -> None:
    box = plan.folder
    for name in ("etc", "munge", "log", "run", "spool", "state", "shared"):
        (box / name).mkdir(parents=True, exist_ok=True)
    box.chmod(0o755)
    for name, text in (
        ("slurm.conf", slurm_conf(plan)),
        ("gres.conf", gres_conf(plan)),
        ("cgroup.conf", "CgroupPlugin=cgroup/v1\n"),
        ("hosts", hosts(plan)),
    ):
        (box / "etc" / name).write_text(text)
    for number in range(plan.gpus):
        subprocess.run(["mknod", str(box / "etc" / f"gpu{number}"), "c", "1", "3"], check=True)
    (box / "munge" / "key").write_bytes(os.urandom(1024))
    (box / "munge" / "key").chmod(0o400)


def _open_for_users(box: Path) -> List[List[str]]:
    """Lists the mounts by which ordinary users reach the programs of the tests, and may use file systems of theirs.

    Where a folder above a program is closed to others, as root's home is, an open one is mounted over it, with nothing
    in it but what the tests need.
    """
    wanted = [*_prefixes(), cache_folder(os.environ)]
    closed = {path: _closed_above(path) for path in wanted if path.exists()}
    mounts, kept = [], {path: box / "open" / str(number) for number, path in enumerate(wanted)}
    inner = [path for path in closed if closed[path] is not None]
    for path in inner:
        mounts += [["mkdir", "-p", str(kept[path])], ["mount", "--rbind", str(path), str(kept[path])]]
    mounts += [
        ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder)]
        for folder in sorted({folder for folder in closed.values() if folder is not None})
    ]
    for path in inner:
        mounts += [["mkdir", "-p", str(path)], ["mount", "--rbind", str(kept[path]), str(path)]]
    fuse = box / "etc" / "fuse"
    if Path("/dev/fuse").exists():
        mounts += [
            ["mknod", "-m", "666", str(fuse), "c", "10", "229"],
            ["mount", "--bind", str(fuse), "/dev/fuse"],
        ]
    return mounts


def _closed_above(path: Path) -> Optional[Path]:
    """Finds the outermost folder above a path that others may not enter."""
    return next((one for one in reversed(path.parents) if not one.stat().st_mode & 0o001), None)


def _munged(box: Path) -> List[str]:
    files = {"key-file": "munge/key", "socket": "munge/sock", "pid-file": "run/munged.pid"}
    files.update({"log-file": "log/munged.log", "seed-file": "munge/seed"})
    return [
        "munged",
        "--force",
        "--num-threads=2",
        *(f"--{name}={box / path}" for name, path in files.items()),
    ]


def _boot(plan: Plan, number: int, environ: Dict[str, str]) -> None:
    name = plan.nodes[number - 1]
    log = (plan.folder / "log" / f"{name}.log").open("ab")
    script = node_script(plan, number, _shared(plan.folder))
    words = ["unshare", *_NAMESPACES, "bash", "-c", script]
    outer = subprocess.Popen(words, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    ours = os.readlink("/proc/self/ns/net")
    deadline = time.monotonic() + _UP_S
    while True:
        children = subprocess.run(
            ["pgrep", "-P", str(outer.pid)], stdout=subprocess.PIPE, check=False
        ).stdout.split()
        if children and os.readlink(f"/proc/{int(children[0])}/ns/net") != ours:
            break
        if time.monotonic() > deadline:
            raise HpcdlError(f"{name} does not start; see {log.name}")
        time.sleep(0.02)
    veth = [
        "ip",
        "link",
        "add",
        f"to-{name}",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        str(int(children[0])),
    ]
    subprocess.run(veth, check=True)
    subprocess.run(["ip", "link", "set", f"to-{name}", "master", "bridge", "up"], check=True)


def _shared(box: Path) -> List[Path]:
    """Lists the folders below /tmp that programs and data of the tests are in."""
    below = sorted({path for path in (*_prefixes(), box) if Path("/tmp") in path.parents})
    return [path for path in below if not any(other in path.parents for other in below)]


def _prefixes() -> List[Path]:
    prefixes = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    prefixes.update(Path(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part)
    return sorted({path.resolve() for path in prefixes})


def _wait_until_idle(plan: Plan, environ: Dict[str, str]) -> None:
    deadline = time.monotonic() + _UP_S
    while True:
        words = ["sinfo", "-h", "-p", "batch", "-N", "-o", "%T"]
        done = subprocess.run(
            words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
        if done.stdout.split().count(b"idle") == plan.num_nodes:
            return
        if time.monotonic() > deadline:
            for log in sorted((plan.folder / "log").iterdir()):
                print(
                    f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-5:]),
                    file=sys.stderr,
                )
            raise HpcdlError(f"the nodes are not idle after {_UP_S:g} s")
        time.sleep(0.1)


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
