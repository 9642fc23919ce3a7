"""What a report says in sentences: how it was measured, where the time goes, how many nodes to take. Pure functions.

Synopsis::

    said = sentences(study, threshold=0.75, campaign_epochs=90)
    said.method, said.findings, said.advice
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple

from hpcdl.launch.bench.ratios import FEWEST_ROUNDS
from hpcdl.launch.bench.rows import Row
from hpcdl.launch.bench.study import Study, explain

#: The fewest jobs of each point that say how nodes scatter.
FEWEST_JOBS = 3


@dataclass(frozen=True)
class Said:
    """The sentences of a study: how, what was found, what follows."""

    method: Tuple[str, ...]
    findings: Tuple[str, ...]
    advice: Tuple[str, ...]


def recommended(study: Study, threshold: float) -> Optional[Row]:
    """Gives the largest weak point whose efficiency reaches the threshold; None where only the baseline is there."""
    rows = [r for r in study.rows if r.planned.kind == "weak"] or list(study.rows)
    good = [r for r in rows if r.efficiency.median >= threshold and not r.planned.is_functional_only]
    return max(good, key=lambda r: r.num_replicas) if len(rows) > 1 and good else None


def sentences(study: Study, threshold: float, campaign_epochs: Optional[int] = None) -> Said:
    """Says how it was measured, where the time goes and what to ask for."""
    return Said(
        tuple(_method(study)), tuple(_findings(study)), tuple(_advice(study, threshold, campaign_epochs))
    )


def count(number: int, one: str) -> str:
    """Writes a number of things."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def _fewest(study: Study) -> int:
    """Gives the rounds below which nothing is concluded: jobs on other nodes are dearer than launches here."""
    return FEWEST_JOBS if study.record.get("site") else FEWEST_ROUNDS


def _method(study: Study) -> List[str]:
    window, record, config = study.record["window"], study.record, study.run.get("config", {})
    versions = ", ".join(f"{name} {value}" for name, value in sorted(study.run.get("versions", {}).items()))
    source = record.get("source")
    commit = (
        f" (commit {source['commit'][:12]}{', changed' if source['is_changed'] else ''})" if source else ""
    )
    how = ", ".join(word for word in (config.get("precision"), "XLA" if config.get("xla") else None) if word)
    where = record.get("site") or (
        f"{record.get('hostname', '?')} ({record.get('processor', '?')}, {record.get('num_cores', '?')} cores)"
    )
    baseline = study.rows[0]
    base = count(baseline.num_replicas, "replica")
    if record.get("site"):
        base = f"{count(baseline.planned.num_nodes, 'node')} with {base}"
    cores = baseline.planned.cores_per_rank
    share = f", {count(cores, 'core')} for each rank at all points" if cores else ""
    launches = (
        "jobs of their own" if record.get("site") else "launches of their own, interleaved in changing order"
    )
    said = [
        f"Measured: {record['target']}{f' in {how}' if how else ''} on {where}, {record.get('created', '?')};"
        f" {versions}{commit}.",
        f"Method: the training loop itself; each point in {count(study.num_rounds, 'round')} of {launches};"
        f" {window['timed_steps']} steps timed after {window['untimed_steps']} untimed ones; throughput is the samples"
        " of all replicas over the time of the slowest rank. Ratios are medians over the rounds, each within its round,"
        " with the exact 95 % interval of the sign test.",
        f"Baseline: {base}{share}.",
    ]
    if study.num_rounds < _fewest(study):
        said.append("Too few rounds for intervals: a quick look, no evidence.")
    elif study.num_rounds < FEWEST_ROUNDS:
        said.append(
            f"There is an interval of 95 % from {FEWEST_ROUNDS} rounds on; s.e. and MAD say how jobs scatter."
        )
    if not study.is_calm:
        said.append("Something else kept the machine busy in some of the rounds: take the figures with care.")
    return said


def _findings(study: Study) -> List[str]:
    said = []
    if len(study.rows) == 1:
        said.append("One point only: there is no curve, and nothing is said about scaling.")
    for row in study.rows:
        found = explain(row)
        if found:
            said.append(f"{row.planned.kind}, {count(row.num_replicas, 'replica')}: {'. '.join(found)}.")
    return said


def _advice(study: Study, threshold: float, campaign_epochs: Optional[int]) -> List[str]:
    best = (
        recommended(study, threshold)
        if study.num_rounds >= FEWEST_ROUNDS or study.record.get("site")
        else None
    )
    if best is None:
        return []
    said = [
        f"Recommended: {count(best.planned.num_nodes, 'node')}, {count(best.num_replicas, 'replica')}: the most"
        f" measured with an efficiency of at least {100 * threshold:g} % ({100 * best.efficiency.median:.1f} %)."
    ]
    hours = best.node_hours(campaign_epochs) if campaign_epochs is not None else None
    if hours is not None and campaign_epochs is not None:
        said.append(
            f"{count(campaign_epochs, 'epoch')} take {hours:.3g} node-hours there, by the measured throughput, without"
            " validation, start and restarts."
        )
    return said
