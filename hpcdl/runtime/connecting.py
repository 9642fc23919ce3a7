"""A limit on the time that Horovod's init() may take: in MPI_Init() ranks whose MPI and PMI do not suit wait for ever.

Nothing can end such a wait but the end of the process, which is what this does, with a line that says who is missing.

Synopsis::

    with Limit(topology, folder, timeout_s=300.0, environ=os.environ):
        hvd.init()
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import List, Mapping, Optional, Type

from hpcdl.common.errors import EXIT_FAILED
from hpcdl.common.failures import write_failure
from hpcdl.common.saying import say
from hpcdl.common.topology import Topology


class Limit:
    """Ends this process if what it surrounds takes too long.

    Args:
        topology: The place of this process.
        folder: Seen by all ranks; those that are through say so in it. None: there is none, and nobody is named.
        timeout_s: How long it may take.
        environ: Of this process; where it names a folder for failures, the end is reported there.
    """

    def __init__(
        self, topology: Topology, folder: Optional[Path], timeout_s: float, environ: Mapping[str, str]
    ) -> None:
        self._topology = topology
        self._folder = folder
        self._timeout_s = timeout_s
        self._status_dir = environ.get("HPCDL_STATUS_DIR")
        self._timer = threading.Timer(timeout_s, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Limit:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._timer.cancel()
        if error is None and self._folder is not None:
            (self._folder / f"connected-{self._topology.rank:04d}").touch()

    def _end(self) -> None:
        line = (
            f"Horovod did not connect the ranks through MPI within {self._timeout_s:g} s; {self._missing()}does the MPI"
            " here speak the launcher's PMI? `hpcdl doctor --nodes 2` tries it; --launcher gloo needs none"
        )
        if self._status_dir:
            place = self._topology
            write_failure(
                self._status_dir,
                rank=place.rank,
                hostname=place.hostname,
                exit_status=EXIT_FAILED,
                error=line,
            )
        say(line)
        os._exit(EXIT_FAILED)

    def _missing(self) -> str:
        if self._folder is None:
            return ""
        through: List[int] = [int(path.name.split("-")[1]) for path in self._folder.glob("connected-*")]
        if not through:
            return "none of them is through; "
        missing = sorted(set(range(self._topology.world_size)) - set(through))
        return f"{len(through)} are through, not rank {', '.join(map(str, missing[:8]))}; "
