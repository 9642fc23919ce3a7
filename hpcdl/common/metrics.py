"""What the name of a metric says: whether the least or the greatest value of it is the best.

Synopsis::

    is_greatest_best("val_f1_score"), is_greatest_best("val_mape"), is_greatest_best("ours")    # True, False, None
"""

from __future__ import annotations

import re
from typing import FrozenSet, Optional

#: Whole words of names. Keras 3 would ask its metrics; Keras 2 has names only, and so has a value that a callback logs.
_GREATEST = (
    "acc accuracy auc auroc precision recall sensitivity specificity f1 f1score fbeta iou miou dice r2 similarity"
    " psnr ssim bleu map top"
)
_LEAST = (
    "loss err error distance divergence entropy crossentropy perplexity mse rmse mae mape msle nll poisson hinge"
    " logcosh wer cer fid"
)


def words_of(name: str) -> FrozenSet[str]:
    """Gives the words of a metric's name."""
    return frozenset(re.split(r"[\W_]+", name.lower().replace("io_u", "iou")))  # as Keras writes IoU


def is_greatest_best(name: str) -> Optional[bool]:
    """Says whether the greatest value is the best; None: no word of the name tells."""
    words = words_of(name)
    if words & set(_LEAST.split()):  # a loss by a metric has its name as well
        return False
    return True if words & set(_GREATEST.split()) else None
