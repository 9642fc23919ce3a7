"""The table of workloads: names, near names, and what stands in the issue of the workshop."""

from __future__ import annotations

import pytest

from hpcdl.common import data_sets, workloads
from hpcdl.common.errors import BadInput

#: Network -> test accuracy in percent that the workshop reached on MNIST.
REACHED = {
    "fc64": 97.5,
    "fc512": 98.2,
    "fc512x3": 98.0,
    "cnn1": 98.7,
    "cnn2": 99.0,
    "cnn_dropout": 99.2,
    "cnn_batchnorm": 98.9,
}


def test_the_workshops_networks_are_there_for_both_sets_and_each_other_set_has_one() -> None:
    names = workloads.names()
    assert {f"{data}/{network}" for data in ("mnist", "fashion_mnist") for network in REACHED} <= set(names)
    assert {name.partition("/")[0] for name in names} == {*data_sets.names(), workloads.SYNTHETIC}
    for name in names:
        facts = workloads.get(name)
        assert (facts.name, f"{facts.data}/{facts.network}") == (name, name)
    assert {n: workloads.get(f"mnist/{n}").workshop_accuracy for n in REACHED} == REACHED


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("fashion_mnist/cnn_dropuot", "fashion_mnist/cnn_dropout"),
        ("mnist/fc", "mnist/fc64"),
        ("cnn2", "mnist/cnn2"),
        ("synthetic/resnet", "synthetic/resnet50"),
        ("imbd/embedding", "imdb/embedding"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones_in_one_line(wrong: str, hint: str) -> None:
    with pytest.raises(BadInput) as caught:
        workloads.get(wrong)
    message = str(caught.value)
    assert repr(wrong) in message
    assert hint in message
    assert "\n" not in message


def test_a_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(
        BadInput, match="known are mnist/fc64.*fashion_mnist/cnn_batchnorm.*synthetic/transformer"
    ):
        workloads.get("zzz")
