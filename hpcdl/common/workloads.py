"""The table of ready workloads, written ``data/network``: what can be trained, and what is recommended for it.

Both halves read it: the launch side to list names and refuse wrong ones before anything starts, the runtime side
(``hpcdl.runtime.workloads``) to build the networks. A further network is a further row here and a builder there.

Synopsis::

    facts = get("mnist/fc64")                   # BadInput with near names if there is none
    facts.num_parameters, facts.recommended     # 55050, Recommended(optimizer="RMSprop", ...)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from hpcdl.common.checks import did_you_mean
from hpcdl.common.errors import BadInput

#: The data of workloads that are for benchmarks: made up, and in no place where real data are looked up.
SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Recommended:
    """What ``hpcdl train`` does where the user says nothing.

    Attributes:
        optimizer: A class of keras.optimizers.
        learning_rate: For one replica with this per-replica batch size.
        momentum: Nesterov's, of SGD.
    """

    optimizer: str
    learning_rate: float
    epochs: int
    per_replica_batch_size: int = 128
    lr_scaling: str = "linear"
    warmup_epochs: float = 1
    momentum: float = 0.0


@dataclass(frozen=True)
class Facts:
    """What is known of a workload without building it.

    Attributes:
        name: ``data/network``.
        num_parameters: All of the model's, of which ``num_non_trainable`` are not trained.
        workshop_accuracy: Test accuracy in percent that the workshop reached with this network on these data.
    """

    name: str
    data: str
    network: str
    description: str
    num_parameters: int
    num_non_trainable: int
    recommended: Recommended
    workshop_accuracy: Optional[float] = None


def names() -> List[str]:
    """Returns the names of all workloads."""
    return list(_WORKLOADS)


def get(name: str) -> Facts:
    """Returns the workload ``name``; BadInput with near names if there is none."""
    if name not in _WORKLOADS:
        hint = did_you_mean(name, _WORKLOADS).rstrip() or f"known are {', '.join(_WORKLOADS)}"
        raise BadInput(f"unknown workload {name!r}; workloads are written data/network; {hint}")
    return _WORKLOADS[name]


# Optimizers and epochs of Keras' own examples for networks of this shape, but for Adam where they had Adadelta: a
# learning rate is to be scaled with the global batch, and Adadelta's of 1 is hardly one.
_DENSE = Recommended("RMSprop", 1e-3, epochs=20)
_CONVOLUTIONAL = Recommended("Adam", 1e-3, epochs=12)
_PHOTOGRAPHS = Recommended("Adam", 1e-3, epochs=25)
_TEXTS = Recommended("Adam", 1e-3, epochs=10)
# 404 rows: small batches, or there are hardly any steps.
_HOUSES = Recommended("RMSprop", 1e-3, epochs=100, per_replica_batch_size=16)
# Benchmarks: there is nothing to learn, and no rate to scale. 0.1 for a batch of 256 is that of Goyal et al. 2017.
_RESNET = Recommended("SGD", 0.1 * 32 / 256, 1, 32, lr_scaling="none", warmup_epochs=0, momentum=0.9)
_TRANSFORMER = Recommended("Adam", 1e-4, 1, 32, lr_scaling="none", warmup_epochs=0)

#: Network, what it is, parameters, of which not trained, recommended, accuracy on MNIST in the workshop.
_WORKSHOP: Tuple[Tuple[str, str, int, int, Recommended, float], ...] = (
    ("fc64", "2 dense layers of 64", 55_050, 0, _DENSE, 97.5),
    ("fc512", "2 dense layers of 512", 669_706, 0, _DENSE, 98.2),
    ("fc512x3", "3 dense layers of 512", 932_362, 0, _DENSE, 98.0),
    ("cnn1", "1 convolution, dense 100", 542_230, 0, _CONVOLUTIONAL, 98.7),
    ("cnn2", "2 convolutions, dense 128", 1_199_882, 0, _CONVOLUTIONAL, 99.0),
    ("cnn_dropout", "cnn2 with dropout", 1_199_882, 0, _CONVOLUTIONAL, 99.2),
    ("cnn_batchnorm", "cnn2 with batch norm", 1_200_778, 448, _CONVOLUTIONAL, 98.9),
)


def _workshop(data: str) -> List[Facts]:
    return [
        Facts(
            f"{data}/{network}", data, network, description, num_parameters, num_non_trainable, recommended,
            reached if data == "mnist" else None,
        )
        for network, description, num_parameters, num_non_trainable, recommended, reached in _WORKSHOP
    ]  # fmt: skip


def _row(
    name: str, description: str, num_parameters: int, num_non_trainable: int, recommended: Recommended
) -> Facts:
    data, _, network = name.partition("/")
    return Facts(name, data, network, description, num_parameters, num_non_trainable, recommended)


_WORKLOADS: Dict[str, Facts] = {
    facts.name: facts
    for facts in (
        *_workshop("mnist"),
        *_workshop("fashion_mnist"),
        _row("cifar10/cnn", "4 convolutions, dense 512, dropout", 1_250_858, 0, _PHOTOGRAPHS),
        _row("cifar100/cnn", "4 convolutions, dense 512, dropout", 1_297_028, 0, _PHOTOGRAPHS),
        _row("boston_housing/regression", "2 dense layers of 64, one number", 5_121, 0, _HOUSES),
        _row("imdb/embedding", "mean of word vectors, dense 16", 160_306, 0, _TEXTS),
        _row("reuters/embedding", "mean of word vectors, dense 64", 647_150, 0, _TEXTS),
        _row("synthetic/resnet50", "ResNet-50 on 224 x 224 images", 25_636_712, 53_120, _RESNET),
        _row("synthetic/transformer", "encoder of 4 blocks on 128 tokens", 1_891_458, 0, _TRANSFORMER),
    )
}
