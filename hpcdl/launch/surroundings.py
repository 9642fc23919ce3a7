"""Where and with what something was measured: the text of ``env.txt``, beside each measurement.

Synopsis::

    text = describe_environment(read_machine(os.environ), os.environ)
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Mapping

import hpcdl
from hpcdl.common.provenance import environment_that_matters
from hpcdl.launch.git import own_source
from hpcdl.launch.machine import Machine


def describe_environment(machine: Machine, environ: Mapping[str, str], gpu_kind: str = "") -> str:
    """Writes what a reader needs to know; nothing that looks like a secret.

    Args:
        machine: This one.
        environ: What ran here has it.
        gpu_kind: As the site's profile calls its GPUs; "": none, or not known.
    """
    source = own_source()
    code = "" if source is None else f", {source.describe()}"
    lines = [
        f"host        {machine.hostname}",
        f"cores       {machine.num_cores} (CPUs {' '.join(','.join(map(str, core)) for core in machine.cores)})",
        f"processor   {processor()}",
        f"kernel      {os.uname().sysname} {os.uname().release}",
        f"GPUs        {machine.num_gpus}{f' of kind {gpu_kind}' if gpu_kind else ''}",
        f"python      {sys.version.split()[0]}",
        f"hpcdl       {hpcdl.__version__}{code}",
        "",
        *(f"{name}={value}" for name, value in environment_that_matters(environ).items()),
    ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """Names the processor; ``?`` where the kernel does not."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "?"
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else "?"
