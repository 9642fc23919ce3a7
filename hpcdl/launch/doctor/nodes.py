"""Checks of a short job over several nodes. Pure functions over what its ranks saw.

Synopsis::

    findings = check_nodes(seen, met, profile, layout, state)
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, Sequence

from hpcdl.launch.doctor.cores import core_findings
from hpcdl.launch.doctor.gpus import gpu_findings
from hpcdl.launch.doctor.network import network_findings
from hpcdl.launch.doctor.verdict import FAILED, OK, WARNING, Finding
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.layout import Layout

_SHM_MB_PER_RANK = 64
_SKEW_S = 1.0
_START_S = 30.0
_LOCKED_KB = 64


def check_nodes(
    seen: Sequence[Mapping[str, Any]],
    met: Sequence[Mapping[str, Any]],
    profile: Profile,
    layout: Layout,
    state: Mapping[str, Any],
    quick: bool = False,
) -> List[Finding]:
    """Checks what the ranks of a job saw.

    Args:
        seen: What each rank saw around it, by rank.
        met: What each rank found when Horovod connected it, by rank.
        profile: The site.
        layout: What was asked for.
        state: What the job's keeper says of its end.
        quick: Whether Horovod was left out.
    """
    found = [_ranks(seen, layout, state)]
    if not seen:
        return found
    found += [
        *_starts(seen, state),
        *core_findings(seen, layout),
        _locked_memory(seen),
        _shared_memory(seen, layout),
    ]
    found += [_clock(seen, met), *_folders(seen), *gpu_findings(seen, met, layout)]
    return found if quick else [*found, *_meeting(met, seen, profile, layout, state)]


def _finding(check: str, status: str, evidence: str, cure: str = "") -> Finding:
    return Finding(check, "nodes", status, evidence, cure)


def _ranks(seen: Sequence[Mapping[str, Any]], layout: Layout, state: Mapping[str, Any]) -> Finding:
    hosts = sorted({one["hostname"] for one in seen})
    if len(seen) == layout.world_size and len(hosts) == layout.num_nodes:
        return _finding("ranks", OK, f"{len(seen)} on {', '.join(hosts)}")
    missing = sorted(set(range(layout.world_size)) - {one["rank"] for one in seen})
    said = f"; {state['words']}" if state.get("words") else ""
    return _finding(
        "ranks",
        FAILED,
        f"{len(seen)} of {layout.world_size} ranks started, on {len(hosts)} of {layout.num_nodes} nodes; missing"
        f" {', '.join(map(str, missing)) or 'none'}{said}",
        "see the job's log: hpcdl logs JOB; does the image start on every node?",
    )


def _locked_memory(seen: Sequence[Mapping[str, Any]]) -> Finding:
    low = [one for one in seen if one["memlock_kb"] is not None and one["memlock_kb"] <= _LOCKED_KB]
    if not low:
        known = [one["memlock_kb"] for one in seen if one["memlock_kb"] is not None]
        return _finding("locked memory", OK, f"{min(known)} KB or more" if known else "unlimited")
    one = low[0]
    return _finding(
        "locked memory",
        FAILED,
        f"rank {one['rank']} on {one['hostname']} may lock {one['memlock_kb']} KB; InfiniBand needs far more"
        " (ibv_create_qp fails)",
        "have setup say `ulimit -l unlimited` and srun_args --propagate=MEMLOCK in your own file for the site; else ask"
        " the centre for LimitMEMLOCK=infinity in slurmd's unit",
    )


def _shared_memory(seen: Sequence[Mapping[str, Any]], layout: Layout) -> Finding:
    sizes = [one["shm_mb"] for one in seen if one["shm_mb"] is not None]
    needed = _SHM_MB_PER_RANK * layout.processes_per_node
    if sizes and min(sizes) < needed:
        return _finding(
            "shared memory",
            WARNING,
            f"/dev/shm has {min(sizes)} MB; NCCL and MPI want about {needed}",
            "ask the centre for a larger /dev/shm, or set NCCL_SHM_DISABLE=1 in the profile's environ",
        )
    return _finding("shared memory", OK, f"/dev/shm {min(sizes)} MB" if sizes else "/dev/shm is not known")


def _starts(seen: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> Iterator[Finding]:
    """How long the ranks of all nodes took to start at once: srun, the image, Python."""
    if "started" not in state:
        return
    last = max(seen, key=lambda one: float(one["time"]))
    waited_s = last["time"] - state["started"]
    evidence = (
        f"{len(seen)} started at once within {waited_s:.1f} s, rank {last['rank']} on {last['hostname']} last"
    )
    if waited_s > _START_S:
        yield _finding(
            "starts",
            WARNING,
            evidence,
            "put the image where many nodes read it fast (the site's folder for images, a striped folder), not into"
            " $HOME",
        )
    else:
        yield _finding("starts", OK, evidence)


def _clock(seen: Sequence[Mapping[str, Any]], met: Sequence[Mapping[str, Any]]) -> Finding:
    """How far the clocks are apart, as the ranks leave a barrier; else, as they start."""
    readings = [one["clocks"] for one in met if one.get("clocks")]
    if readings:
        # A rank that leaves late makes a spread larger, never smaller.
        apart_s = min(max(at_once) - min(at_once) for at_once in zip(*readings))
        limit_s, words = _SKEW_S, f"within {apart_s:.3f} s"
    else:
        times = [one["time"] for one in seen]
        apart_s = max(times) - min(times)
        limit_s, words = _SKEW_S + _START_S, f"within {apart_s:.1f} s, starts included"
    if apart_s > limit_s:
        return _finding(
            "clocks",
            WARNING,
            f"the ranks' clocks are {words}",
            "tell the centre: nodes stop before the end of a job by their own clocks",
        )
    return _finding("clocks", OK, words)


def _folders(seen: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    wrong = {
        name: (one, problem)
        for one in seen
        for name, problem in one["folders"].items()
        if problem is not None
    }
    for name, (one, problem) in wrong.items():
        yield _finding(
            "folder",
            FAILED,
            f"rank {one['rank']} on {one['hostname']}, {name}: {problem}",
            "take one that all nodes see and may write: --run-dir and --jobs-dir",
        )
    if not wrong:
        yield _finding(
            "folder", OK, "every rank writes and renames in the run's folders, and sees what rank 0 writes"
        )


def _meeting(
    met: Sequence[Mapping[str, Any]],
    seen: Sequence[Mapping[str, Any]],
    profile: Profile,
    layout: Layout,
    state: Mapping[str, Any],
) -> Iterator[Finding]:
    if len(met) < layout.world_size:
        yield _finding(
            "horovod",
            FAILED,
            f"{len(met)} of {layout.world_size} ranks met through {layout.launcher};"
            f" {state.get('words') or 'the others said nothing'}",
            "pass the other launcher (--launcher gloo or mpi), or set socket_ifname to the fabric's interface in the"
            f" profile; there are {', '.join(seen[0]['interfaces'])}",
        )
        return
    wrong = [one for one in met if one["size"] != layout.world_size or one["sum"] != layout.world_size]
    if wrong:
        yield _finding(
            "horovod",
            FAILED,
            f"rank {wrong[0]['rank']} is one of {wrong[0]['size']}, not of {layout.world_size}",
            "the image's MPI does not speak srun's --mpi: pass --launcher gloo",
        )
        return
    way = layout.launcher + (f" over {met[0]['interface']}" if met[0].get("interface") else "")
    slowest_s = max(one["start_s"] for one in met)
    yield _finding("horovod", OK, f"{layout.world_size} ranks met through {way} in {slowest_s:.1f} s")
    yield from network_findings(seen, met, profile, layout)
