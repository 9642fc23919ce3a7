"""Lines as users have met them, and what hpcdl says they mean."""

from __future__ import annotations

import re

import pytest

from hpcdl.launch.known import KNOWN, explain

#: Each as it stands in a public issue of the project named, or in the C library.
LINES = [
    # slurm, before and after 21.08
    (
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=191.batch cgroup. Some of your processes may have"
        " been killed by the cgroup out-of-memory handler.",
        "larger --mem",
    ),
    (
        "slurmstepd: error: Detected 2 oom_kill events in StepId=7.13. Some of the step tasks have been OOM Killed.",
        "larger --mem",
    ),
    ("srun: error: Orion-01-01: task 4: Out Of Memory", "larger --mem"),
    (
        "slurmstepd: error: *** STEP 494583.0 ON n1 CANCELLED AT 2024-04-20T09:09:37 DUE TO TIME LIMIT ***",
        "longer --time: the run goes on from its last checkpoint, a benchmark, which has none, begins again",
    ),
    # the C library, as Python and TensorFlow give it on
    ("OSError: [Errno 122] Disk quota exceeded: '/home/x/.local/share'", "a quota is used up"),
    (
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError: disk quota exceeded [Op:SaveV2]",
        "a quota is used up",
    ),
    ("OSError: [Errno 28] No space left on device", "a file system is full"),
    ("PermissionError: [Errno 13] Permission denied: '/runs/x'", "may not be read or written"),
    ("OSError: [Errno 98] Address already in use", "a port was taken"),
    # tensorflow
    (
        "E tensorflow/stream_executor/cuda/cuda_driver.cc:828] failed to allocate 2.96G (3173555200 bytes) from device:"
        " CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        "the GPU's memory",
    ),
    (
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating tensor with"
        " shape[2,1023,50257] and type float on /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc",
        "the GPU's memory",
    ),
    (
        "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
        "does not see the GPU driver",
    ),
    (
        "InternalError: cudaGetDevice() failed. Status: CUDA driver version is insufficient for CUDA runtime version",
        "driver is too old",
    ),
    ("CUDA error: no kernel image is available for execution on the device", "no code for this kind of GPU"),
    (
        "W tensorflow/stream_executor/platform/default/dso_loader.cc:64] Could not load dynamic library"
        " 'libcudnn.so.8'; dlerror: libcudnn.so.8: cannot open shared object file: No such file or directory",
        "cuDNN",
    ),
    (
        "E0000 00:00:1738697930.202924    7665 cuda_dnn.cc:522] Loaded runtime CuDNN library: 9.1.0 but source was"
        " compiled with: 9.3.0.",
        "another cuDNN",
    ),
    (
        "W tensorflow/core/framework/op_kernel.cc:1841] OP_REQUIRES failed at xla_ops.cc:577 : FAILED_PRECONDITION: DNN"
        " library initialization failed. Look at the errors above for more details.",
        "could not start cuDNN",
    ),
    ("INTERNAL: libdevice not found at ./libdevice.10.bc", "libdevice"),
    (
        "tensorflow.python.framework.errors_impl.DataLossError: corrupted record at 2585605691",
        "file is damaged",
    ),
    (
        "Checksum does not match: stored 3880206044 vs. calculated on the restored bytes 1782481297",
        "file is damaged",
    ),
    ("ModuleNotFoundError: No module named 'tensorflow'", "not installed for the Python of the ranks"),
    # nccl
    ("hai-a100-3:3778851:3779883 [4] ibvwrap.c:130 NCCL WARN Call to ibv_create_qp failed", "ulimit -l"),
    (
        "misc/ibvwrap.cc:278 NCCL WARN Call to ibv_reg_mr_iova2 failed with error Cannot allocate memory",
        "ulimit -l",
    ),
    # ucx
    ("ib_log.c:246  UCX  ERROR mlx5_0: ibv_create_cq() failed: Cannot allocate memory.", "ulimit -l"),
    (
        "[lxbk1012:3549626:0:3549626]      cma_ep.c:84   process_vm_readv(pid=3549634 {0x24ed520,12480}-->"
        "{0x1bd42a0,12480}) returned -1: Operation not permitted",
        "UCX_TLS=sysv,ib",
    ),
    (
        "mm_ep.c:154  UCX  ERROR mm ep failed to connect to remote FIFO id 0xc000000480004f81: Shared memory error",
        "UCX_TLS=sysv,ib",
    ),
    # horovod
    (
        "tensorflow.python.framework.errors_impl.UnknownError:  ncclCommInitRank failed: unhandled system error",
        "NCCL_DEBUG=INFO",
    ),
    ("ncclCommInitRank failed: unhandled cuda error", "NCCL_DEBUG=INFO"),
    (
        "ImportError: Extension horovod.tensorflow has not been built.  If this is not expected, reinstall Horovod with"
        " HOROVOD_WITH_TENSORFLOW=1 to debug the build error.",
        "built without TensorFlow",
    ),
    (
        "horovod/common/gloo/http_store.cc:57] Wait timeout after 30 seconds for key(s): 0. You may want to increase"
        " the timeout via HOROVOD_GLOO_TIMEOUT_SECONDS",
        "socket_ifname",
    ),
    ("gloo/transport/tcp/pair.cc:898] Connect timeout [127.0.0.1]:51096", "socket_ifname"),
    (
        "gloo/transport/tcp/unbound_buffer.cc:72] Timed out waiting 30000ms for recv operation",
        "socket_ifname",
    ),
    # apptainer
    (
        "FATAL:   container creation failed: while mounting image /proc/self/fd/3: failed to find loop device: could"
        " not attach image file to loop device: no loop devices available",
        "--strategy hybrid",
    ),
    (
        "/.singularity.d/libs/faked: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found",
        "older C library",
    ),
    # open mpi, mpich, slurm
    ("but OMPI was not built with SLURM's PMI support and therefore cannot", "--launcher gloo"),
    ("PMI2_Init failed to intialize.  Return code: 14", "--launcher gloo"),
    ("[node001:94018] OPAL ERROR: Unreachable in file pmix3x_client.c at line 112", "--launcher gloo"),
    ("[node001:94018] PMIX ERROR: NOT-FOUND in file ptl_usock.c at line 175", "--launcher gloo"),
    ("PMII_singinit: execv failed: No such file or directory", "--launcher gloo"),
    ("slurmstepd: error: mpi/pmi2: invalid PMI1 init command: `error'", "--launcher gloo"),
    # keras 2.12
    (
        "TypeError: gradient_accumulation_steps is not a valid argument, kwargs should be empty  for"
        " `optimizer_experimental.Optimizer`.",
        "larger global batch",
    ),
    # h5py
    (
        "OSError: Unable to open file (unable to lock file, errno = 11, error message = 'Resource temporarily"
        " unavailable')",
        "HDF5_USE_FILE_LOCKING",
    ),
]


