"""Known messages: what lines that others write into a rank's log mean, in one sentence with the way out.

The words are those of Slurm, TensorFlow, CUDA, NCCL, Horovod, Open MPI, HDF5 and the C library, as users have reported
them.

Synopsis::

    explain("ImportError: libcuda.so.1: cannot open shared object file")      # the image was started without ...
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Optional, Tuple


@dataclass(frozen=True)
class Known:
    """A message.

    Attributes:
        pattern: Finds it.
        meaning: What it means, and what to do.
        is_vague: Whether another line, further up in the log, may say more.
        is_warning: Whether programs that go on well write it too; alone in a log it explains nothing.
    """

    pattern: str
    meaning: str
    is_vague: bool = False
    is_warning: bool = False


#: Causes stand before what follows from them.
KNOWN: Tuple[Known, ...] = (
    Known(
        r"oom[-_]kill event|: tasks? \S+: Out Of Memory",
        "the memory that the job asked for on this node was used up; pass a larger --mem, or fewer ranks or a smaller"
        " shuffle buffer or cache",
    ),
    Known(
        r"CANCELLED AT \S+ DUE TO TIME LIMIT",
        "the job's time was over; pass a longer --time: the run goes on from its last checkpoint, a benchmark, which"
        " has none, begins again",
    ),
    Known(
        r"[Dd]isk quota exceeded",
        "a quota is used up; make room, or pass --run-dir and --jobs-dir on another file system (hpcdl doctor shows"
        " quotas)",
    ),
    Known(
        r"No space left on device",
        "a file system is full, often the node's /tmp or /dev/shm; make room, or write elsewhere",
    ),
    Known(
        r"CUDA_ERROR_OUT_OF_MEMORY|OOM when allocating tensor",
        "the GPU's memory is used up; pass a smaller --per-replica-batch-size, or see whether another process holds"
        " the GPU",
    ),
    Known(
        r"ibv_(create_qp|create_cq\S*|reg_mr\w*)(\(\))? failed",
        "InfiniBand could not lock memory: `ulimit -l` on the node is too low; put `ulimit -l unlimited` into `setup`,"
        " or ask the centre to raise it (hpcdl doctor --nodes 2 shows it)",
    ),
    Known(
        r"process_vm_readv(\(.* returned -1| delivered 0)|mm ep failed to connect to remote FIFO",
        "ranks of one node may not read each other's memory, as in images that an ordinary user mounts; set"
        " UCX_TLS=sysv,ib in `environ` of the profile, or pass --launcher gloo",
    ),
    Known(
        r"no loop devices available|failed to find loop device",
        "the node could not mount the image for so many processes at once; submit again, or start fewer processes:"
        " --strategy hybrid",
    ),
    Known(
        r"version `?GLIBC_[\d.]+'? not found",
        "a program or library is loaded with an older C library than it was built for, as when the host's"
        " LD_LIBRARY_PATH or its GPU libraries reach an image; unset it, or take a newer image",
    ),
    Known(
        r"CUDA driver version is insufficient for CUDA runtime version",
        "the node's GPU driver is too old for the CUDA of the image; take an older image (hpcdl doctor tells which"
        " fits)",
    ),
    Known(
        r"no kernel image is available for execution on the device",
        "this TensorFlow has no code for this kind of GPU; take another image, or another kind of GPU",
    ),
    Known(
        r"libcuda\.so\.1: cannot open shared object file",
        "the process does not see the GPU driver: the node has no GPU, or the image was entered without --nv"
        " (container.gpu_flags in the profile)",
        is_warning=True,
    ),
    Known(
        r"Loaded runtime CuDNN library: \S+ but source was compiled with",
        "TensorFlow has loaded another cuDNN than it was built for; load that one in `setup`, or take an image that"
        " holds both",
    ),
    Known(
        r"Could not load (dynamic )?library '?libcudnn",
        "TensorFlow does not find cuDNN; load it in `setup`, or take an image that holds both",
        is_warning=True,
    ),
    Known(
        r"DNN library (is not found|initialization failed)",
        "TensorFlow could not start cuDNN; the rank's log tells why further up",
        is_vague=True,
    ),
    Known(
        r"libdevice not found at",
        "XLA does not find CUDA's libdevice; set XLA_FLAGS=--xla_gpu_cuda_data_dir=FOLDER in `environ` of the profile,"
        " or compile the model without jit_compile",
    ),
    Known(
        r"OMPI was not built with SLURM's PMI support|PMI2_Init failed to intialize|(PMIX|OPAL) ERROR:|PMII_singinit"
        r"|invalid PMI1 init command",
        "the MPI of the ranks does not speak srun's --mpi; pass --launcher gloo, which needs neither, or set mpi in the"
        " profile (hpcdl doctor --nodes 2 tries each)",
    ),
    Known(
        r"Extension horovod\.\w+ has not been built",
        "this Horovod was built without TensorFlow; take another image, or build it: hpcdl horovod install",
    ),
    Known(
        r"No module named '(tensorflow|keras|horovod)[\w.]*'",
        "it is not installed for the Python of the ranks; name an image that holds it with --image, or load it in"
        " `setup` of the profile",
    ),
    Known(
        r"gradient_accumulation_steps is not a valid argument",
        "the optimizers of Keras 2 cannot accumulate gradients, those of Keras 3 can; take a larger global batch, or an"
        " image with TensorFlow 2.16 or later",
    ),
    Known(
        r"unable to lock (the )?file, errno",
        "HDF5 could not lock a file: another process holds it, or the file system has no locks; for files that are only"
        " read set HDF5_USE_FILE_LOCKING=FALSE in `environ` of the profile",
    ),
    Known(
        r"corrupted record at \d+|Checksum does not match: stored",
        "a data or checkpoint file is damaged, often by an interrupted copy; fetch or copy it again",
    ),
    Known(
        r"Permission denied",
        "a file or folder may not be read or written; see who owns it, or pass --run-dir to write elsewhere",
        is_warning=True,
    ),
    Known(
        r"Address already in use",
        "a port was taken, often by a process that an earlier run left on the node; submit again",
    ),
    Known(
        r"Wait timeout after \d+ seconds for key|Connect timeout \[|Timed out waiting \d+ms for \w+ operation",
        "ranks could not reach each other in time: one was slow, stuck or gone, or they took different networks; see"
        " the other ranks' logs, set socket_ifname in the profile, or raise HOROVOD_GLOO_TIMEOUT_SECONDS",
        is_vague=True,
    ),
    Known(
        r"nccl\w+ failed: unhandled|unhandled (system|cuda) error",
        "NCCL could not connect the GPUs; set NCCL_DEBUG=INFO in `environ` of the profile: the first line with WARN"
        " tells why",
        is_vague=True,
    ),
)


def explain(account: str, read_log: Callable[[], str] = str) -> Optional[str]:
    """Says what a failure means.

    Args:
        account: What the rank itself reported; "" if it had no time to.
        read_log: Reads the end of its log; called only where the rank's own words say nothing, since what a program
            has lived through does not explain its end.

    Returns:
        One sentence; None: nothing is known of it.
    """
    own = next((one for one in KNOWN if re.search(one.pattern, account)), None)
    if account and (own is None or not own.is_vague):
        return own.meaning if own is not None else None
    log = read_log()
    asked = [one for one in KNOWN if account or not one.is_warning]
    found = next((one for one in asked if re.search(one.pattern, log)), own)
    return found.meaning if found is not None else None
