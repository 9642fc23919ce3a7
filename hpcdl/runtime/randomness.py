"""Random numbers that no checkpoint holds: those of operations whose state TensorFlow keeps to itself.

Layers of Keras draw from generators whose states are variables (`hpcdl.runtime.keras_edge.seed_variables`). A layer of
the user's that calls ``tf.random.normal`` and its like does not: a resumed run draws other numbers there.

Synopsis::

    names = stateful_random_ops(model, x[:1], replicas)     # [] where a resumed run draws the same numbers
"""

from __future__ import annotations

from typing import Any, List

import tensorflow as tf

from hpcdl.runtime.replicas import Replicas


def stateful_random_ops(model: Any, x: Any, replicas: Replicas) -> List[str]:
    """Names the random operations of a model in training that keep a state of their own.

    What a train_step of the user's draws besides is not seen, nor what Python or NumPy draw.

    Args:
        model: Built.
        x: Nest of tensors, the model's inputs, of any number of rows.
        replicas: Of the run.
    """

    def call(inputs: Any) -> None:
        replicas.distribution.run(lambda rows: model(rows, training=True), args=(inputs,))

    of_any_length = tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), x)
    graph = tf.function(call).get_concrete_function(of_any_length).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    # All of them, and only they, have two seeds; 0 and 0 stand for one that is drawn when the program starts.
    return sorted({node.name for node in nodes if {"seed", "seed2"} <= set(node.attr)})