@pytest.mark.parametrize(("line", "words"), LINES)
def test_a_line_that_users_have_met_is_explained(line: str, words: str) -> None:
    assert words in str(explain(line))
    if not next(one for one in KNOWN if re.search(one.pattern, line)).is_warning:
        assert explain("", lambda: f"before\n{line}\nafter") == explain(line)


def test_every_known_message_has_a_line() -> None:
    assert [one.pattern for one in KNOWN if not any(re.search(one.pattern, line) for line, _ in LINES)] == []


def test_what_a_rank_says_itself_is_not_explained_by_what_it_has_lived_through() -> None:
    log = "OSError: [Errno 28] No space left on device"
    assert explain("ValueError: no data", lambda: log) is None
    assert "is full" in str(explain("", lambda: log))


def test_of_a_vague_message_the_log_may_know_the_cause() -> None:
    vague = "UnknownError: ncclCommInitRank failed: unhandled system error"
    assert "ulimit -l" in str(explain(vague, lambda: "NCCL WARN Call to ibv_create_qp failed\n" + vague))
    assert "NCCL_DEBUG" in str(explain(vague, lambda: "loss: 0.5"))


def test_a_warning_explains_only_what_says_that_the_log_tells_more() -> None:
    log = "W dso_loader.cc:64] Could not load dynamic library 'libcudnn.so.8'; dlerror: libcudnn.so.8"
    assert explain("", lambda: log) is None
    assert "does not find cuDNN" in str(explain("UnimplementedError: DNN library is not found.", lambda: log))
