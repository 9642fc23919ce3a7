"""How a training would scale by given numbers: the step of one replica, its gradients, and the network. Pure functions.

Where nothing was measured yet, or a network is only known by its data sheet. The exchange is that of Hockney's model
(`hpcdl.launch.bench.cost`). Backpropagation hides a part of it that no data sheet tells: the efficiency lies between
that with nothing hidden, step / (step + exchange), and that with all of it, step / max(step, exchange).

Synopsis::

    given = Given(step_s=0.476, num_bytes=95.4e6, between=Link(5e-6, 1 / 3.125e9))
    at = given.at(512)["ring"]
    at.exchange_s, at.nothing_hidden, at.all_hidden            # 0.066, 0.88, 1.0
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, List, Optional, Sequence

from hpcdl.common.errors import BadInput
from hpcdl.launch.bench.cost import ALGORITHMS, Link, allreduce_seconds, hierarchical_seconds
from hpcdl.launch.bench.figures import three_digits

_LEFT_OUT = "not in it: input, stragglers, and what the network carries for others"


@dataclass(frozen=True)
class Computed:
    """What one algorithm of the exchange costs, and the efficiency with nothing and with all of it hidden."""

    exchange_s: float
    nothing_hidden: float
    all_hidden: float


@dataclass(frozen=True)
class Given:
    """Numbers that somebody gave.

    Attributes:
        step_s: Of one replica alone.
        num_bytes: Of its gradients.
        between: The network of a node.
        ranks_per_node: Which share it where they send at the same time.
        inside: What connects the ranks of a node; None: not known, so that no hierarchy is computed.
    """

    step_s: float
    num_bytes: float
    between: Link
    ranks_per_node: int = 1
    inside: Optional[Link] = None

    def at(self, num_replicas: int) -> Dict[str, Computed]:
        """Computes each algorithm at a count.

        Raises:
            BadInput: A hierarchy has no whole number of nodes.
        """
        # In a ring one rank of a node sends to another node; else all do, at the same time, through one network.
        sharing = min(self.ranks_per_node, num_replicas)
        shared = replace(self.between, beta_s_per_byte=self.between.beta_s_per_byte * sharing)
        seconds = {
            name: allreduce_seconds(
                name, self.num_bytes, num_replicas, self.between if name == "ring" else shared
            )
            for name in ALGORITHMS
        }
        if self.inside is not None:
            num_nodes, rest = divmod(num_replicas, self.ranks_per_node)
            if rest or not num_nodes:
                raise BadInput(
                    f"a hierarchy has whole nodes; received {num_replicas} replicas, {self.ranks_per_node} on a node;"
                    f" pass a multiple of {self.ranks_per_node}"
                )
            seconds["hierarchical"] = hierarchical_seconds(
                self.num_bytes, self.ranks_per_node, num_nodes, self.inside, shared
            )
        return {
            name: Computed(s, self.step_s / (self.step_s + s), self.step_s / max(self.step_s, s))
            for name, s in seconds.items()
        }


def as_tree(given: Given, wanted: Sequence[int]) -> Dict[str, Any]:
    """Gives the same for JSON."""
    at = [
        {"num_replicas": count, **{name: asdict(computed) for name, computed in given.at(count).items()}}
        for count in wanted
    ]
    return {"kind": "computed", **asdict(given), "at": at}


def render(given: Given, wanted: Sequence[int]) -> str:
    """Writes the efficiencies at counts."""
    shared = f", {given.ranks_per_node} ranks on a node" if given.ranks_per_node > 1 else ""
    lines: List[str] = [
        f"computed from given numbers, not fitted and not measured: a step of {three_digits(1e3 * given.step_s)} ms,"
        f" {three_digits(given.num_bytes / 1e6)} MB of gradients{shared}",
        _LEFT_OUT,
        "",
        f"{'replicas':>10}  {'exchange by':<20}{'ms':>10}{'efficiency %':>18}",
    ]
    for count in wanted:
        for name, at in given.at(count).items():
            ends = f"{100 * at.nothing_hidden:.1f} to {100 * at.all_hidden:.1f}"
            lines.append(f"{count:10d}  {name:<20}{three_digits(1e3 * at.exchange_s):>10}{ends:>18}")
    return "\n".join(lines)
