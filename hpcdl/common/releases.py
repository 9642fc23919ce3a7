"""Which versions of a package take each other's place.

Synopsis::

    release("2.15.0") == release("2.15.1")
"""

from __future__ import annotations

import re
from typing import Optional, Tuple

#: The first Keras 3 whose steps are exact under hpcdl. Before it several replicas decay weights, and accumulate
#: gradients, otherwise than one (seen with 3.9.2: weights off by 0.3 after 20 steps of AdamW), and nothing fails.
OLDEST_KERAS_3 = ("3", "10")


def release(version: str) -> Tuple[str, ...]:
    """Gives the numbers that a library built for a version of TensorFlow depends on: ("2", "15") of 2.15.1."""
    return tuple(re.findall(r"\d+", version)[:2])


def of_another_release(horovod: str, built_for: Optional[str], tensorflow: str) -> Optional[str]:
    """Says that a Horovod was built for another release of TensorFlow than this; None: it was not, or nobody tells."""
    if not built_for or release(built_for) == release(tensorflow):
        return None
    return f"Horovod {horovod} was built for TensorFlow {built_for}; this one is {tensorflow}"


def is_keras_3_before(minor: int, version: str) -> bool:
    """Says whether a version is one of Keras 3, and before 3.minor."""
    numbers = release(version)
    return len(numbers) == 2 and numbers[0] == OLDEST_KERAS_3[0] and int(numbers[1]) < minor


def of_early_keras_3(version: str) -> Optional[str]:
    """Says that a Keras 3 came before those that hpcdl makes exact; None: it did not, or is no Keras 3."""
    if not is_keras_3_before(int(OLDEST_KERAS_3[1]), version):
        return None
    return (
        f"Keras 3 must be {'.'.join(OLDEST_KERAS_3)} or later, from which on steps of several replicas are exact;"
        f" received Keras {version}"
    )


#: What to do about it. Ranks of a job see no packages of ~/.local.
NEWER_KERAS = (
    f"pip install 'keras>={'.'.join(OLDEST_KERAS_3)}' where the ranks run (an image must hold it:"
    " containers/README.md), or set TF_USE_LEGACY_KERAS=1 where tf_keras is installed"
)
