"""Numbers in words."""

from __future__ import annotations

import pytest

from hpcdl.common.saying import count, rate


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(12345.6, "12346"), (769.4, "769"), (20.04, "20"), (9.876, "9.88"), (0.1234, "0.123")],
)
def test_a_rate_has_the_digits_that_tell_something_and_a_slow_one_is_not_0(
    per_second: float, text: str
) -> None:
    assert rate(per_second) == text


def test_one_thing_has_another_word_than_several() -> None:
    assert [count(n, "rank") for n in (0, 1, 2)] == ["0 ranks", "1 rank", "2 ranks"]
    assert count(2, "process", "processes") == "2 processes"
