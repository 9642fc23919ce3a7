"""What `hpcdl.init` keeps from Python's garbage collector: what stays anyway, and nothing that comes later."""

from __future__ import annotations

import gc
import weakref

import hpcdl


class Node:
    """A cycle of objects, as a model is one."""

    def __init__(self):
        self.me = self


def test_what_was_made_between_two_runs_is_collected():
    hpcdl.init(strategy="single")
    assert gc.get_freeze_count() > 100_000  # TensorFlow's
    node = Node()
    seen = weakref.ref(node)
    hpcdl.init(strategy="single")
    del node
    gc.collect()
    assert seen() is None
