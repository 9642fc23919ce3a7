"""What studies and runs must have in common before their figures are set against each other.

Synopsis::

    check_alike([facts_of(before), facts_of(after)], "studies that are compared", [before.folder, after.folder])
    check_trained([RunFiles(...), ...])
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from hpcdl.common.errors import BadInput
from hpcdl.launch.bench.software import differing, software_of_run
from hpcdl.launch.bench.study import Study
from hpcdl.launch.show import RunFiles

#: Name -> value; what is not known is left out.
Facts = Mapping[str, str]


def facts_of(study: Study) -> Dict[str, str]:
    """Says what a study measured: what was trained, in which steps, with which batches."""
    record, config = study.record, study.run.get("config", {})
    window = record["window"]
    known: Dict[str, Any] = {
        "target": record.get("target"),
        "command": shlex.join(record["command"]) if "command" in record else None,
        "steps": f"{window['timed_steps']} after {window['untimed_steps']}",
        "precision": config.get("precision"),
        "xla": config.get("xla"),
        **{f"global batch of {row.planned.name}": row.global_batch_size for row in study.rows},
    }
    return _known(known)


def machine_of(study: Study) -> Dict[str, str]:
    """Says where a study was measured: the site and its nodes, or the kind of machine."""
    record, names = study.record, ("site", "partition", "processor", "num_cores", "num_gpus", "gpu_kind")
    return _known({name: record.get(name) for name in names})


def facts_of_curve(study: Study) -> List[Facts]:
    """Says of each weak point what must be the same along a curve: the batch of a replica, and its cores."""
    return [
        {
            "batch per replica": str(row.per_replica_batch_size),
            "cores per rank": str(row.planned.cores_per_rank),
        }
        for row in study.rows
        if row.planned.kind == "weak" and not row.planned.is_functional_only
    ]


def check_alike(facts: Sequence[Facts], what: str, paths: Sequence[Path]) -> None:
    """Refuses what differs.

    Raises:
        BadInput: It does.
    """
    differ = differing(facts)
    if differ:
        raise BadInput(
            f"{what} must be alike; received {', '.join(map(str, paths))}, which differ in {', '.join(differ)}; name"
            " others, or pass --force"
        )


def check_one_training(studies: Sequence[Study]) -> None:
    """Refuses a study whose records are of different trainings: a curve through them would show that.

    Raises:
        BadInput: One is.
    """
    for study in studies:
        check_alike(study.trainings, "the records of a study", [study.folder])


def check_trained(runs: Sequence[RunFiles]) -> None:
    """Refuses runs whose times to a target cannot be compared: of different things, or not over.

    Raises:
        BadInput: They are.
    """
    going = [run for run in runs if run.record.get("status") != "done"]
    if going:
        found = ", ".join(f"{run.path} ({run.record.get('status')})" for run in going)
        raise BadInput(
            f"runs that are compared must be done; received {found}; leave them out, or pass --force"
        )
    facts = []
    for run in runs:
        config = run.record.get("config", {})
        known = {
            "title": run.record.get("title"),
            **{k: config.get(k) for k in ("precision", "num_parameters")},
        }
        facts.append({**software_of_run(run.record), **_known(known)})
    check_alike(facts, "runs that are compared", [run.path for run in runs])


def _known(facts: Mapping[str, Any]) -> Dict[str, str]:
    return {name: str(value) for name, value in facts.items() if value is not None}
