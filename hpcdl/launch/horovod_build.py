"""Looks for what Horovod needs, builds its wheel outside the user's environment, keeps it in a cache.

Synopsis::

    target = read_target(Path(sys.executable))
    recipe = plan_recipe(target, find_tools(target, os.environ), os.environ)
    wheel = find_wheel(recipe, cache) or build_wheel(target, recipe, cache, screen)
    install_wheel(target, wheel, cache, screen)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

import hpcdl
from hpcdl.common.errors import BadInput
from hpcdl.launch.horovod_patch import PATCHED_FILES, patch_sources
from hpcdl.launch.horovod_recipe import (
    BUILD_REQUIREMENTS,
    HOROVOD_VERSION,
    Horovod,
    Mpi,
    Nccl,
    Recipe,
    Target,
    TensorFlow,
    Tools,
)
from hpcdl.launch.logged import Screen, build_progress, run_logged
from hpcdl.launch.mpirun import find_mpirun, read_version

_INVENTORY_SECONDS = 300  # TensorFlow's first import from a cold parallel file system takes minutes
#: The oldest Python that hpcdl runs on, and the tag of what serves all since.
_FOR_ANY_PYTHON = ("--py-limited-api", "cp38")
_BYTES_PER_JOB = 2 << 30  # what the compiler needs for a file that includes TensorFlow's headers


def read_target(python: Path) -> Target:
    """Asks an interpreter what it holds.

    Each part is asked for in a process of its own: a library that was built for another TensorFlow may crash.

    Raises:
        BadInput: There is no such interpreter, or its TensorFlow does not load.
    """
    about = _inventory(python, "python")["python"]
    if "error" in about:
        raise BadInput(f"--python must name a Python interpreter; received {python}: {about['error']}")
    tensorflow = _inventory(python, "tensorflow")["tensorflow"]
    if "error" in (tensorflow or {}):
        raise BadInput(f"TensorFlow must load in {python}; it says: {tensorflow['error']}; repair it first")
    horovod = _inventory(python, "horovod")["horovod"] if tensorflow else None
    return Target(
        python=python,
        platform=about["platform"],
        libc=about["libc"],
        prefix=Path(about["prefix"]),
        site_packages=Path(about["site_packages"]),
        tensorflow=TensorFlow(tensorflow["version"], Path(tensorflow["include"]), tensorflow["cuda"])
        if tensorflow
        else None,
        horovod=read_horovod(horovod) if horovod else None,
    )


def read_horovod(facts: Mapping[str, Any]) -> Horovod:
    """Reads the section "horovod" of an inventory; one that could not be imported has only an "error"."""
    known = {"version": "of unknown version", "folder": "", "tensorflow": None, **facts}
    return Horovod(**known)


def find_tools(target: Target, environ: Mapping[str, str]) -> Tools:
    """Looks for compilers and libraries: beside the interpreter, then on PATH, then in CUDA's places."""
    path = build_path(target, environ)

    def which(name: str) -> Optional[Path]:
        found = shutil.which(name, path=path)
        return Path(found) if found else None

    compiler = which(environ["CXX"].split()[0]) if environ.get("CXX") else which("c++") or which("g++")
    homes = [environ.get("HOROVOD_CUDA_HOME"), environ.get("CUDA_HOME"), "/usr/local/cuda"]
    cuda_homes = [Path(home) for home in homes if home]
    nvcc = next((home / "bin/nvcc" for home in cuda_homes if (home / "bin/nvcc").is_file()), which("nvcc"))
    return Tools(compiler, _find_mpi(path), nvcc, _find_nccl(environ, cuda_homes))


def build_path(target: Target, environ: Mapping[str, str]) -> str:
    """Gives the PATH of a build: the interpreter's own folder first, since a wheel's mpicxx lies there."""
    return os.pathsep.join([str(target.python.parent), environ.get("PATH", os.defpath)])


def find_wheel(recipe: Recipe, cache: Path) -> Optional[Path]:
    """Finds the wheel of a recipe in the cache."""
    return next(iter(sorted(_wheel_folder(recipe, cache).glob("horovod-*.whl"))), None)


def build_wheel(target: Target, recipe: Recipe, cache: Path, screen: Screen) -> Path:
    """Builds a wheel into the cache; about two minutes on two cores.

    Raises:
        HpcdlError: A step failed; its telling lines were shown, and the message names the log.
    """
    log = _new_log(cache, recipe.key)
    python = str(target.python)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(prefix="hpcdl-horovod-") as name:
        folder = Path(name)
        environ = _build_environ(target, recipe, folder)

        def run(title: str, argv: Sequence[str], cwd: Path = folder) -> None:
            run_logged(
                [*argv],
                title=title,
                log=log,
                screen=screen,
                environ=environ,
                cwd=cwd,
                read_progress=build_progress,
            )

        tools = ["install", "--target", str(folder / "tools"), *BUILD_REQUIREMENTS]
        run("fetching build tools", [*pip, *tools])
        options = ["--no-deps", "--no-build-isolation", "--no-binary", "horovod"]
        download = [*pip, "download", *options, f"horovod=={HOROVOD_VERSION}"]
        run(f"fetching Horovod {HOROVOD_VERSION}", download)
        sources = _unpack(folder / f"horovod-{HOROVOD_VERSION}.tar.gz", folder)
        _patch(recipe, sources)
        wheels = folder / "wheels"
        run(
            f"building Horovod {HOROVOD_VERSION} for TensorFlow {_tensorflow_version(target)}",
            [python, "setup.py", "--quiet", "bdist_wheel", *_FOR_ANY_PYTHON, "--dist-dir", str(wheels)],
            cwd=sources,
        )
        (wheel,) = wheels.glob("*.whl")
        return _keep(wheel, _wheel_folder(recipe, cache))


