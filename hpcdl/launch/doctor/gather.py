"""Gathers the facts that the checks judge: here, and inside the image or the environment.

Synopsis::

    facts = gather_host(profile, image, account, folders, os.environ)
    inside = gather_inside(enter, python, setup, lib, folders, os.environ)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.files import nearest_existing
from hpcdl.common.probe import try_folder
from hpcdl.launch.container import BY_FILE, LIBRARIES_FOR_IMAGES, program_of
from hpcdl.launch.doctor.hello import read_hello
from hpcdl.launch.doctor.host import HostFacts, Place
from hpcdl.launch.doctor.quota import read_quota
from hpcdl.launch.mpirun import recognise
from hpcdl.launch.sites.live import parse_mpi_types, parse_partitions, run_text
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.executors import unset_names

#: TensorFlow's first import from a cold parallel file system takes minutes.
_INSIDE_S = 300
#: A server of quotas that is down must not hold up the rest.
_QUOTA_S = 20
_MOUNTS = ("squashfuse_ll", "squashfuse", "fusermount3", "fusermount")


def gather_host(
    profile: Profile,
    image: Optional[str],
    account: Optional[str],
    folders: Sequence[str],
    environ: Mapping[str, str],
    ask: Callable[[Sequence[str]], str] = run_text,
    which: Callable[[str], Optional[str]] = shutil.which,
    printed: Optional[Callable[[Sequence[str]], str]] = None,
    with_mpirun: bool = False,
) -> HostFacts:
    """Gathers what this machine tells.

    Args:
        profile: The site.
        image: The image; None: none.
        account: The account that a job would name.
        folders: What a run writes into.
        environ: The variables of this shell.
        ask: Runs a command and gives what it prints; raises `BadInput`.
        which: Looks a name up on PATH.
        printed: Runs a command and gives what it prints, whatever its exit status.
        with_mpirun: Whether to look for mpirun.
    """
    container = profile.site.container
    slurm, slurm_problem = None, "no sbatch here"
    if which("sbatch") is not None:
        try:
            slurm = ask(["sbatch", "--version"])
        except BadInput as problem:
            slurm_problem = str(problem)
    partitions = _answer(ask, ["scontrol", "show", "partition", "-o"]) if slurm is not None else None
    program = program_of(container)
    found = which(program) if image is not None and program else None
    return HostFacts(
        slurm_version=_version(slurm),
        slurm_problem=slurm_problem if slurm is None else None,
        partitions=tuple(parse_partitions(partitions)) if partitions is not None else None,
        mpi_types=parse_mpi_types(_answer(ask, ["srun", "--mpi=list"]) or "") if slurm is not None else (),
        mpirun=_mpirun(profile.site.setup, ask) if with_mpirun else None,
        container_version=(_answer(ask, [program, "--version"]) or found).strip() if found else None,
        container_mounts=tuple(name for name in _MOUNTS if which(name) is not None),
        container_is_setuid=found is not None and _is_setuid(Path(found)),
        image=image,
        image_problem=_image_problem(image) if container.kind in BY_FILE else None,
        account=account,
        places=_places(folders, environ, printed or _printed, which),
        inherited=() if "SLURM_JOB_ID" in environ else tuple(unset_names(environ)),
        job_id=environ.get("SLURM_JOB_ID"),
    )


def gather_inside(
    enter: Sequence[str],
    python: Sequence[str],
    setup: Sequence[str],
    lib: Path,
    folders: Sequence[str],
    environ: Mapping[str, str],
    quick: bool = False,
    enter_bare: Sequence[str] = (),
) -> Dict[str, Any]:
    """Asks the Python that ranks would run with.

    Args:
        enter: What stands before a command to run it in the image; () for the environment itself.
        python: The words that start Python there.
        setup: Shell lines before.
        lib: A folder with the half of hpcdl that ranks need, which is seen from there.
        folders: What a run reads and writes.
        environ: Variables of this shell.
        quick: Whether to load nothing of TensorFlow.
        enter_bare: As ``enter``, without the flags that give an image the GPUs; () if there are none. It is tried where
            TensorFlow does not load with them.

    Returns:
        Facts by section; ``error`` alone, if nothing starts.
    """
    facts: Dict[str, Any] = {}
    started = time.monotonic()
    # A library that was built for another TensorFlow may crash: each in a process of its own.
    heavy = [] if quick else [["tensorflow"], ["horovod", "mpi"]]
    sections = [["python", "keras", "strangers"], *heavy]
    for words in (
        ["hpcdl.common.probe", *folders],
        *(["hpcdl.runtime.inventory", *names] for names in sections),
    ):
        answer = _run_inside([*enter, *python, str(lib), *words], setup, environ)
        if words[0] == "hpcdl.common.probe":
            if "error" in answer:
                return answer
            facts["around"] = answer
        elif "error" in answer:
            facts.update({name: answer for name in words[1:]})
        else:
            facts.update(answer)
    if enter_bare and "error" in (facts.get("tensorflow") or {}):
        words = [*enter_bare, *python, str(lib), "hpcdl.runtime.inventory", "tensorflow"]
        answer = _run_inside(words, setup, environ)
        facts["gpu_flags"] = [word for word in enter if word not in enter_bare]
        facts["without_gpu_flags"] = answer.get("tensorflow", answer)
    facts["library_path"] = _library_path(enter, setup, environ)
    facts["seconds"] = round(time.monotonic() - started, 1)
    return facts


def _run_inside(argv: Sequence[str], setup: Sequence[str], environ: Mapping[str, str]) -> Dict[str, Any]:
    script = "\n".join([*setup, 'exec "$@"'])
    try:
        done = subprocess.run(
            ["bash", "-c", script, "bash", *argv],
            env={**_as_in_a_job(environ), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_INSIDE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {_INSIDE_S} s"}
    try:
        return dict(json.loads(done.stdout.decode(errors="replace").strip().splitlines()[-1]))
    except (ValueError, IndexError):
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        ending = f"exit status {done.returncode}" if done.returncode >= 0 else f"signal {-done.returncode}"
        return {"error": f"{ending}: {said[-1].strip()[:300] if said else 'it said nothing'}"}


def _library_path(enter: Sequence[str], setup: Sequence[str], environ: Mapping[str, str]) -> List[str]:
    """Lists the folders of the host's LD_LIBRARY_PATH that reach the ranks, as they are after ``setup``."""
    names = ("LD_LIBRARY_PATH",) if not enter else LIBRARIES_FOR_IMAGES
    script = "\n".join([*setup, *(f'printf "%s:" "${{{name}}}"' for name in names)])
    done = subprocess.run(
        ["bash", "-c", f"{{\n{script}\n}} | tail -n 1"],
        env=_as_in_a_job(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_INSIDE_S,
        check=False,
    )
    return [part for part in done.stdout.decode(errors="replace").split(os.pathsep) if part]


def _as_in_a_job(environ: Mapping[str, str]) -> Dict[str, str]:
    """Leaves out what a job does not inherit."""
    return {name: value for name, value in environ.items() if name not in LIBRARIES_FOR_IMAGES}


def _answer(ask: Callable[[Sequence[str]], str], argv: Sequence[str]) -> Optional[str]:
    try:
        return ask(argv)
    except BadInput:
        return None


def _mpirun(setup: Sequence[str], ask: Callable[[Sequence[str]], str]) -> Optional[str]:
    """Asks the mpirun that the batch script of a job would find for its name and version."""
    begins = "hpcdl asks mpirun:"  # behind what `setup` says
    said = _answer(
        ask, ["bash", "-c", "\n".join([*setup, f"echo; echo '{begins}'", "exec mpirun --version"])]
    )
    if said is None:
        return None
    answer = said.rpartition(begins)[2].strip()
    known = recognise("mpirun", answer)
    return known.describe() if known is not None else (answer.splitlines() or ["it says nothing"])[0]


def _version(text: Optional[str]) -> Optional[str]:
    match = re.search(r"\d+\.\d+(\.\d+)?", text or "")
    return match.group(0) if match else None


def _is_setuid(program: Path) -> bool:
    """Whether a container program comes with a starter that has root's rights."""
    prefix = program.resolve().parent.parent
    for starter in (*prefix.glob("libexec/*/bin/starter-suid"), *prefix.glob("lib/*/*/bin/starter-suid")):
        if os.stat(str(starter)).st_mode & stat.S_ISUID:
            return True
    return os.geteuid() == 0


def _image_problem(image: Optional[str]) -> Optional[str]:
    if image is None:
        return None
    if not os.path.exists(image):
        return "it is not there"
    return None if os.access(image, os.R_OK) else "it may not be read"


def _places(
    folders: Sequence[str],
    environ: Mapping[str, str],
    printed: Callable[[Sequence[str]], str],
    which: Callable[[str], Optional[str]],
) -> Tuple[Place, ...]:
    """Looks at the folders of a run, and at the user's home."""
    home, user = environ.get("HOME"), environ.get("USER") or environ.get("LOGNAME")
    found = []
    for folder in dict.fromkeys([*folders, *([home] if home and os.path.isdir(home) else [])]):
        there = str(nearest_existing(Path(folder)))
        usage = os.statvfs(there)
        files = usage.f_favail if usage.f_files else None
        quota = read_quota(there, user, printed, which) if user else None
        free_gb = usage.f_bavail * usage.f_frsize / 1e9
        is_home = folder == home and folder not in folders
        found.append(Place(folder, try_folder(there), free_gb, files, quota, is_home))
    return tuple(found)


def _printed(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_QUOTA_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


def read_ranks(folder: Path, name: str) -> List[Dict[str, Any]]:
    """Reads what ranks have written, by rank: ``seen`` or ``met``."""
    found: List[Tuple[int, Dict[str, Any]]] = []
    for path in folder.glob(f"{name}-*.json"):
        tree = json.loads(path.read_text(encoding="utf-8"))
        found.append((tree["rank"], tree))
    return [tree for _, tree in sorted(found, key=lambda pair: pair[0])]


def read_hellos(folder: Path) -> Dict[str, Optional[str]]:
    """Reads what came of the hellos of two ranks, by srun's type: what went wrong; None: nothing."""
    found = {}
    for path in sorted(folder.glob("hello-*.txt")):
        name = path.stem[len("hello-") :]
        found[name] = read_hello(path.read_text(encoding="utf-8", errors="replace"))
    return found
