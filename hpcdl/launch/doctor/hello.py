"""Which of srun's ``--mpi`` the MPI of an image speaks: tried, by two ranks that say hello. Pure functions.

Synopsis::

    lines = hello_lines(candidates(mpi_types), layout, [*enter, "python3", lib], library, folder)
    found = {name: read_hello(text) for name, text in texts.items()}
    findings = check_hellos(found, profile, layout)
"""

from __future__ import annotations

import re
import shlex
from typing import Dict, Iterator, List, Mapping, Optional, Sequence

from hpcdl.launch.doctor.verdict import FAILED, OK, Finding
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.layout import Layout

#: A PMI that does not fit is silent for ever.
HELLO_S = 60
_KILL_S = 5
_NUM_RANKS = 2


def candidates(types: Sequence[str]) -> List[str]:
    """Lists the ways to start MPI that are worth a try, of those that srun offers: PMIx first, one name for each."""
    families = dict.fromkeys(family_of(name) for name in types if name != "none")
    return sorted(families, key=lambda name: (name != "pmix", name))


def family_of(name: str) -> str:
    """Names a way to start MPI without its version: pmix for pmix_v4."""
    return re.sub(r"_v\d+$", "", name)


def hello_lines(
    types: Sequence[str], layout: Layout, start: Sequence[str], library: str, folder: str
) -> List[str]:
    """Writes the lines of a batch script that let two ranks say hello by each type, before anything else runs.

    Args:
        types: srun's ways to start MPI.
        layout: Where the job runs; the two are on different nodes if there are two.
        start: What starts a module of hpcdl's ``lib`` where the ranks run.
        library: The MPI library there.
        folder: Where each type's answers go, as ``hello-TYPE.txt``.
    """
    nodes = min(layout.num_nodes, _NUM_RANKS)
    words = [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={_NUM_RANKS}",
        f"--ntasks-per-node={_NUM_RANKS // nodes}",  # the job's own would be taken else
        "--cpus-per-task=1",
        "--kill-on-bad-exit=1",
    ]
    lines = []
    for name in types:
        argv = [*words, f"--mpi={name}", *start, "hpcdl.runtime.examining.hello", library]
        answers = shlex.quote(f"{folder}/hello-{name}.txt")
        said = " ".join(shlex.quote(word) for word in argv)
        lines.append(
            f'timeout -k {_KILL_S} {HELLO_S} {said} > {answers} 2>&1 < /dev/null || echo "status $?" >> {answers}'
        )
    return lines


def read_hello(text: str) -> Optional[str]:
    """Tells from what two ranks wrote why they did not meet; None: they did."""
    met = re.findall(r"^hello (\d+) of (\d+)$", text, re.MULTILINE)
    if sorted(met) == [(str(rank), str(_NUM_RANKS)) for rank in range(_NUM_RANKS)]:
        return None
    if any(size == "1" for _, size in met):
        return "each rank is alone, as rank 0 of 1"
    if re.search(r"^status (124|137)$", text, re.MULTILINE):
        return f"no answer within {HELLO_S} s"
    said = [
        line.strip()
        for line in text.splitlines()
        if re.search(r"error|fail|unable|not ", line, re.IGNORECASE)
    ]
    return said[0][:160] if said else "the ranks did not meet"


def check_hellos(found: Mapping[str, Optional[str]], profile: Profile, layout: Layout) -> Iterator[Finding]:
    """Checks that two ranks meet by the type that the profile names, where a run would.

    Args:
        found: What went wrong, by type; None: nothing.
        profile: The site.
        layout: What is to run.
    """
    if not found:
        return
    works = [name for name, problem in found.items() if problem is None]
    others: Dict[str, str] = {name: problem for name, problem in found.items() if problem is not None}
    evidence = "; ".join(
        [f"two ranks met by --mpi={', '.join(works)}" if works else "two ranks met by no --mpi"]
        + [f"{name}: {problem}" for name, problem in others.items()]
    )
    chosen = family_of(profile.site.mpi or "")
    if layout.launcher != "mpi" or chosen in works:
        yield Finding("mpi hello", "nodes", OK, evidence)
        return
    cure = f"set mpi = '{works[0]}' in your own file for the site, or " if works else ""
    yield Finding("mpi hello", "nodes", FAILED, evidence, f"{cure}pass --launcher gloo, which needs no MPI")
