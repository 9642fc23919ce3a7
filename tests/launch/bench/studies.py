"""Makes studies as `hpcdl bench` leaves them, without training."""

from __future__ import annotations

import json

from hpcdl.common.step_times import StepLog

WINDOW = {"untimed_steps": 10, "timed_steps": 4}
#: Point -> seconds of a step of each process' ranks.
STEPS = {
    "weak-1": [[0.100]],
    "weak-2": [[0.110, 0.125]],
    "control-2": [[0.100, 0.100]],
    "ceiling-2": [[0.105], [0.100]],
}


def write_study(study, steps=STEPS, slowness=(1.0, 2.0, 4.0), target="x/y", versions=()):
    """Writes a study with a round for each slowness of the machine."""
    points = [
        {
            "name": name,
            "kind": name.split("-")[0],
            "num_ranks": int(name.split("-")[1]),
            "replicas_per_process": 1,
            "cores_per_rank": 1,
        }
        for name in steps
    ]
    for number, factor in enumerate(slowness):
        for point in points:
            folder = study / f"round-{number:03d}" / point["name"]
            write_measurement(folder, steps[point["name"]], factor, versions=versions)
    record = {"schema_version": 1, "kind": "study", "target": target, "window": WINDOW, "points": points}
    (study / "study.json").write_text(json.dumps({**record, "rounds": len(slowness), "num_gpus": 0}))
    return study


def write_measurement(folder, processes, slowness, cores=0.0, versions=()):
    """Writes one measurement; ``cores`` is the foreign load."""
    for i, ranks in enumerate(processes):
        place = folder / f"process-{i}"
        for rank, seconds in enumerate(ranks):
            StepLog(place, rank, "n1").append(0, [9.0] * 10 + [seconds * slowness] * 4)
        config = {"per_replica_batch_size": 8, "global_batch_size": 8 * len(ranks)}
        (place / "run.json").write_text(json.dumps({"config": config, "versions": dict(versions)}))
    load = {"cores": cores, "stolen": 0.0, "num_cores": 2}
    (folder / "measurement.json").write_text(json.dumps({"schema_version": 1, "load": load, "seconds": 20.0}))
