"""The folders of jobs, and what has become of each: from what its keeper wrote and from what Slurm still knows.

Works without Slurm's accounting: a job that has left the queue is told by its folder.

Synopsis::

    for job in find_jobs(jobs_dir):
        print(job.job_id, state_of(job, queue).word)
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.records import write_json
from hpcdl.launch.processes import Process, identify
from hpcdl.launch.sites.live import run_text
from hpcdl.launch.submission.job import Job, read_job
from hpcdl.launch.submission.state import read_state

#: What a keeper has written while its job is not over (None: nothing yet).
_OPEN = (None, "running", "requeued")
#: Slurm's states of a job that is over: what became of it, its keeper knows better.
_OVER = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)
#: Slurm's states of a job that has no nodes, or does not run on them now. In any other that squeue lists, it runs.
_WAITING = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
    "STOPPED",
    "SUSPENDED",
)


@dataclass(frozen=True)
class Submitted:
    """A job that was handed over.

    Attributes:
        job_id: Slurm's, or that of the process that looks after it. Of jobs that follow each other the last one's.
        job: Its description.
        process: The process that looks after it on this machine, if one did.
        elsewhere: The machine on which a process looks after it, if that is another one.
        earlier: Ids of the jobs that it follows in the same folder.
    """

    job_id: str
    job: Job
    process: Optional[Process] = None
    elsewhere: Optional[str] = None
    earlier: Tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The job's folder."""
        return Path(self.job.folder)


@dataclass(frozen=True)
class State:
    """What has become of a job: one word, and what more there is to say."""

    word: str
    words: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it will write nothing more."""
        return self.word not in ("waiting", "running", "requeued", "unknown")


def write_handle(folder: Path, job_id: str, executor: str) -> None:
    """Notes the id of a job that was handed over; one that was noted before becomes an earlier one."""
    before = _read_handle(folder)
    earlier = [] if before is None else [*before.get("earlier", []), before["job_id"]]
    process = identify(int(job_id)) if executor == "local" else None
    handle = {
        "job_id": job_id,
        "host": socket.gethostname(),
        "start_ticks": process and process.start_ticks,
        "earlier": earlier,
    }
    write_json(folder / "handle.json", handle)


def find_jobs(parent: Path) -> List[Submitted]:
    """Finds the jobs whose folders are in a folder, in the order of submission."""
    found = [_submitted(path.parent) for path in sorted(parent.glob("*/handle.json"))]
    return [one for one in found if one is not None]


def find_job(name: str, parent: Path) -> Submitted:
    """Finds a job by its id, or by its folder.

    Raises:
        BadInput: There is none, or its files are damaged.
    """
    folder = Path(name)
    if any(os.path.exists(folder / file) for file in ("handle.json", "job.json")):
        return _read_submitted(folder)
    jobs = find_jobs(parent)
    for one in reversed(jobs):  # an id of a local job is a process id, which comes again
        if name in (one.job_id, one.folder.name, *one.earlier):
            return one
    for path in sorted(parent.glob("*/handle.json"), reverse=True):  # those that `find_jobs` leaves out
        handle = _read_handle(path.parent) or {}
        if name in (handle.get("job_id"), path.parent.name):
            return _read_submitted(path.parent)
    known = ", ".join(one.job_id for one in jobs[-8:]) or "none"
    raise BadInput(f"no job {name} in {parent}; jobs there: {known}; pass --jobs-dir, or the job's folder")


def ask_queue(jobs: Sequence[Submitted]) -> Optional[Dict[str, str]]:
    """Asks Slurm for the user's jobs.

    Returns:
        id -> ``STATE|REASON|TIME|NODES``, {} where none of the jobs is Slurm's; None if Slurm gives no answer, which
        says nothing about a job.
    """
    if not any(one.job.executor == "slurm" for one in jobs):
        return {}
    try:
        # Of all states: by default squeue leaves out some in which a job waits, suspended ones among them.
        argv = ["squeue", "-h", "-u", str(os.getuid()), "-t", "all", "-o", "%i|%T|%r|%M|%N"]
        text = run_text(argv, with_stderr=False)
    except BadInput:
        return None
    rows = (line.partition("|") for line in text.splitlines())
    return {job_id: rest for job_id, found, rest in rows if found}


def state_of(
    submitted: Submitted,
    queue: Optional[Mapping[str, str]],
    is_alive: Callable[[Process], bool] = Process.is_alive,
) -> State:
    """Decides what has become of a job; ``queue`` is what `ask_queue` gave."""
    row = (queue or {}).get(submitted.job_id, "") if submitted.job.executor == "slurm" else ""
    slurm, reason, time, nodes = (row.split("|") + ["", "", ""])[:4]
    if slurm and slurm not in _OVER:
        return State("waiting", reason) if slurm in _WAITING else State("running", f"for {time} on {nodes}")
    kept = read_state(submitted.folder)
    if kept.get("state") not in _OPEN:
        return State(str(kept["state"]), str(kept.get("words", "")))
    last = kept.get("state") or "nothing yet"
    if submitted.elsewhere is not None:
        return State("unknown", f"it is looked after on {submitted.elsewhere}, which last said: {last}")
    if submitted.process is not None and is_alive(submitted.process):
        # A local job is over when its keeper has said so; what started the keeper takes a while to end.
        return State("running", "on this machine")
    if submitted.job.executor == "slurm" and queue is None:
        return State("unknown", f"Slurm gives no answer; the job last said: {last}")
    # Nobody looks after it any more, and its keeper had no time to say why.
    return State("lost", "ended without a word: cancelled, killed, or out of time or memory")


def is_said_to_be_over(submitted: Submitted) -> bool:
    """Whether the keeper says that the job is over, which spares Slurm the question."""
    return read_state(submitted.folder).get("state") not in _OPEN


def _submitted(folder: Path) -> Optional[Submitted]:
    try:
        return _read_submitted(folder)
    except BadInput:
        return None  # being written, damaged, or of another version


def _read_submitted(folder: Path) -> Submitted:
    """Reads the folder of a job.

    Raises:
        BadInput: It was not handed over, is damaged, or of another version.
    """
    job = read_job(folder)
    handle = _read_handle(folder)
    if handle is None and not (folder / "handle.json").exists():
        raise BadInput(
            f"a job that was handed over has a handle.json; received {folder}, which has none: it ran at once"
            f" (--executor debug), or is being submitted just now; see {folder}/logs"
        )
    if handle is None:
        raise BadInput(f"{folder / 'handle.json'} is damaged; submit the job again")
    try:
        process = None
        is_here = handle["host"] == socket.gethostname()
        if handle["start_ticks"] is not None and is_here:
            process = Process(int(handle["job_id"]), int(handle["start_ticks"]))
        elsewhere = handle["host"] if job.executor == "local" and not is_here else None
        return Submitted(str(handle["job_id"]), job, process, elsewhere, tuple(handle.get("earlier", ())))
    except (KeyError, TypeError, ValueError) as problem:
        raise BadInput(
            f"{folder / 'handle.json'} is damaged: {type(problem).__name__}: {problem}; submit the job again"
        ) from problem


def _read_handle(folder: Path) -> Optional[Dict[str, Any]]:
    try:
        return dict(json.loads((folder / "handle.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
