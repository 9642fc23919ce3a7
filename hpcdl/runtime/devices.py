"""The devices of a process, pinned before TensorFlow and Horovod use any.

Synopsis::

    devices = pin_devices(replicas=2, local_rank=topology.local_rank)     # ["GPU:0", "GPU:1"], or CPUs
"""

from __future__ import annotations

from typing import List

import tensorflow as tf

from hpcdl.common.errors import BadInput


def pin_devices(replicas: int, local_rank: int) -> List[str]:
    """Gives a process its GPUs by its local rank, with memory growth; without GPUs, logical CPU devices.

    A rank whose launcher shows it no more GPUs than it needs uses them from the first on.

    Raises:
        BadInput: TensorFlow has been used already, so that devices cannot be pinned any more.
    """
    gpus = tf.config.list_physical_devices("GPU")
    try:
        if gpus:
            first = 0 if len(gpus) <= replicas else local_rank * replicas
            mine = gpus[first : first + replicas]
            tf.config.set_visible_devices(mine, "GPU")
            for gpu in mine:
                tf.config.experimental.set_memory_growth(gpu, True)
        elif replicas > 1:
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
            )
    except RuntimeError as problem:
        raise BadInput(
            f"devices must be pinned before TensorFlow uses one; received: {problem};"
            " call hpcdl.init() before any tensor or model is made"
        ) from problem
    return [f"{'GPU' if gpus else 'CPU'}:{r}" for r in range(replicas)]
