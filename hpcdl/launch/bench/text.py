"""What a report says in sentences: how it was measured, where the time goes, how many nodes to take. Pure functions.

Synopsis::

    said = sentences(study, threshold=0.75, campaign_epochs=90)
    said.method, said.findings, said.advice
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Tuple

from hpcdl.common.saying import count
from hpcdl.launch.bench.figures import three_digits, with_spread
from hpcdl.launch.bench.ratios import FEWEST_ROUNDS, FEWEST_UNPAIRED
from hpcdl.launch.bench.rows import Row
from hpcdl.launch.bench.software import values_by_name
from hpcdl.launch.bench.study import Study, explain, tell_load
from hpcdl.launch.bench.words import SCALINGS

#: The fewest jobs of each point that say how nodes scatter.
FEWEST_JOBS = 3


@dataclass(frozen=True)
class Said:
    """The sentences of a study: how, what was found, what follows."""

    method: Tuple[str, ...]
    findings: Tuple[str, ...]
    advice: Tuple[str, ...]


def recommended(study: Study, threshold: float) -> Optional[Row]:
    """Gives the largest weak point whose efficiency reaches the threshold, of those measured often enough.

    None where only the baseline was.
    """
    fewest = _fewest(study)
    rows = [r for r in study.rows if r.planned.kind == "weak"] or list(study.rows)
    rows = [r for r in rows if r.efficiency.num_rounds >= fewest]
    good = [r for r in rows if r.efficiency.median >= threshold and not r.planned.is_functional_only]
    return max(good, key=lambda r: r.num_replicas) if len(rows) > 1 and good else None


def sentences(study: Study, threshold: float, campaign_epochs: Optional[int] = None) -> Said:
    """Says how it was measured, where the time goes and what to ask for."""
    return Said(
        tuple(_method(study)), tuple(_findings(study)), tuple(_advice(study, threshold, campaign_epochs))
    )


def _fewest(study: Study) -> int:
    """Gives the rounds below which nothing is concluded: jobs on other nodes are dearer than launches here."""
    return FEWEST_JOBS if study.record.get("site") else FEWEST_ROUNDS


def _per_node(row: Row) -> float:
    return row.num_replicas / row.planned.num_nodes


def _method(study: Study) -> List[str]:
    window, record, config = study.record["window"], study.record, study.run.get("config", {})
    versions = ", ".join(f"{name} {value}" for name, value in sorted(study.run.get("versions", {}).items()))
    source = record.get("source")
    commit = (
        f"; hpcdl's commit {source['commit'][:12]}{', changed' if source['is_changed'] else ''}"
        if source
        else ""
    )
    how = ", ".join(word for word in (config.get("precision"), "XLA" if config.get("xla") else None) if word)
    baseline = study.rows[0]
    base = count(baseline.num_replicas, "replica")
    if record.get("site"):
        is_part = _per_node(baseline) < max(map(_per_node, study.rows))
        nodes = "part of a node" if is_part else count(baseline.planned.num_nodes, "node")
        base = f"{nodes} with {base}"
    cores = baseline.planned.cores_per_rank
    share = f", {count(cores, 'core')} for each rank at all points" if cores else ""
    if record.get("site"):
        launches = "jobs of their own"
        ratios = (
            "Jobs share no time, so that ratios are not paired: medians of the quotients of all jobs of two points,"
            f" with the exact 95 % interval of the Mann-Whitney test, from {FEWEST_UNPAIRED} jobs of each on"
        )
    else:
        launches = "launches of their own, interleaved in changing order"
        test = "the exact 95 % interval of the sign test"
        ratios = f"Ratios are medians over the rounds, each within its round, with {test}"
    said = [
        f"Measured: {record['target']}{f' in {how}' if how else ''}{_data(study)} on {_where(record)},"
        f" {record.get('created', '?')}; {versions}{_beside(study)}{commit}.",
        f"Method: the training loop itself; each point in {count(study.num_rounds, 'round')} of {launches}, each one"
        f" window of {window['timed_steps']} steps after {window['untimed_steps']} untimed ones; throughput is the"
        f" samples of all replicas over the time of the slowest rank. {ratios}. The interval stands in brackets.",
        f"Baseline: {base}{share}.",
    ]
    if study.num_rounds < _fewest(study):
        said.append("Too few rounds for intervals: a quick look, no evidence.")
    elif record.get("site") and study.num_rounds < FEWEST_UNPAIRED:
        said.append(
            f"{count(study.num_rounds, 'job')} of each point are too few for an interval: given is the range of the"
            " values, and it is called so."
        )
    elif study.num_rounds < FEWEST_ROUNDS:
        said.append(
            "Where there are too few for an interval the range of the values is given, and called so."
        )
    if study.num_left_out:
        left_out = count(study.num_left_out, "more round")
        said.append(f"Left out: {left_out}, in which something else kept the machine busy.")
    return said + tell_load(study)


def _data(study: Study) -> str:
    """Says whether real data were read, where the runs know."""
    is_synthetic = study.run.get("data", {}).get("is_synthetic")
    return "" if is_synthetic is None else " on synthetic data" if is_synthetic else " on real data"


def _beside(study: Study) -> str:
    """Lists what the runs loaded besides Python's packages: a rank alone loads no MPI."""
    words = {"mpi": "", "nccl": "NCCL ", "driver": "driver ", "image": "image "}
    known = values_by_name(study.software)
    return "".join(f", {word}{' and '.join(known[name])}" for name, word in words.items() if name in known)


