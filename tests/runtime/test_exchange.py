"""Exchanges: each tensor is in one, large ones alone, the last first, and timing has no say."""

from __future__ import annotations

import random

from hpcdl.runtime.processes import exchanges


def test_large_tensors_are_alone_and_small_ones_together_the_last_first():
    # The gradients of cnn_dropout: two convolutions, two dense layers, kernels and biases.
    sizes = [1_152, 128, 73_728, 256, 4_718_592, 512, 5_120, 40]
    assert exchanges([("float32", size) for size in sizes]) == [[7, 6, 5, 3, 2, 1, 0], [4]]


def test_no_exchange_of_several_tensors_is_larger_than_allowed():
    assert exchanges([("f", 3), ("f", 6), ("f", 5), ("f", 9)], most_bytes=10) == [[3], [2], [1, 0]]
    assert exchanges([("f", 10), ("f", 11), ("f", 1)], most_bytes=10) == [[2], [1], [0]]


def test_an_exchange_has_one_dtype():
    assert exchanges([("f", 1), ("d", 1), ("f", 1), ("d", 1)], most_bytes=10) == [[3, 1], [2, 0]]


def test_every_tensor_is_exchanged_once():
    draw = random.Random(0)
    for _ in range(200):
        tensors = [(draw.choice("fdi"), draw.randrange(20)) for _ in range(draw.randrange(30))]
        made = exchanges(tensors, most_bytes=draw.randrange(1, 40))
        assert sorted(i for members in made for i in members) == list(range(len(tensors)))
        assert all(len({tensors[i][0] for i in members}) == 1 for members in made)
