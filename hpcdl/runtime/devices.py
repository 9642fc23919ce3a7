"""The devices of a process and its threads, settled before TensorFlow and Horovod use any.

Synopsis::

    devices = pin_devices(replicas=2, local_rank=topology.local_rank)     # ["GPU:0", "GPU:1"], or CPUs
    use_threads(4)
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, List

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.common.topology import own_devices


def pin_devices(replicas: int, local_rank: int) -> List[str]:
    """Gives a process its GPUs by its local rank, with memory growth; without GPUs, logical CPU devices.

    Raises:
        BadInput: TensorFlow has been used already, so that devices cannot be pinned any more.
    """
    gpus = tf.config.list_physical_devices("GPU")
    with _before_first_use("devices must be pinned"):
        if gpus:
            mine = [gpus[index] for index in own_devices(len(gpus), replicas, local_rank)]
            tf.config.set_visible_devices(mine, "GPU")
            for gpu in mine:
                tf.config.experimental.set_memory_growth(gpu, True)
        elif replicas > 1:
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
            )
    return [f"{'GPU' if gpus else 'CPU'}:{r}" for r in range(replicas)]


def use_threads(num_threads: int) -> None:
    """Lets TensorFlow compute with so many threads, where the user has not said how many.

    Raises:
        BadInput: TensorFlow has been used already, with another number.
    """
    threading = tf.config.threading
    with _before_first_use("a rank's threads must be set"):
        if not threading.get_intra_op_parallelism_threads():
            threading.set_intra_op_parallelism_threads(num_threads)
        if not threading.get_inter_op_parallelism_threads():
            threading.set_inter_op_parallelism_threads(num_threads)


@contextmanager
def _before_first_use(rule: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as problem:
        raise BadInput(
            f"{rule} before TensorFlow is used; received: {problem};"
            " call hpcdl.init() before any tensor or model is made"
        ) from problem
