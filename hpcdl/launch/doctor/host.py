"""Checks of the machine where jobs are submitted. Pure functions over gathered facts.

Synopsis::

    findings = check_host(gather_host(...), profile, partition="GPU", launcher="gloo")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

from hpcdl.common.checks import near_ones
from hpcdl.launch.container import BY_FILE, FILE_SYSTEM, program_of
from hpcdl.launch.doctor.hello import candidates
from hpcdl.launch.doctor.quota import Quota
from hpcdl.launch.doctor.verdict import FAILED, OK, WARNING, Finding
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.explain import describe
from hpcdl.launch.submission.layout import Layout

#: Variables of a job that bind what is started from a shell which only remembers that job.
BINDING = ("SLURM_CPU_BIND", "SLURM_GPU_BIND", "SLURM_MEM_BIND", "SLURM_CPUS_PER_TASK", "SLURM_TRES_PER_TASK")
_MIN_FREE_GB = 5
_MIN_FREE_FILES = 10_000


@dataclass(frozen=True)
class Place:
    """A folder that a run writes into: what is wrong with writing there, and what is free.

    Attributes:
        path: The folder.
        problem: What is wrong with writing there; None: nothing.
        free_gb: What its file system has left.
        free_files: Files that may still be made there; None: the file system does not count them.
        quota: What the user may have there; None: nobody tells.
        is_home: Whether it is the user's home, where caches grow.
    """

    path: str
    problem: Optional[str]
    free_gb: float
    free_files: Optional[int]
    quota: Optional[Quota] = None
    is_home: bool = False


@dataclass(frozen=True)
class HostFacts:
    """What was found on this machine.

    Attributes:
        slurm_version: Of the sbatch here; None: it does not say.
        slurm_problem: Why it does not.
        partitions: Names of the cluster's partitions; None: it did not answer.
        mpi_types: srun's ways to start MPI.
        mpirun: What the mpirun here says of itself, after the profile's setup; None: there is none, or nobody asked.
        container_version: What the container program says of itself; None: there is none.
        container_mounts: Programs by which an ordinary user's image is mounted, of those that are here.
        container_is_setuid: Whether the container program mounts images with root's rights.
        image: The image; None: a run without one.
        image_problem: What is wrong with the image file; None: nothing, or a name in a registry.
        account: The account that a job would name.
        places: Folders of a run.
        inherited: Names of variables of another job in this shell.
        job_id: The job that this shell is in.
    """

    slurm_version: Optional[str]
    slurm_problem: Optional[str]
    partitions: Optional[Tuple[str, ...]]
    mpi_types: Tuple[str, ...]
    mpirun: Optional[str]
    container_version: Optional[str]
    container_mounts: Tuple[str, ...]
    container_is_setuid: bool
    image: Optional[str]
    image_problem: Optional[str]
    account: Optional[str]
    places: Tuple[Place, ...]
    inherited: Tuple[str, ...]
    job_id: Optional[str]


def check_host(facts: HostFacts, profile: Profile, partition: Optional[str], launcher: str) -> List[Finding]:
    """Checks what was found on this machine.

    Args:
        facts: What was found.
        profile: The site.
        partition: Where a job would wait; None: where Slurm puts it.
        launcher: How its ranks would be started.
    """
    has_slurm = profile.site.scheduler == "slurm"
    found = [*_slurm(facts, profile, partition, launcher)] if has_slurm else []
    found += [*_container(facts, profile), *(_place(place) for place in facts.places), _inherited(facts)]
    return found


def _finding(check: str, status: str, evidence: str, cure: str = "") -> Finding:
    return Finding(check, "host", status, evidence, cure)


def _slurm(facts: HostFacts, profile: Profile, partition: Optional[str], launcher: str) -> Iterator[Finding]:
    site = profile.site
    if facts.slurm_version is None:
        yield _finding(
            "slurm",
            FAILED,
            facts.slurm_problem or "sbatch does not say its version",
            f"log in to {site.title}, or load the module that brings Slurm",
        )
        return
    known = site.slurm_version
    if known is not None and known.split(".")[:2] != facts.slurm_version.split(".")[:2]:
        yield _finding(
            "slurm",
            WARNING,
            f"Slurm {facts.slurm_version}; the profile says {known}",
            f"hpcdl site verify {profile.name}, and correct your own file for the site",
        )
    else:
        yield _finding("slurm", OK, f"Slurm {facts.slurm_version}")
    if partition is not None and facts.partitions is not None:
        if partition in facts.partitions:
            yield _finding("partition", OK, f"{partition} is there")
        else:
            near = near_ones(partition, facts.partitions, 1, 0.4)
            yield _finding(
                "partition",
                FAILED,
                f"the cluster has no partition {partition}; it has {', '.join(facts.partitions)}",
                f"pass --partition {(near or list(facts.partitions) or ['NAME'])[0]}",
            )
    if site.account_required and facts.account is None:
        yield _finding(
            "account",
            FAILED,
            "a job here must name an account, and none is set",
            "pass --account NAME, or write account = 'NAME' to config.toml",
        )
    elif facts.account is not None:
        yield _finding("account", OK, facts.account)
    if launcher == "mpi":
        yield _mpi_type(facts, profile)
    if launcher == "mpirun" and facts.mpirun is None:
        yield _finding(
            "mpirun",
            FAILED,
            "no mpirun here" + (", also after setup" if site.setup else ""),
            "add the module that brings it to setup in your own file for the site, or pass --launcher gloo",
        )
    elif launcher == "mpirun":
        yield _finding("mpirun", OK, facts.mpirun or "")


def check_plan(layout: Optional[Layout], trouble: str) -> Finding:
    """Judges what a job would ask for.

    Args:
        layout: It; None: the profile, or the words that were typed, do not allow one.
        trouble: Why there is none: the rule, what was received, and the way out.
    """
    if layout is not None:
        return _finding("layout", OK, describe(layout))
    return refused("layout", trouble)


def refused(check: str, trouble: str) -> Finding:
    """Makes a finding of what hpcdl itself refuses: the rule and what was received, and the way out."""
    evidence, _, cure = trouble.rpartition("; ")
    return _finding(check, FAILED, evidence or trouble, cure)


def check_submission(answer: str, is_refused: Optional[bool]) -> Finding:
    """Judges what Slurm says to a job that it shall not run (`sbatch --test-only`).

    Only Slurm knows which accounts, QOS and reservations a user may name, together.

    Args:
        answer: In its words.
        is_refused: Whether it would refuse the job; None: it does not answer.
    """
    if is_refused is None:
        return _finding("submission", WARNING, answer, "ask again later; a job may wait as long to be taken")
    if not is_refused:
        return _finding("submission", OK, answer)
    return _finding(
        "submission",
        FAILED,
        answer,
        "pass another --account, --qos, --partition or --reservation, whichever it names: `sacctmgr show"
        " associations user=$USER format=account,partition,qos` lists yours, `scontrol show reservation` those",
    )


def _mpi_type(facts: HostFacts, profile: Profile) -> Finding:
    mpi = profile.site.mpi
    if mpi in facts.mpi_types:
        return _finding("mpi type", OK, f"srun --mpi={mpi}")
    offered = candidates(facts.mpi_types)
    return _finding(
        "mpi type",
        FAILED,
        f"srun has no --mpi={mpi}; it has {', '.join(facts.mpi_types) or 'none'}",
        f"set mpi = '{offered[0]}' in your own file for the site, or pass --launcher gloo"
        if offered
        else "pass --launcher gloo",
    )


def _container(facts: HostFacts, profile: Profile) -> Iterator[Finding]:
    container = profile.site.container
    if facts.image is None:
        return
    program = program_of(container)
    if facts.container_version is None:
        yield _finding(
            "container",
            FAILED,
            f"no {program} here",
            f"add the module that brings {program} to setup in your own file for the site, or pass --image none",
        )
        return
    is_by_file = container.kind in BY_FILE
    if is_by_file and not facts.container_is_setuid and FILE_SYSTEM not in facts.container_mounts:
        yield _finding(
            "container",
            WARNING,
            f"{facts.container_version}, without root's rights and without {FILE_SYSTEM}: it unpacks the image at"
            " each start",
            f"ask the centre for {FILE_SYSTEM}, or unpack it once: {program} build --sandbox FOLDER {facts.image}",
        )
    else:
        yield _finding("container", OK, facts.container_version)
    if facts.image_problem is None:
        yield _finding("image", OK, facts.image)
    else:
        yield _finding(
            "image",
            FAILED,
            f"{facts.image}: {facts.image_problem}",
            "pass --image FILE with one that is there, build one (hpcdl container build cpu FILE), or --image none",
        )


def _place(place: Place) -> Finding:
    check = "home" if place.is_home else "folder"
    if place.problem is not None:
        cure = f"chmod u+rwx {place.path}"
        return _finding(
            check,
            FAILED,
            f"{place.path}: {place.problem}",
            cure if place.is_home else f"{cure}, or take another by --run-dir and --jobs-dir",
        )
    quota = place.quota
    inodes = "" if place.free_files is None else f", {place.free_files} files"
    evidence = f"{place.path}: {place.free_gb:.1f} GB{inodes} free"
    if quota is not None:
        evidence += f"; {quota.describe()}"
    free_gb = [place.free_gb, quota.free_gb if quota else None]
    free_files = [place.free_files, quota.free_files if quota else None]
    is_short = any(free is not None and free < _MIN_FREE_GB for free in free_gb) or any(
        free is not None and free < _MIN_FREE_FILES for free in free_files
    )
    if not is_short:
        return _finding(check, OK, evidence)
    is_over = quota is not None and any(
        free is not None and free <= 0 for free in (quota.free_gb, quota.free_files)
    )
    if place.is_home:
        cure = "free some room there; caches grow in it: move them by APPTAINER_CACHEDIR, PIP_CACHE_DIR, XDG_CACHE_HOME"
        return _finding(check, WARNING, evidence, cure)
    return _finding(
        check, FAILED if is_over else WARNING, evidence, "free some room there; a full disk ends checkpoints"
    )


def _inherited(facts: HostFacts) -> Finding:
    binding = sorted(name for name in facts.inherited if name.startswith(BINDING))
    if facts.job_id is not None or not facts.inherited:
        return _finding("inherited", OK, "no variables of another job")
    if binding:
        return _finding(
            "inherited",
            FAILED,
            f"this shell remembers a job: {' '.join(binding)}; a run in salloc would share its cores",
            f"unset {' '.join(binding)}",
        )
    names = " ".join(sorted(facts.inherited))
    return _finding("inherited", WARNING, f"this shell remembers a job: {names}", f"unset {names}")
