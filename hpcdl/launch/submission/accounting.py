"""What Slurm's accounting knows: of a job that has left the queue, and of what an account may still use.

On many clusters it does not tell, and nothing here is needed to submit a run, or to say what became of it.

Synopsis::

    ended_as("12345")                       # "OUT_OF_MEMORY", or None
    cores_busy("12345")                     # 0.83, or None
    minutes_left("abc123p")                 # {"gres/gpu": 72000.0}, or {}
"""

from __future__ import annotations

import re
from typing import Callable, Dict, Optional, Sequence

from hpcdl.common.errors import BadInput
from hpcdl.launch.sites.live import run_text

Ask = Callable[[Sequence[str]], str]


def ask_slurm(argv: Sequence[str]) -> str:
    """Runs a command of Slurm's and gives what it prints; "" if it is not there, or does not answer."""
    try:
        return run_text(argv, timeout_s=30, with_stderr=False)
    except BadInput:
        return ""


def ended_as(job_id: str, ask: Ask = ask_slurm) -> Optional[str]:
    """Gives Slurm's word for how a job ended, such as TIMEOUT or OUT_OF_MEMORY; None where it does not know."""
    said = re.match(r"[A-Z_]+", ask(["sacct", "-n", "-P", "-X", "-j", job_id, "-o", "State"]))
    said = said or re.search(r"(?<=JobState=)[A-Z_]+", ask(["scontrol", "show", "job", "-o", job_id]))
    return said.group(0) if said is not None else None


def cores_busy(job_id: str, ask: Ask = ask_slurm) -> Optional[float]:
    """Says for which part of the time the cores of a job were busy; None where the accounting does not tell."""
    # The first row is the allocation's. With -X, which gives it alone, sacct counts no use.
    text = ask(["sacct", "-n", "-P", "-j", job_id, "-o", "TotalCPU,CPUTimeRAW"])
    match = re.match(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+(?:\.\d+)?)\|(\d+)$", text, re.MULTILINE)
    if match is None:
        return None
    days, hours, minutes, seconds, had_s = (float(part or 0) for part in match.groups())
    used_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return used_s / had_s if used_s and had_s else None  # 0: nobody counts


def minutes_left(account: str, ask: Ask = ask_slurm) -> Dict[str, float]:
    """Says how many minutes of what (``cpu``, ``node``, ``gres/gpu``) an account may still use.

    What its running jobs may take until their time limits counts as used. Empty where Slurm sets no limit.
    """
    fields = "GrpTRESMins,GrpTRESRaw,TRESRunMins"
    text = ask(["sshare", "-n", "-P", "-A", account, "-o", fields])
    left: Dict[str, float] = {}
    for line in text.splitlines():  # the account's, and the user's part of it
        if line.count("|") == fields.count(","):
            limit, used, running = map(_minutes_of_each, line.split("|"))
            for name, minutes in limit.items():
                rest = max(0.0, minutes - used.get(name, 0) - running.get(name, 0))
                left[name] = min(left.get(name, rest), rest)
    return left


def _minutes_of_each(text: str) -> Dict[str, float]:
    """Reads ``cpu=1200,gres/gpu=60``."""
    return {name: float(number) for name, number in re.findall(r"([^,=]+)=(\d+(?:\.\d+)?)", text)}
