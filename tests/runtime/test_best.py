"""Which checkpoint is the best: what the user says, else what the words of a name say."""

from __future__ import annotations

import numpy as np
import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.schedule import parse_interval
from hpcdl.runtime.best import parse_best_by


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("loss", 2.0),
        ("val_accuracy", -2.0),
        ("val_top_5_accuracy", -2.0),
        ("auc_1", -2.0),
        ("val_f1_score", -2.0),
        ("val_mean_io_u", -2.0),
        ("val_dice", -2.0),
        ("val_dice_loss", 2.0),
        ("val_psnr", -2.0),
        ("val_top-5", -2.0),
        ("f1_score[0]", -2.0),
        ("val_mape", 2.0),
        ("val_previous_error", 2.0),  # it has "iou" in it
        ("val_accident_rate", 2.0),  # and that "acc"
        ("max:val_ours", -2.0),
        ("min:val_accuracy", 2.0),
    ],
)
def test_the_best_is_as_said_or_as_the_words_of_the_name_say(text, score):
    best = parse_best_by(text)
    assert best.score({best.name: np.float32(2)}) == score
    assert best.score({best.name: np.array([1.0, 3.0])}) == score
    assert best.score({}) is None
    assert str(best) == f"{'min' if score > 0 else 'max'}:{best.name}"


@pytest.mark.parametrize("text", ["most:loss", "max:", "a:min:loss"])
def test_another_direction_is_refused(text):
    with pytest.raises(BadInput, match="best_by must be a value of the logs"):
        parse_best_by(text)


@pytest.mark.parametrize(
    ("text", "every", "said"),
    [
        ("val_dice", "1epoch", ["the greatest val_dice is taken as the best, by its name; else pass best_by='min:"]),
        ("val_ours", "1epoch", ["the least val_ours is taken as the best, by its name; else pass best_by='max:"]),
        ("val_loss", "1epoch", []),
        ("max:val_dice", "10min,2epochs", []),
        ("max:val_dice", "30min", ["only a checkpoint at the end of an epoch can be the best by val_dice; let"]),
    ],
)  # fmt: skip
def test_a_guess_is_said_and_that_none_may_be_kept(text, every, said):
    found = list(parse_best_by(text).notices(parse_interval(every)))
    assert [one[: len(words)] for one, words in zip(found, said)] == said
    assert len(found) == len(said)
