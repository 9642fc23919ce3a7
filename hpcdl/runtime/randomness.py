"""Random numbers that no checkpoint holds: those of operations whose state TensorFlow keeps to itself.

Layers of Keras draw from generators whose states are variables (`hpcdl.runtime.keras_edge.seed_variables`). A layer of
the user's that calls ``tf.random.normal`` and its like does not: a resumed run draws other numbers there.

Synopsis::

    names = stateful_random_ops(graph)                      # [] where a resumed run draws the same numbers
"""

from __future__ import annotations

from typing import List

import tensorflow as tf


def stateful_random_ops(graph: tf.Graph) -> List[str]:
    """Names the random operations of a graph, and of the functions that it calls, that keep a state of their own.

    What Python or NumPy draw is in no graph.
    """
    definition = graph.as_graph_def()
    functions = definition.library.function
    nodes = [*definition.node, *(node for function in functions for node in function.node_def)]
    # All of them, and only they, have two seeds; 0 and 0 stand for one that is drawn when the program starts.
    return sorted({node.name for node in nodes if {"seed", "seed2"} <= set(node.attr)})
