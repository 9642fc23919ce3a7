"""Checks of single values: what passes is returned, what does not is named with its value."""

from __future__ import annotations

from typing import Any

import pytest

from hpcdl.common.checks import one_of, parse_number, parse_share, parse_whole_number, whole_number
from hpcdl.common.errors import BadInput


def test_a_name_without_near_ones_lists_all() -> None:
    with pytest.raises(BadInput) as caught:
        one_of("lr_scaling", "xyz", ("linear", "sqrt"))
    assert str(caught.value) == "unknown lr_scaling 'xyz'; use one of linear, sqrt"


@pytest.mark.parametrize("value", [None, 1, ["linear"]])
def test_what_is_no_text_is_no_name(value: Any) -> None:
    with pytest.raises(BadInput, match="unknown lr_scaling"):
        one_of("lr_scaling", value, ("linear", "sqrt"))


@pytest.mark.parametrize("value", [0, -3, 1.0, "1", None, False, True])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        whole_number("epochs", value)
    assert str(caught.value) == f"epochs must be a whole number >= 1; received {value!r}; pass e.g. 1"


def test_a_number_beyond_the_largest_one_is_refused() -> None:
    assert whole_number("seed", 7, least=0, most=7) == 7
    with pytest.raises(BadInput, match="seed must be a whole number >= 0 and <= 7; received 8; pass e.g. 1"):
        whole_number("seed", 8, least=0, most=7)


@pytest.mark.parametrize("digits", [500, 5000])
def test_a_number_of_many_digits_is_refused(digits: int) -> None:
    with pytest.raises(BadInput, match="--np must be a whole number >= 1 and <= 99; received '?10000"):
        parse_whole_number("--np", f"1{digits * '0'}", most=99)


def test_the_least_number_is_accepted() -> None:
    assert whole_number("rank", 0, least=0) == 0
    assert parse_whole_number("rank", "007", least=0) == 7


@pytest.mark.parametrize("text", ["1e5", "1", "0.5", ".5"])
def test_numbers_are_read_as_python_writes_them(text: str) -> None:
    assert parse_number("--learning-rate", text) == float(text)


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-1", "0"])
def test_what_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--learning-rate must be a number > 0; received"):
        parse_number("--learning-rate", text)


def test_a_share_is_no_percentage() -> None:
    assert (parse_share("--threshold", "0.75"), parse_share("--threshold", "1")) == (0.75, 1.0)
    for text in ("75", "0", "nan"):
        with pytest.raises(BadInput, match="--threshold must be a number > 0"):
            parse_share("--threshold", text)


def test_zero_is_a_number_where_it_may_be() -> None:
    assert parse_number("--warmup-epochs", "0", positive=False) == 0
