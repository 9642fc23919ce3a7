"""Checks of what the ranks run with: the image or the environment. Pure functions over gathered facts.

Synopsis::

    findings = check_image(facts, profile, layout, image="tf.sif")
"""

from __future__ import annotations

import re
from typing import Any, Iterator, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.releases import NEWER_KERAS, of_another_release, of_early_keras_3
from hpcdl.launch.doctor.cuda import driver_findings
from hpcdl.launch.doctor.hello import family_of
from hpcdl.launch.doctor.verdict import FAILED, OK, WARNING, Finding
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.layout import Layout

_OLDEST_PYTHON = (3, 8)
_TENSORFLOWS = ((2, 12), (2, 21))
#: Checks that fail by the image's own fault.
_OF_IMAGE = ("start", "python", "tensorflow", "keras", "horovod", "gpu")
#: (MPI in the image, srun's --mpi) that are known not to meet, and what happens.
_BAD_PAIRS = {
    ("Open MPI", "pmi2"): "each rank is alone, as rank 0 of 1, without a word",
    ("Open MPI", "cray_shasta"): "Open MPI does not speak Cray's PMI",
    ("Open MPI", "none"): "each rank is alone, as rank 0 of 1, without a word",
    ("MPICH", "none"): "each rank is alone, as rank 0 of 1, without a word",
    ("MPICH", "pmix"): "MPICH speaks PMI2 and Cray's PMI; PMIx only if it was built so",
}
#: Where libraries of the host's stand before those of the image.
_UNSET_LIBRARY_PATH = (
    "unset LD_LIBRARY_PATH APPTAINERENV_LD_LIBRARY_PATH SINGULARITYENV_LD_LIBRARY_PATH, and take them out of"
    " setup"
)


def check_image(
    facts: Mapping[str, Any],
    profile: Profile,
    layout: Layout,
    image: Optional[str],
    mpirun: Optional[str] = None,
) -> List[Finding]:
    """Checks what an interpreter, in the image or the environment, says of itself.

    Args:
        facts: Sections of `hpcdl.runtime.inventory`, ``around`` of `hpcdl.common.probe`; where TensorFlow does not load
            with the flags that give an image the GPUs, ``gpu_flags`` and what it says ``without_gpu_flags``; or
            ``error``, if nothing starts there.
        profile: The site.
        layout: What is to run.
        image: The image; None: the environment.
        mpirun: What the host's mpirun says of itself, where it would start the ranks.
    """
    what = f"the image {image}" if image else "the environment"
    if "error" in facts:
        return [
            Finding(
                "start",
                "image",
                FAILED,
                f"no Python starts in {what}: {facts['error']}",
                "try it by hand (hpcdl shell --dry-run prints the command); pass --python, or another --image",
            )
        ]
    heavy: List[Finding] = []
    if "tensorflow" in facts:  # it is left out where there is no time
        heavy = [
            *_tensorflow(facts, image),
            _horovod(facts, layout, image),
            *_mpi(facts, profile, layout, mpirun),
        ]
    return [
        _python(facts),
        *heavy,
        _strangers(facts),
        *_folders(facts, what),
        *_gpus(facts, layout),
    ]


def passes(findings: Sequence[Finding]) -> bool:
    """Whether an image is well; its site, its folders and the variables of a shell are no fault of it."""
    return not any(one.status == FAILED and one.check in _OF_IMAGE for one in findings)


def ways_of(facts: Mapping[str, Any]) -> Optional[List[str]]:
    """Gives by which of ``gloo`` and ``mpi`` the Horovod of an image can meet; None: not known."""
    horovod = facts.get("horovod")
    if not horovod or "error" in horovod:
        return None
    return [way for way in ("gloo", "mpi") if horovod.get(way)]


def _finding(check: str, status: str, evidence: str, cure: str = "") -> Finding:
    return Finding(check, "image", status, evidence, cure)


def _python(facts: Mapping[str, Any]) -> Finding:
    version = facts["python"]["version"]
    if _numbers(version)[:2] < _OLDEST_PYTHON:
        return _finding("python", FAILED, f"Python {version}", "take an image with Python 3.8 or later")
    return _finding("python", OK, f"Python {version} in {facts['python']['prefix']}")


