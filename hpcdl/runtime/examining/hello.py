"""Two ranks say hello through MPI, and nothing else: no TensorFlow, no Horovod. The doctor starts it by each ``--mpi``.

Synopsis::

    srun -n 2 --mpi=pmix python3 lib hpcdl.runtime.examining.hello /opt/env/lib/libmpi.so.40    # hello 0 of 2
"""

from __future__ import annotations

import ctypes
import sys
from typing import List

#: What MPICH and its kin call MPI_COMM_WORLD; Open MPI has an object of a name of its own.
_MPICH_WORLD = 0x44000000


def main(argv: List[str]) -> None:
    """Meets the other rank through the MPI library that is named."""
    mpi = ctypes.CDLL(argv[0], mode=ctypes.RTLD_GLOBAL)
    try:
        world = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(mpi, "ompi_mpi_comm_world")))
    except ValueError:
        world = ctypes.c_int(_MPICH_WORLD)  # type: ignore[assignment]
    rank, size = ctypes.c_int(-1), ctypes.c_int(-1)
    mpi.MPI_Init(None, None)
    mpi.MPI_Comm_rank(world, ctypes.byref(rank))
    mpi.MPI_Comm_size(world, ctypes.byref(size))
    mpi.MPI_Barrier(world)
    print(f"\nhello {rank.value} of {size.value}", flush=True)
    mpi.MPI_Finalize()


if __name__ == "__main__":
    main(sys.argv[1:])