def install_wheel(target: Target, wheel: Path, cache: Path, screen: Screen) -> None:
    """Installs a wheel with pip, in place of the Horovod that is there.

    Raises:
        HpcdlError: pip failed; its telling lines were shown, and the message names the log.
    """
    log = _new_log(cache, f"install-{wheel.parent.name}")
    instead = ["--force-reinstall", "--no-deps"] if target.horovod else []
    argv = [str(target.python), "-m", "pip", "--disable-pip-version-check", "install", *instead, str(wheel)]
    run_logged(argv, title="installing Horovod", log=log, screen=screen)


def _inventory(python: Path, section: str) -> Dict[str, Any]:
    # The text is handed over, not the module's name: the interpreter may lack hpcdl, and may not be ours.
    source = Path(hpcdl.__file__).parent / "runtime" / "inventory.py"
    argv = [str(python), "-c", source.read_text(encoding="utf-8"), section]
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            argv,
            env=environ,
            cwd="/",  # with -c, Python looks for modules in the working folder first
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_INVENTORY_SECONDS,
            check=False,
        )
        answer = json.loads(done.stdout.decode(errors="replace").strip().splitlines()[-1])
        return dict(answer)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {section: {"error": str(error)}}
    except (ValueError, IndexError):
        ending = f"exit status {done.returncode}" if done.returncode >= 0 else f"signal {-done.returncode}"
        return {section: {"error": f"it ended with {ending} and no answer while asked for {section}"}}


def _find_mpi(path: str) -> Optional[Mpi]:
    compiler = shutil.which("mpicxx", path=path) or shutil.which("mpic++", path=path)
    if compiler is None:
        return None
    folder = Path(compiler).parent
    try:
        mpirun = find_mpirun(folder, lambda name: shutil.which(name, path=path), read_version)
    except BadInput:
        return Mpi("mpi", "", Path(compiler))  # another kind, or one that is started by srun only
    return Mpi(mpirun.kind, mpirun.version, Path(compiler))


def _find_nccl(environ: Mapping[str, str], cuda_homes: List[Path]) -> Optional[Nccl]:
    named = [environ.get(name) for name in ("HOROVOD_NCCL_HOME", "NCCL_HOME", "NCCL_ROOT", "NCCL_DIR")]
    homes = [Path(home) for home in named if home]
    for home in [*homes, *cuda_homes, Path("/usr"), Path("/usr/local")]:
        for folder in ("lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"):
            library = home / folder / "libnccl.so"
            if (home / "include" / "nccl.h").is_file() and library.is_file():
                return Nccl(home, library)
    return None


def _build_environ(target: Target, recipe: Recipe, folder: Path) -> Dict[str, str]:
    tools = folder / "tools"
    jobs = str(_num_jobs())
    return {
        **os.environ,
        **recipe.environ,
        "PATH": os.pathsep.join([str(tools / "bin"), build_path(target, os.environ)]),
        # Modules of a cluster may bring TensorFlow by PYTHONPATH: keep what is there.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tools), os.environ.get("PYTHONPATH")])),
        "CMAKE_GENERATOR": "Ninja",
        "CMAKE_BUILD_PARALLEL_LEVEL": jobs,
        "MAKEFLAGS": f"-j{jobs}",  # unless this is set, Horovod asks for 8 jobs
        "PIP_USER": "0",  # a site's pip may install for the user by default, which excludes --target
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _num_jobs() -> int:
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        return max(1, min(cores, available * 1024 // _BYTES_PER_JOB))
    return cores


def _unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder)
    return folder / archive.name[: -len(".tar.gz")]


def _patch(recipe: Recipe, sources: Path) -> None:
    texts = {name: (sources / name).read_text(encoding="utf-8") for name in PATCHED_FILES}
    for name, text in patch_sources(recipe.patches, texts).items():
        (sources / name).write_text(text, encoding="utf-8")


def _tensorflow_version(target: Target) -> str:
    return target.tensorflow.version if target.tensorflow else "?"


def _wheel_folder(recipe: Recipe, cache: Path) -> Path:
    return cache / "wheels" / recipe.key


def _new_log(cache: Path, name: str) -> Path:
    log = cache / "logs" / f"{name}.log"
    with _errors_named(log.parent):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
    return log


def _keep(wheel: Path, folder: Path) -> Path:
    """Puts a wheel into the cache under its name only when all of it is there."""
    with _errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            part = Path(shutil.copy(wheel, name))
            os.replace(part, folder / wheel.name)
    return folder / wheel.name


@contextlib.contextmanager
def _errors_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"cannot write {folder} ({error.strerror})"
        raise BadInput(
            f"{reason}; set HPCDL_CACHE to a folder that can be written, or free some room"
        ) from error