def _tensorflow(facts: Mapping[str, Any], image: Optional[str]) -> Iterator[Finding]:
    tensorflow = facts.get("tensorflow")
    if not tensorflow or "error" in tensorflow:
        why = tensorflow["error"] if tensorflow else "there is none"
        cure = "take another --image" if image else "load the module or environment that brings it, in setup"
        flags = " ".join(facts.get("gpu_flags") or ())
        if "version" in (facts.get("without_gpu_flags") or {}):
            why += f"; without {flags} it loads"
            cure = (
                f"what {flags} brings in from this host does not suit the image: take a newer image, or other"
                " gpu_flags in your own file for the site"
            )
        yield _finding("tensorflow", FAILED, f"TensorFlow: {why}", cure)
        return
    version = tensorflow["version"]
    cuda = f"CUDA {tensorflow['cuda']}" if tensorflow["cuda"] else "CPU only"
    oldest, newest = _TENSORFLOWS
    if oldest <= _numbers(version)[:2] <= newest:
        yield _finding("tensorflow", OK, f"TensorFlow {version} ({cuda})")
    else:
        span = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
        yield _finding(
            "tensorflow",
            WARNING,
            f"TensorFlow {version} ({cuda}); hpcdl is tested on {span}",
            f"take one of {span}",
        )
    keras = facts.get("keras")
    if not keras or "error" in keras:
        yield _finding(
            "keras", FAILED, "Keras is missing", "pip install keras in the environment, or another image"
        )
    else:
        early = of_early_keras_3(keras["version"])
        yield (
            _finding("keras", OK, f"Keras {keras['version']}")
            if early is None
            else _finding("keras", FAILED, early, NEWER_KERAS)
        )


def _horovod(facts: Mapping[str, Any], layout: Layout, image: Optional[str]) -> Finding:
    horovod, tensorflow = facts.get("horovod"), facts.get("tensorflow") or {}
    cure = (
        "take an image that holds Horovod: the site's own, or hpcdl container build cpu FILE"
        if image
        else "hpcdl horovod install --python PYTHON, with the Python of this environment"
    )
    if not horovod:
        needed = layout.world_size > 1
        return _finding("horovod", FAILED if needed else WARNING, "Horovod is missing", cure)
    version = horovod.get("version", "of unknown version")
    trouble = None
    if "version" in tensorflow:
        trouble = of_another_release(version, horovod.get("tensorflow"), tensorflow["version"])
    if trouble is not None:
        return _finding("horovod", FAILED, trouble, cure)
    if "error" in horovod:
        if facts.get(
            "library_path"
        ):  # a library of the host's that is found before its own needs others of the host's
            cure = f"{_UNSET_LIBRARY_PATH}; if it still does not load, {cure}"
        return _finding("horovod", FAILED, f"Horovod {version} does not load: {horovod['error']}", cure)
    parts = [name for name in ("mpi", "gloo", "nccl", "cuda") if horovod.get(name)]
    needs = "gloo" if layout.launcher in ("gloo", "here") else "mpi"
    if needs not in parts:
        other = "--launcher mpi" if needs == "gloo" else "--launcher gloo"
        return _finding(
            "horovod",
            FAILED,
            f"Horovod {version} was built without {needs}, by which its processes would meet",
            f"pass {other}",
        )
    if layout.gpus_per_node and "nccl" not in parts:
        return _finding(
            "horovod",
            WARNING,
            f"Horovod {version} was built without NCCL: gradients travel through the hosts' memory",
            cure,
        )
    return _finding("horovod", OK, f"Horovod {version} with {', '.join(parts)}")


