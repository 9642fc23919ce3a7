"""The command ``hpcdl doctor``: will it work here? On this machine, inside the image, and in a short job.

Synopsis::

    hpcdl doctor --site bridges2
    hpcdl doctor --site bridges2 --nodes 2 -A abc123p --report ticket.txt
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

import hpcdl
from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED
from hpcdl.common.options import OptionParser, file_to_write, take
from hpcdl.common.provenance import without_secrets
from hpcdl.common.saying import say
from hpcdl.launch.doctor.examination import DoctorJobOptions, DoctorOptions, Examination
from hpcdl.launch.doctor.verdict import Finding, as_tree, is_ill, render
from hpcdl.launch.submission.words import JobOptions


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl doctor ARGV``.

    Returns:
        The exit status: 1 if a check failed.

    Raises:
        BadInput: The words are wrong, or the site is unknown.
    """
    groups = {"what is examined": DoctorOptions, "the job (sbatch's own words)": DoctorJobOptions}
    parser = OptionParser("hpcdl doctor", "hpcdl doctor [OPTIONS]", _DESCRIPTION, _EPILOG, groups)
    values = parser.parse(list(argv))
    options, job = take(DoctorOptions, values), take(JobOptions, values)
    if options.report is not None:
        file_to_write("--report", options.report)
    examination = Examination(options, job, os.environ)
    findings, facts = examination.run(with_nodes="nodes" in values)
    if options.json:
        print(json.dumps(as_tree(findings, facts), indent=1))
    else:
        print("\n".join(render(findings)))
    if options.report is not None:
        text = without_secrets(report_text(argv, findings, facts))
        path = Path(options.report)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        say(f"wrote {options.report}; read it before you send it")
    return EXIT_FAILED if is_ill(findings) else EXIT_DONE


def report_text(argv: Sequence[str], findings: Sequence[Finding], facts: Mapping[str, Any]) -> str:
    """Writes all that a support ticket needs."""
    head = [
        f"hpcdl doctor {' '.join(argv)}",
        f"hpcdl {hpcdl.__version__}, Python {platform.python_version()}, {platform.platform()}",
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    ]
    return "\n".join([*head, "", *render(findings), "", json.dumps(facts, indent=1), ""])


_DESCRIPTION = """\
Find out whether a run will work: on this machine, in the image or environment, and, with --nodes, in a short job."""

_EPILOG = """\
examples:
  hpcdl doctor --site bridges2                                       here, and in the site's newest image
  hpcdl doctor --site bridges2 --nodes 2 -A abc123p                  and in a job on 2 nodes
  hpcdl doctor --site mycluster --image tf.sif --launcher mpi --report ticket.txt

Exit status: 0 nothing failed, 1 a check failed, 2 bad input."""
