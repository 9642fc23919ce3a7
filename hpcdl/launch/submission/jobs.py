"""The commands ``hpcdl jobs``, ``hpcdl logs`` and ``hpcdl cancel``.

Synopsis::

    sys.exit(logs_main(["12345", "--rank", "3"]))
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from hpcdl.common.checks import parse_whole_number
from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, BadInput
from hpcdl.common.failures import first_failure, read_failures
from hpcdl.common.options import OneLineParser
from hpcdl.common.rank_start import log_path
from hpcdl.common.records import read_run_dirs
from hpcdl.common.saying import count, say
from hpcdl.launch.config import read_config
from hpcdl.launch.outcome import meaning_of
from hpcdl.launch.processes import send
from hpcdl.launch.sites.library import config_dir
from hpcdl.launch.sites.live import asking_environ
from hpcdl.launch.submission.accounting import cores_busy, ended_as
from hpcdl.launch.submission.folders import (
    State,
    Submitted,
    ask_queue,
    find_job,
    find_jobs,
    is_said_to_be_over,
    state_of,
)
from hpcdl.launch.submission.job import default_parent
from hpcdl.launch.submission.progress import read_records, run_lines
from hpcdl.launch.submission.state import read_state
from hpcdl.launch.submission.usage import usage_lines
from hpcdl.launch.watch import tail

_POLL_S = 0.5
_LAST_LINES = 20
_ASK_S = 10.0


def jobs_main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl jobs [JOB]``."""
    parser = _parser("jobs", "List jobs, or say what became of one.")
    parser.add_argument("job", metavar="JOB", nargs="?", help="id or folder of a job")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(list(argv))
    parent = _parent(options.jobs_dir)
    if options.job is not None:
        job = find_job(options.job, parent)
        state = state_of(job, ask_queue([job]))
        if options.json:
            runs = [str(folder) for folder in read_run_dirs(job.job.log_dir)]
            facts = {**job_facts(job, state), "keeper": read_state(job.folder), "runs": runs}
            print(json.dumps(facts, indent=2))
        else:
            print("\n".join(job_lines(job, state)))
        return EXIT_DONE
    jobs = find_jobs(parent)
    queue = ask_queue(jobs)
    all_facts = [job_facts(job, state_of(job, queue)) for job in jobs]
    if options.json:
        print(json.dumps(all_facts, indent=2))
        return EXIT_DONE
    for one in all_facts:
        print("{job_id:<10} {state:<10} {name:<20} {words}".format(**one).rstrip())
    if not jobs:
        say(f"no jobs in {parent}")
    return EXIT_DONE


def logs_main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl logs JOB``."""
    parser = _parser("logs", "Show what the ranks of a job write.")
    parser.add_argument("job", metavar="JOB", help="id or folder of a job")
    parser.add_argument("--rank", metavar="N", type=_rank, default=0, help="show rank N's log (default: 0)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job is over")
    parser.add_argument("--first-error", action="store_true", help="show the first failing rank's traceback")
    options = parser.parse_args(list(argv))
    job = find_job(options.job, _parent(options.jobs_dir))
    if options.first_error:
        return _first_error(job)
    world_size = job.job.layout.world_size
    if options.rank >= world_size:
        raise BadInput(
            f"--rank must be a rank of the job; received {options.rank}; it has 0 to {world_size - 1}"
        )
    log = log_path(job.job.log_dir, options.rank)
    if not options.follow and not log.exists():
        state = state_of(job, ask_queue([job]))
        say(f"rank {options.rank} has written nothing yet; the job is {state.word}")
        _show_keeper(job)
        return EXIT_DONE
    _copy(job, log, options.follow)
    for line in run_lines(job.job.log_dir):
        print(line, file=sys.stderr)
    return EXIT_DONE


def cancel_main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl cancel JOB``: the ranks save and stop, as far as the grace of Slurm lets them."""
    parser = _parser("cancel", "End a job; it is not started again.")
    parser.add_argument("job", metavar="JOB", help="id or folder of a job")
    options = parser.parse_args(list(argv))
    job = find_job(options.job, _parent(options.jobs_dir))
    state = state_of(job, ask_queue([job]))
    is_slurms = job.job.executor == "slurm"
    if state.is_over and not (is_slurms and state.word == "lost"):
        say(f"job {job.job_id} is over already: {state.word}")
        return EXIT_DONE
    if is_slurms:  # and Slurm knows best, whatever is thought of the job here
        if shutil.which("scancel") is None:
            raise BadInput(
                f"scancel is needed to cancel job {job.job_id}; found none here; log in to the cluster"
            )
        done = subprocess.run(["scancel", job.job_id], env=asking_environ(os.environ), check=False)
        return EXIT_DONE if done.returncode == 0 else EXIT_FAILED
    if job.process is None:
        raise BadInput(
            f"a job is cancelled on the machine that it runs on; received {job.job_id}, which runs on {job.elsewhere};"
            " cancel it there"
        )
    send(job.process.pid, signal.SIGTERM)
    return EXIT_DONE


