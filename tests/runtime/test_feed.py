"""The feed of a benchmark that asks what the input costs: the first batch comes again and again."""

from __future__ import annotations

import numpy as np

from hpcdl.runtime.feed import Order, feed
from hpcdl.runtime.processes import Alone
from hpcdl.runtime.replicas import Replicas


def test_a_cached_feed_gives_the_first_batch_for_ever():
    rows = np.arange(12)
    order = Order(num_samples=12, global_batch_size=4, seed=7)
    replicas = Replicas(Alone(), ["CPU:0"])
    seen = [batch.numpy().tolist() for batch, _ in feed(rows, order, replicas, 1, is_cached=True).take(7)]
    assert seen == [order.batch(0, 0).tolist()] * 7
    plain = [batch.numpy().tolist() for batch, _ in feed(rows, order, replicas, 1).take(3)]
    assert sorted(sum(plain, [])) == rows.tolist()
