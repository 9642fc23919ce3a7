"""PyTorch's DistributedDataParallel, written by hand as its tutorials do, for comparison; without TensorFlow.

The pattern (process group, DistributedSampler, DataLoader, DDP, the loop) is that of PyTorch's tutorial "Multi GPU
training with DDP", with the Gloo backend that it names for CPUs. With ``--tuned``: a core and a thread for each rank,
batches cut from memory instead of collated row by row, channels last, and gradients that are views of the buckets. Of
hpcdl it takes the data and how steps are written; the network is cnn_dropout, with Keras' initial weights and epsilon.

Synopsis::

    HPCDL_BENCH_STEPS=95 torchrun --standalone --nproc-per-node 2 tools/programs/ddp_script.py \
        RUN_DIR fashion_mnist/cnn_dropout [--tuned]
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, Iterator, List

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from hpcdl.common.bench import BenchSettings
from hpcdl.common.step_times import StepLog
from hpcdl.runtime import workloads

BATCH_SIZE = 128


def cnn_dropout() -> Any:
    """Makes the network; 1,199,882 parameters."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * 12 * 12, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def rows_by_loader(x: Any, y: Any) -> Iterator[Any]:
    """Gives batches as the tutorial does: each rank its part of an epoch's order."""
    dataset = TensorDataset(x, y)
    sampler: Any = DistributedSampler(dataset)
    loader: Any = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=False, sampler=sampler)
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def rows_from_memory(x: Any, y: Any, rank: int, world_size: int) -> Iterator[Any]:
    """Gives the same parts, gathered a batch at a time."""
    epoch = 0
    while True:
        order = np.random.default_rng([0, epoch]).permutation(len(x))[rank::world_size]
        for begin in range(0, len(order), BATCH_SIZE):
            rows = torch.from_numpy(order[begin : begin + BATCH_SIZE])
            yield x[rows], y[rows]
        epoch += 1


def main(run_dir: str, name: str, *options: str) -> None:
    """Trains and writes."""
    is_tuned = "--tuned" in options
    steps = BenchSettings.from_environ(os.environ).steps
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if steps is None or not name.endswith("/cnn_dropout"):
        raise SystemExit(f"needs HPCDL_BENCH_STEPS and a cnn_dropout; received {steps} and {name}")
    if is_tuned:
        cores = sorted(os.sched_getaffinity(0))
        mine = cores[rank * len(cores) // world_size : (rank + 1) * len(cores) // world_size]
        os.sched_setaffinity(0, mine)
        torch.set_num_threads(len(mine))
    distributed.init_process_group("gloo")
    workload = workloads.get(name)
    arrays = workload.arrays(workload.load(), "float32")
    x = torch.from_numpy(np.ascontiguousarray(arrays.x_train.transpose(0, 3, 1, 2)))
    y = torch.from_numpy(arrays.y_train.astype("int64"))
    torch.manual_seed(0)
    network = cnn_dropout()
    if is_tuned:
        network = network.to(memory_format=torch.channels_last)
    model = DistributedDataParallel(network, gradient_as_bucket_view=is_tuned)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)
    loss_function = nn.CrossEntropyLoss()
    batches = rows_from_memory(x, y, rank, world_size) if is_tuned else rows_by_loader(x, y)
    ends: List[float] = [time.perf_counter()]
    for _, (images, labels) in zip(range(steps), batches):
        if is_tuned:
            images = images.to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        loss_function(model(images), labels).backward()
        optimizer.step()
        ends.append(time.perf_counter())
    sums = [torch.zeros(1) for _ in range(world_size)]
    distributed.all_gather(sums, network[0].weight.detach().sum().reshape(1))
    if len({float(total) for total in sums}) > 1:
        raise SystemExit("the ranks' weights differ: this script does not train what it seems to")
    StepLog(Path(run_dir), rank, socket.gethostname()).append(
        0, [end - begin for begin, end in zip(ends, ends[1:])]
    )
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
