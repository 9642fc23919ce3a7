"""The command ``hpcdl submit``: from the words that a user types to a job that Slurm has.

What it decides is said on standard error; standard output has the job's id, or with ``--dry-run`` the batch script.

Synopsis::

    sys.exit(submit_main(["--site", "bridges2", "-N", "4", "-A", "abc123p", "--dry-run", "train.py"]))
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import Sequence

from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.launch.config import read_config
from hpcdl.launch.sites.library import choose_site, config_dir, load_profile
from hpcdl.launch.submission.explain import balance_line, plan_lines
from hpcdl.launch.submission.preparing import prepare, refuse_inside_job, warnings_of_files, why_refused
from hpcdl.launch.submission.words import parse_submit


def submit_main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl submit ARGV``.

    Returns:
        The exit status.

    Raises:
        BadInput: The words are wrong, the site does not allow them, or Slurm refuses the job; nothing is left behind.
    """
    command = parse_submit(argv)
    if not command.place.dry_run:
        refuse_inside_job(os.environ)
    config_folder = config_dir(os.environ)
    config = read_config(config_folder)
    name, how = choose_site(command.place.site, config.site, os.environ, config_folder)
    profile = load_profile(name, config_folder)
    job, tree = prepare(command, profile, config, argv, os.environ)
    for line in plan_lines(job, profile, how):
        print(line, file=sys.stderr)
    for warning in warnings_of_files(job, config):
        print(warning, file=sys.stderr)
    from hpcdl.launch.submission import executors  # submitit takes a while to load

    if command.place.dry_run:
        problem = why_refused(job, command, config)
        if problem is not None:
            print(f"here it would be refused: {problem}", file=sys.stderr)
        run = shlex.join(job.argv)
        if job.executor == "slurm":
            print("keeper runs  " + run, file=sys.stderr)
            print(executors.batch_script(job), end="")
        else:
            print(run)
        return EXIT_DONE
    # What a dry run, which is to answer in a blink, needs nothing of.
    from hpcdl.launch.submission.accounting import minutes_left
    from hpcdl.launch.submission.handover import hand_over

    if job.executor == "slurm" and job.account:
        of_balance = balance_line([job.layout], job.account, minutes_left(job.account))
        if of_balance is not None:
            print(f"warning      {of_balance}", file=sys.stderr)
    if command.place.when and job.executor != "slurm":
        raise BadInput(f"--when asks Slurm; received --site {job.site}, which has none; leave it out")
    if command.place.when:
        print(executors.ask_when(job, os.environ))
        return EXIT_DONE
    job_id = hand_over(job, tree, os.environ)
    if job.executor == "debug":
        return EXIT_DONE
    print(job_id)
    print(
        f"hpcdl logs -f {job_id}    what rank 0 writes; hpcdl jobs {job_id}, hpcdl cancel {job_id}",
        file=sys.stderr,
    )
    return EXIT_DONE