def job_facts(job: Submitted, state: State) -> Dict[str, Any]:
    """Says of a job what a script wants to know."""
    return {
        "job_id": job.job_id,
        "name": job.job.name,
        "state": state.word,
        "words": state.words,
        "is_over": state.is_over,
        "site": job.job.site,
        "folder": job.job.folder,
        "num_ranks": job.job.layout.world_size,
        "num_nodes": job.job.layout.num_nodes,
    }


def job_lines(job: Submitted, state: State) -> List[str]:
    """Writes what is known of one job."""
    kept = read_state(job.folder)
    lines = [
        f"job        {job.job_id} {job.job.name}: {state.word} {state.words}".rstrip(),
        f"ranks      {job.job.layout.world_size} on {count(job.job.layout.num_nodes, 'node')}, site {job.job.site}",
        f"folder     {job.job.folder}",
    ]
    if kept.get("meaning"):
        lines.append(f"that is    {kept['meaning']}")
    if state.word == "lost" and job.job.executor == "slurm":
        lines.append(f"Slurm says {ended_as(job.job_id) or 'nothing of it any more'}")
    if kept.get("restarts"):
        lines.append(f"restarts   {kept['restarts']}")
    if "started" in kept:
        seconds = round(kept.get("ended", time.time()) - kept["started"])
        lines.append(
            f"time       {seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} since the last start"
        )
    lines += run_lines(job.job.log_dir)
    if state.is_over and job.job.executor == "slurm":
        lines += usage_lines(job.job.layout, kept, read_records(job.job.log_dir), cores_busy(job.job_id))
    return lines


def _first_error(job: Submitted) -> int:
    """Shows the first failure: the rank's own report, or of one that had no time for any what is known of its end."""
    log_dir, kept = job.job.log_dir, read_state(job.folder)
    failure = first_failure(read_failures(log_dir))
    rank = kept.get("rank") if failure is None else failure.rank
    if failure is None and not kept.get("words"):
        say(f"no rank has reported a failure; the job is {state_of(job, ask_queue([job])).word}")
        _show_keeper(job)
        return EXIT_DONE
    if failure is None:
        print(kept["words"])
    else:
        print(f"rank {failure.rank} on {failure.hostname}: {failure.error}")
        if failure.traceback:
            print(failure.traceback.rstrip())
    meant = meaning_of(failure, rank, log_dir, tail)
    if meant is not None:
        print(f"that is: {meant}")
    if rank is None:
        _show_keeper(job)
        return EXIT_DONE
    log = log_path(log_dir, rank)
    if failure is None:
        print("\n".join(["the last lines of its log:", *tail(log, _LAST_LINES)]))
    print(f"log: {log}")
    return EXIT_DONE


def _show_keeper(job: Submitted) -> None:
    """Shows what the keeper and srun have said, where the ranks have said nothing."""
    for path in (job.job.log_dir / "launcher.log", job.folder / f"{job.job_id}_0_log.out"):
        if path.exists() and path.stat().st_size:
            print(f"--- {path}")
            sys.stdout.flush()
            _copy_from(path, 0)


def _copy(job: Submitted, log: Path, follow: bool) -> None:
    at, asked = _copy_from(log, 0), time.monotonic()
    while follow:
        over = False
        if time.monotonic() - asked > _ASK_S or is_said_to_be_over(job):
            asked = time.monotonic()
            over = state_of(job, ask_queue([job])).is_over
        time.sleep(0 if over else _POLL_S)
        at = _copy_from(log, at)
        if over:
            return


def _copy_from(log: Path, at: int) -> int:
    if not log.exists():
        return at
    with open(str(log), "rb") as file:
        file.seek(at)
        data = file.read()
    sys.stdout.buffer.write(data)
    sys.stdout.flush()  # a reader who has left (`| head`) ends this command
    return at + len(data)


def _rank(text: str) -> int:
    return parse_whole_number("--rank", text, least=0)


def _parent(jobs_dir: Optional[str]) -> Path:
    return default_parent(jobs_dir or read_config(config_dir(os.environ)).jobs_dir)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=f"hpcdl {name}",
        description=description,
        epilog=f"example: hpcdl {name} 12345",
    )
    parser.add_argument(
        "--jobs-dir", metavar="DIR", help="look in DIR (default: of config.toml, else hpcdl-jobs)"
    )
    return parser
