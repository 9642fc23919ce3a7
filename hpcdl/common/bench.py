"""What a benchmark tells the runs that it starts, through ``HPCDL_BENCH_*`` in their environment.

It never comes from the command line of a user's run: without ``HPCDL_BENCH_STEPS`` nothing here has an effect, and a
run with it says so on the screen and in its record.

Synopsis::

    settings = BenchSettings(steps=95, without_exchange=True)
    os.environ.update(settings.to_environ())
    BenchSettings.from_environ(os.environ).cut(num_samples=60_000, global_batch_size=256)    # (24320, 1)
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Optional, Tuple

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.options import at_least, changed, flag, folder, from_environ, option, switch, to_environ

_PREFIX = "HPCDL_BENCH_"


@dataclass(frozen=True)
class BenchSettings:
    """How a run is cut short and changed in order to be measured."""

    steps: Optional[int] = option(None, "N", "end after N steps, without validation", at_least(1))
    untimed_steps: int = option(
        0, "N", "of them are not timed: look at what else keeps the nodes busy from then on", at_least(0)
    )
    without_exchange: bool = switch("leave each rank its own gradients: what does the exchange cost?")
    cached_input: bool = switch(
        "take the first batch again and again, from memory: what does the input cost?"
    )
    batch_of_replicas: Optional[int] = option(
        None, "N", "take the global batch that N replicas would have, however many there are", at_least(1)
    )
    weak: bool = switch("refuse a fixed global batch, of which more replicas would take smaller parts")
    trace: bool = switch("write what happens in the timed steps into the run's folder")
    meet_dir: Optional[str] = option(
        None, "DIR", "begin together with the processes that meet in DIR", folder
    )
    meet_count: int = option(1, "N", "meet N processes in that folder", at_least(1))

    def __post_init__(self) -> None:
        if self.steps is None and changed(self):
            raise BadInput(
                f"only a benchmark, which sets {_PREFIX}STEPS, may change a run; received"
                f" {', '.join(flag(name) for name in changed(self))} without it; unset {_PREFIX}*"
            )

    def to_environ(self) -> Dict[str, str]:
        """Gives the variables of what differs from the default."""
        return to_environ(self, _PREFIX)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> BenchSettings:
        """Reads what `to_environ` gave."""
        return from_environ(cls, environ, _PREFIX)

    def cut(self, num_samples: int, global_batch_size: int) -> Tuple[int, int]:
        """Gives the samples and epochs of at least ``steps`` whole steps.

        Raises:
            BadInput: The data are fewer than one global batch.
        """
        if self.steps is None:
            raise ValueError("a run that is not a benchmark is not cut")
        most = num_samples // global_batch_size
        if most == 0:
            raise BadInput(
                f"a benchmark needs one global batch of data; received {num_samples} samples and a global batch"
                f" size of {global_batch_size}; pass a smaller batch size"
            )
        steps_per_epoch = min(self.steps, most)
        return steps_per_epoch * global_batch_size, -(-self.steps // steps_per_epoch)

    def batches(
        self, per_replica_batch_size: Optional[int], global_batch_size: Optional[int]
    ) -> Tuple[Optional[int], Optional[int]]:
        """Gives the batch sizes to take instead of those of the script: for strong scaling a fixed global one.

        Raises:
            BadInput: In weak scaling the script fixes the global one.
        """
        if self.weak and global_batch_size is not None:
            raise BadInput(
                "weak scaling needs the same batch of a replica on any number of them; received"
                f" global_batch_size={global_batch_size}; pass per_replica_batch_size to run.fit, or"
                " --scaling strong to hpcdl bench"
            )
        if self.batch_of_replicas is None or per_replica_batch_size is None:
            return per_replica_batch_size, global_batch_size
        return None, per_replica_batch_size * self.batch_of_replicas

    def meet(self) -> None:
        """Waits until all processes that are measured side by side are here."""
        if self.meet_dir is not None:
            meet(Path(self.meet_dir), self.meet_count)


def meet(place: Path, count: int, timeout_s: float = 300.0) -> None:
    """Waits until ``count`` processes of this machine have come to a folder.

    Raises:
        HpcdlError: They have not, in time.
    """
    place.mkdir(parents=True, exist_ok=True)
    (place / str(os.getpid())).touch()
    end = time.monotonic() + timeout_s
    while len(list(place.iterdir())) < count:
        if time.monotonic() > end:
            raise HpcdlError(
                f"{count} processes were to meet in {place}; {len(list(place.iterdir()))} came in {timeout_s:g} s;"
                " see the logs of the others"
            )
        time.sleep(0.01)
