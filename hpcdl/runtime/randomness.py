"""Random numbers that no checkpoint holds: of operations whose state TensorFlow keeps to itself, of unknown generators.

Layers of Keras draw from generators whose states are variables (`hpcdl.runtime.keras_edge.seed_variables`). A layer of
the user's that calls ``tf.random.normal`` and its like does not: a resumed run draws other numbers there.

Synopsis::

    names = stateful_random_ops(graph)                      # [] where a resumed run draws the same numbers
    number = foreign_random_states(graph, variables)        # 0 likewise
"""

from __future__ import annotations

from typing import Any, List, Sequence

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


#: What generators have as their state: Keras 3's, and TensorFlow's.
_STATES = {(tf.int64, (2,)), (tf.int64, (3,))}


def foreign_random_states(graph: Any, known: Sequence[Any]) -> int:
    """Counts the states of random generators that a graph uses, and that are none of the variables that are known."""
    own = {id(variable.handle) for variable in known}
    states = [tensor for tensor, _ in graph.captures if tensor.dtype == tf.resource and id(tensor) not in own]
    return sum(_kind(handle) in _STATES for handle in states)


def _kind(handle: Any) -> Any:
    """Gives dtype and shape of the variable behind a handle; None if it is no variable's."""
    data = getattr(handle, "_handle_data", None)
    if data is None or not data.is_set or len(data.shape_and_type) != 1:
        return None
    (of_variable,) = data.shape_and_type
    return tf.as_dtype(of_variable.dtype), tuple(tf.TensorShape(of_variable.shape).as_list())
