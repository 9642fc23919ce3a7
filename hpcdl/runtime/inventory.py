"""What a Python interpreter holds for distributed training: TensorFlow, Horovod, what each was built with.

It stands alone (no import of hpcdl), so that the launch side, which never loads TensorFlow, can hand its text
to any interpreter, also one in an image that has no hpcdl, and read the answer, one line of JSON.

Synopsis::

    python -m hpcdl.runtime.inventory python tensorflow horovod
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import platform
import re
import sys
import sysconfig
from importlib import metadata
from typing import Any, Callable, Dict, List, Optional


def describe_python() -> Dict[str, Any]:
    """Says which interpreter this is, and where it installs packages."""
    return {
        "version": platform.python_version(),
        "platform": sysconfig.get_platform(),
        "libc": "".join(platform.libc_ver()),
        "prefix": sys.prefix,
        "site_packages": sysconfig.get_path("platlib"),
    }


def describe_tensorflow() -> Optional[Dict[str, Any]]:
    """Says which TensorFlow is here and where its headers are; None if there is none."""
    if not _is_installed("tensorflow"):
        return None
    tensorflow = importlib.import_module("tensorflow")
    build = dict(tensorflow.sysconfig.get_build_info())
    return {
        "version": tensorflow.__version__,
        "include": tensorflow.sysconfig.get_include(),
        "cuda": str(build.get("cuda_version") or "unknown") if tensorflow.test.is_built_with_cuda() else None,
        "gpu_code": [str(one) for one in build.get("cuda_compute_capabilities") or ()],
    }


def describe_horovod() -> Optional[Dict[str, Any]]:
    """Says which Horovod is here and what it was built with; None if there is none.

    Its library is loaded for this, so one that was built for another TensorFlow fails here, and not in a run.
    """
    if not _is_installed("horovod"):
        return None
    horovod = importlib.import_module("horovod")
    answer: Dict[str, Any] = {
        "version": str(horovod.__version__),
        "folder": os.path.dirname(str(horovod.__file__)),
    }
    answer["tensorflow"] = built_for(answer["folder"])
    try:
        hvd = importlib.import_module("horovod.tensorflow")
    except Exception as error:
        return {**answer, "error": _one_line(error)}
    for name in ("mpi", "gloo", "nccl", "cuda"):
        answer[name] = bool(getattr(hvd, f"{name}_built")())
    return answer


def built_for(folder: str) -> Optional[str]:
    """Says for which TensorFlow the Horovod in a folder was built; None where that does not say it.

    Older releases write no such file: of them counts whether the library loads.
    """
    try:
        with open(os.path.join(folder, "metadata.json"), encoding="utf-8") as file:
            version: Optional[str] = json.load(file).get("tensorflow")
    except (OSError, ValueError):
        return None
    return version


def describe_keras() -> Optional[Dict[str, Any]]:
    """Says which Keras is here; None if there is none."""
    try:
        return {"version": metadata.version("keras")}
    except metadata.PackageNotFoundError:
        return None


def describe_mpi() -> Optional[Dict[str, Any]]:
    """Says which MPI library Horovod has loaded, by its own words; None if it has loaded none."""
    if not _is_installed("horovod"):
        return None
    importlib.import_module("horovod.tensorflow").mpi_built()
    library = _loaded(r"libmpi(?:_cray|ch)?\.so[.\d]*")
    if library is None:
        return None
    text, length = ctypes.create_string_buffer(8192), ctypes.c_int(0)
    ctypes.CDLL(library).MPI_Get_library_version(text, ctypes.byref(length))
    return {"library": library, "version": text.value.decode(errors="replace").split("\n")[0][:120]}


def describe_nccl() -> Optional[Dict[str, Any]]:
    """Says which NCCL Horovod sums with; None if it was built without."""
    if not _is_installed("horovod"):
        return None
    code = int(importlib.import_module("horovod.tensorflow").nccl_built())
    library = _loaded(r"libnccl\.so[.\d]*")
    if library is not None:  # it may be newer than the one that Horovod was built with
        found = ctypes.c_int(0)
        ctypes.CDLL(library).ncclGetVersion(ctypes.byref(found))
        code = found.value or code
    return {"library": library, "version": nccl_version(code)} if code else None


def nccl_version(code: int) -> str:
    """Writes NCCL's number of its version: 2708 is 2.7.8, 21803 is 2.18.3."""
    thousands = 10000 if code >= 10000 else 1000
    return f"{code // thousands}.{code % thousands // 100}.{code % 100}"


def describe_driver() -> Optional[Dict[str, Any]]:
    """Says which driver of NVIDIA's the kernel has loaded; None if it has none."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8", errors="replace") as file:
            line = file.readline()
    except OSError:
        return None
    found = re.search(r"\b(\d+(?:\.\d+)+)\b", line)
    return {"version": found.group(1) if found else line.strip()}


def _loaded(name: str) -> Optional[str]:
    """Finds a library that this process has loaded, by the pattern of its name."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        paths = re.findall(rf"(/\S*/{name})\s*$", file.read(), re.MULTILINE)
    return paths[0] if paths else None


def describe_strangers() -> List[str]:
    """Lists folders on the module path that are the user's own and hold a package that this Python has too."""
    home = os.path.realpath(os.path.expanduser("~/.local"))
    prefix = os.path.realpath(sys.prefix)
    own = [path for path in sys.path if os.path.realpath(path).startswith(prefix)]
    found = []
    for path in sys.path:
        real = os.path.realpath(path)
        if real.startswith(home + os.sep) and any(
            os.path.isdir(os.path.join(real, name)) and any(os.path.isdir(os.path.join(o, name)) for o in own)
            for name in _WATCHED
        ):
            found.append(real)
    return found


def _is_installed(name: str) -> bool:
    # A folder of that name without code in it (what a removed package can leave behind) is none.
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"


#: Packages of which another version on the path is trouble.
_WATCHED = ("tensorflow", "keras", "horovod", "numpy", "h5py", "google/protobuf", "absl")

SECTIONS: Dict[str, Callable[[], Any]] = {
    "python": describe_python,
    "tensorflow": describe_tensorflow,
    "horovod": describe_horovod,
    "keras": describe_keras,
    "mpi": describe_mpi,
    "nccl": describe_nccl,
    "driver": describe_driver,
    "strangers": describe_strangers,
}


def main() -> int:
    """Prints the sections named on the command line as one line of JSON."""
    answer: Dict[str, Any] = {}
    for name in sys.argv[1:]:
        try:
            answer[name] = SECTIONS[name]()
        except Exception as error:
            answer[name] = {"error": _one_line(error)}
    print("\n" + json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