def _mpi(
    facts: Mapping[str, Any], profile: Profile, layout: Layout, mpirun: Optional[str]
) -> Iterator[Finding]:
    mpi = facts.get("mpi")
    if not mpi or "error" in mpi:
        return
    flavour, version = _flavour(mpi["version"]), mpi["version"].split(",")[0]
    foreign = [
        folder
        for folder in facts.get("library_path", ())
        if folder and mpi["library"].startswith(folder.rstrip("/") + "/")
    ]
    if foreign:
        yield _finding(
            "mpi library",
            FAILED,
            f"Horovod has loaded {mpi['library']} ({version}), by LD_LIBRARY_PATH and not its own",
            _UNSET_LIBRARY_PATH,
        )
    else:
        yield _finding("mpi library", OK, f"{version} in {mpi['library']}")
    if layout.launcher == "mpirun" and mpirun is not None:
        yield _mpirun(mpirun, mpi["version"])
    if layout.launcher != "mpi":
        return
    pmi = family_of(profile.site.mpi or "none")
    trouble = _BAD_PAIRS.get((flavour, pmi))
    if trouble:
        instead = "pmix" if flavour == "Open MPI" and pmi == "pmi2" else None
        cure = f"set mpi = '{instead}' in your own file for the site, or " if instead else ""
        status = WARNING if (flavour, pmi) == ("MPICH", "pmix") else FAILED
        yield _finding(
            "pmi", status, f"{flavour} behind srun --mpi={pmi}: {trouble}", f"{cure}pass --launcher gloo"
        )
    else:
        yield _finding("pmi", OK, f"{flavour} behind srun --mpi={profile.site.mpi}")


def _mpirun(outside: str, inside: str) -> Finding:
    """Whether the host's mpirun suits the MPI of the ranks: they must be of one kind, and better of one version."""
    kinds = (_flavour(outside), _flavour(inside))
    evidence = f"{outside} starts ranks of {inside.split(',')[0]}"
    cure = "load the module that brings the MPI of the image, in setup, or pass --launcher gloo"
    if kinds[0] != kinds[1]:
        return _finding("mpirun", FAILED, evidence, cure)
    if _numbers(outside)[:1] != _numbers(inside)[:1]:
        return _finding("mpirun", WARNING, evidence, cure)
    return _finding("mpirun", OK, evidence)


def _strangers(facts: Mapping[str, Any]) -> Finding:
    strangers = facts.get("strangers") or []
    if not isinstance(strangers, list):
        return _finding("strangers", OK, "not known")
    if strangers:
        return _finding(
            "strangers",
            WARNING,
            f"packages of your own stand beside those of the image: {' '.join(strangers)}; hpcdl's runs leave them out",
            "in job scripts of your own: export PYTHONNOUSERSITE=1; or pip uninstall them",
        )
    return _finding("strangers", OK, "no packages of ~/.local beside those of the image")


def _folders(facts: Mapping[str, Any], what: str) -> Iterator[Finding]:
    wrong = {name: problem for name, problem in facts["around"]["folders"].items() if problem}
    for name, problem in wrong.items():
        yield _finding(
            "folder",
            FAILED,
            f"seen from {what}, {name}: {problem}",
            f"add '{name}' to container.binds in your own file for the site",
        )
    if not wrong:
        yield _finding("folder", OK, "the folders of a run can be written")


def _gpus(facts: Mapping[str, Any], layout: Layout) -> Iterator[Finding]:
    """What a driver says; on a login node there often is none, and then the nodes tell."""
    cuda = (facts.get("tensorflow") or {}).get("cuda")
    gpus = facts["around"]["gpus"]
    if layout.gpus_per_node and not cuda and "version" in (facts.get("tensorflow") or {}):
        yield _finding(
            "gpu",
            FAILED,
            "the job asks for GPUs, and this TensorFlow knows none",
            "take an image with CUDA or ROCm, or pass --gpus-per-node 0",
        )
    yield from driver_findings(
        "image", facts.get("tensorflow") or {}, gpus, bool(facts["around"].get("cuda_compat"))
    )


def _flavour(version: str) -> str:
    if "Open MPI" in version:
        return "Open MPI"
    is_mpich = any(word in version for word in ("MPICH", "Intel(R) MPI", "MVAPICH", "HYDRA"))
    return "MPICH" if is_mpich else version.split(",")[0]


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