def _where(record: Mapping[str, Any]) -> str:
    """Says on what a study was measured: this machine, or the nodes of a site."""
    num_gpus, kind, partition = record.get("num_gpus"), record.get("gpu_kind"), record.get("partition")
    gpus = f"{count(num_gpus, 'GPU')}{f' {kind}' if kind else ''}" if num_gpus else None
    if not record.get("site"):
        processor, cores = record.get("processor", "?"), f"{record.get('num_cores', '?')} cores"
        return f"{record.get('hostname', '?')} ({processor}, {cores}{f', {gpus}' if gpus else ''})"
    nodes = [
        f"{gpus} on each node" if gpus else None,
        f"partition {partition}" if partition else None,
    ]
    known = ", ".join(filter(None, nodes))
    return f"{record['site']}{f' ({known})' if known else ''}"


def _findings(study: Study) -> List[str]:
    said = []
    for kind in SCALINGS:
        if sum(row.planned.kind == kind for row in study.rows) == 1:
            said.append(f"{kind}: One point only: there is no curve, and nothing is said about scaling.")
    for row in study.rows:
        found = explain(row)
        if not row.is_paired and not study.record.get("site"):
            found.insert(0, "Not in one round with the baseline: its ratios are not paired")
        if found:
            said.append(f"{row.planned.kind}, {count(row.num_replicas, 'replica')}: {'. '.join(found)}.")
    return said


def _advice(study: Study, threshold: float, campaign_epochs: Optional[int]) -> List[str]:
    best = recommended(study, threshold)
    if best is None:
        return []
    found = best.efficiency
    said = [
        f"Recommended: {count(best.planned.num_nodes, 'node')}, {count(best.num_replicas, 'replica')}: the most"
        f" measured with an efficiency of at least {100 * threshold:g} %: "
        f"{with_spread(found, 100, '{:.1f}'.format, ' %')}."
    ]
    if found.spread is not None and found.spread[0] < threshold:
        which = "95 % interval" if found.has_interval else "range"
        said.append(f"That is by the median: the {which} reaches below the threshold. More rounds may tell.")
    if not found.has_interval:
        said.append(f"That is provisional: {FEWEST_UNPAIRED} jobs of each point or more give an interval.")
    hours = best.node_hours(campaign_epochs) if campaign_epochs is not None else None
    if hours is not None and campaign_epochs is not None:
        said.append(
            f"{count(campaign_epochs, 'epoch')} take {three_digits(hours)} node-hours there, by the measured"
            " throughput, without validation, start and restarts."
        )
    return said
