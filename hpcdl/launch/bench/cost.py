"""What an allreduce costs, from latency and bandwidth (Hockney's model): pure arithmetic.

n bytes, p ranks, alpha seconds per message, beta seconds per byte sent, gamma seconds per byte added up:

* ring:               2 (p-1) alpha + 2 (p-1)/p n beta + (p-1)/p n gamma     (Patarasuk and Yuan 2009)
* halving-doubling:   2 log2(p) alpha + 2 (p-1)/p n beta + (p-1)/p n gamma   (Thakur, Rabenseifner and Gropp 2005)
* recursive-doubling: log2(p) (alpha + n beta + n gamma)                     (the same)
* hierarchical:       a ring among the g ranks of each node, then one among the m nodes on a g-th of the bytes, then the
  parts gathered within the node

Synopsis::

    network = Link(alpha_s=5e-6, beta_s_per_byte=1 / 12.5e9)
    allreduce_seconds("ring", 102e6, 64, network)
    hierarchical_seconds(102e6, ranks_per_node=8, num_nodes=8, inside=nvlink, between=network)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcdl.common.checks import one_of

ALGORITHMS = ("ring", "halving-doubling", "recursive-doubling")


@dataclass(frozen=True)
class Link:
    """What connects the ranks.

    Attributes:
        alpha_s: Seconds for a message of no bytes.
        beta_s_per_byte: Seconds for each byte more; one over the bandwidth.
        gamma_s_per_byte: Seconds to add up a byte.
    """

    alpha_s: float
    beta_s_per_byte: float
    gamma_s_per_byte: float = 0.0


def allreduce_seconds(algorithm: str, num_bytes: float, num_ranks: int, link: Link) -> float:
    """Gives the time of one allreduce among ranks that are all connected alike.

    Raises:
        BadInput: There is no such algorithm.
    """
    one_of("algorithm", algorithm, ALGORITHMS)
    if num_ranks == 1:
        return 0.0
    rounds = math.log2(num_ranks)
    if algorithm == "recursive-doubling":
        per_round = link.alpha_s + num_bytes * (link.beta_s_per_byte + link.gamma_s_per_byte)
        return rounds * per_round
    messages = 2 * (num_ranks - 1) if algorithm == "ring" else 2 * rounds
    part = (num_ranks - 1) / num_ranks * num_bytes
    return messages * link.alpha_s + part * (2 * link.beta_s_per_byte + link.gamma_s_per_byte)


def hierarchical_seconds(
    num_bytes: float, ranks_per_node: int, num_nodes: int, inside: Link, between: Link
) -> float:
    """Gives the time of a hierarchical allreduce: reduced within the nodes, among them, and gathered within them."""
    g = ranks_per_node
    among_nodes = allreduce_seconds("ring", num_bytes / g, num_nodes, between)
    # A ring allreduce is a reduce-scatter and a gather: together they are one allreduce within the node.
    return allreduce_seconds("ring", num_bytes, g, inside) + among_nodes
