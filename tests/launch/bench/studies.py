"""Makes studies as `hpcdl bench` leaves them, without training."""

from __future__ import annotations

import json

from hpcdl.common.step_times import StepLog

WINDOW = {"untimed_steps": 10, "timed_steps": 4}
#: Point -> seconds of a step of each process' ranks.
STEPS = {
    "weak-1": [[0.100]],
    "weak-2": [[0.110, 0.125]],
    "control-2": [[0.100, 0.110]],
    "cached-1": [[0.098]],
    "cached-2": [[0.096, 0.106]],
    "ceiling-2": [[0.105], [0.100]],
}


def write_study(
    study, steps=STEPS, slowness=(1.0, 2.0, 4.0), target="x/y", versions=(), further=(), rounds=None
):
    """Writes a study with a round for each slowness of the machine, of which ``rounds`` were wanted."""
    points = [
        {
            "name": name,
            "kind": name.split("-")[-2],
            "scaling": "strong" if name.startswith("strong") else "weak",
            "num_ranks": int(name.split("-")[-1]),
            "replicas_per_process": 1,
            "cores_per_rank": 1,
        }
        for name in steps
    ]
    for number, factor in enumerate(slowness):
        for point in points:
            folder = study / f"round-{number:03d}" / point["name"]
            batch = 16 if point["scaling"] == "strong" else None
            write_measurement(folder, steps[point["name"]], factor, 0.0, versions, further, batch)
    record = {"schema_version": 1, "kind": "study", "target": target, "window": WINDOW, "points": points}
    (study / "study.json").write_text(
        json.dumps({**record, "rounds": rounds or len(slowness), "num_gpus": 0})
    )
    return study


def write_measurement(folder, processes, slowness, cores=0.0, versions=(), further=(), batch=None):
    """Writes one measurement; ``cores`` is the foreign load, ``further`` goes into run.json."""
    for i, ranks in enumerate(processes):
        place = folder / f"process-{i}"
        for rank, seconds in enumerate(ranks):
            StepLog(place, rank, "n1").append(0, [9.0] * 10 + [seconds * slowness] * 4)
        batch = batch or 8 * len(ranks)
        config = {"per_replica_batch_size": batch // len(ranks), "global_batch_size": batch}
        config["samples_in_data"] = 60000
        run = {"config": config, "versions": dict(versions), "topology": {"world_size": len(ranks)}}
        (place / "run.json").write_text(json.dumps({**run, **dict(further)}))
    load = {"cores": cores, "stolen": 0.0, "num_cores": 2}
    (folder / "measurement.json").write_text(json.dumps({"schema_version": 1, "load": load, "seconds": 20.0}))


def write_run(folder, world_size, history, seconds, rate, further=()):
    """Writes a run that was trained to its end, with the values of a metric after each epoch."""
    folder.mkdir()
    lines = [f"{epoch},{value}" for epoch, value in enumerate(history, start=1)]
    (folder / "history.csv").write_text("\n".join(["epoch,val_accuracy", *lines]) + "\n")
    config = {"replicas_per_process": 1, "global_batch_size": 64 * world_size}
    record = {"schema_version": 1, "status": "done", "title": "x/y"}
    record.update(topology={"world_size": world_size}, config=config)
    record.update(further, epoch_seconds=[seconds] * len(history), samples_per_second=rate)
    (folder / "run.json").write_text(json.dumps(record))
    return folder
