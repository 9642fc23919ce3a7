"""What is changed in Horovod's source distribution before it is built, when, and why: text in, text out.

Horovod's last release is older than the TensorFlows that it is built for here. Whether a change is needed is seen
from TensorFlow's headers, not from its version.

Synopsis::

    patches = plan_patches(tensorflow_include, rpath="$ORIGIN/../../../..", for_gpu=False)
    changed = patch_sources(patches, {name: (sources / name).read_text() for name in PATCHED_FILES})
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from hpcdl.common.errors import HpcdlError

_LISTS = "CMakeLists.txt"
_TENSORFLOW_LISTS = "horovod/tensorflow/CMakeLists.txt"
_TENSORFLOW_OPS = "horovod/tensorflow/mpi_ops.cc"
_UTIL = "horovod/common/util.py"
PATCHED_FILES = (_LISTS, _TENSORFLOW_LISTS, _TENSORFLOW_OPS, _UTIL)

#: What horovod/tensorflow/xla_mpi_ops.cc includes of TensorFlow's compiler; later TensorFlows leave some out.
_XLA_HEADERS = (
    "tensorflow/compiler/tf2xla/xla_op_kernel.h",
    "tensorflow/compiler/tf2xla/xla_op_registry.h",
    "tensorflow/compiler/xla/client/xla_builder.h",
    "tensorflow/compiler/xla/service/custom_call_target_registry.h",
    "tensorflow/compiler/xla/service/hlo.pb.h",
    "tensorflow/compiler/xla/shape.h",
    "tensorflow/compiler/xla/xla_data.pb.h",
)
_XLA_SOURCE = 'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n'
_PROJECT = "project(horovod CXX)\n"
_SUFFIX = "                OUTPUT_VARIABLE Python_SUFFIX OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)\n"
#: (file, line, what it becomes): changes of every build, which halve its time and cost nothing.
_ALWAYS = (
    # The library calls nothing of Python's: without a Python's name it serves them all.
    (_LISTS, _SUFFIX, _SUFFIX + 'set(Python_SUFFIX ".so")\n'),
    (_UTIL, "    ext_suffix = sysconfig.get_config_var('EXT_SUFFIX')\n", "    ext_suffix = '.so'\n"),
    # Debug information makes the library 25 times as large.
    (
        _LISTS,
        'string(REPLACE "-O2" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")\n',
        'string(REPLACE "-O2 -g" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")\n',
    ),
    # Where TensorFlow needs C++17, Gloo is compiled a second time for it, and only that is linked.
    (
        _LISTS,
        "    add_subdirectory(third_party/gloo)\n",
        "    add_subdirectory(third_party/gloo EXCLUDE_FROM_ALL)\n",
    ),
    # The longest file first, so that it is not compiled alone at the end.
    (
        _TENSORFLOW_LISTS,
        "add_library(${TF_TARGET_LIB} SHARED ${SOURCES} ${TF_SOURCES})\n",
        "add_library(${TF_TARGET_LIB} SHARED ${TF_SOURCES} ${SOURCES})\n",
    ),
)
_STREAM_HEADER = "tensorflow/compiler/xla/stream_executor/stream.h"
_STREAM_DECLARATION = "GpuStreamHandle AsGpuStreamValue(Stream* stream);\n"
_STREAM_INCLUDED = "#endif // TENSORFLOW_VERSION >= 2011000000\n#endif // HAVE_GPU\n"
_STREAM_DEFINITION = """\
#if HAVE_GPU
namespace stream_executor {
namespace gpu {
inline GpuStreamHandle AsGpuStreamValue(Stream* stream) {
  return reinterpret_cast<GpuStreamHandle>(stream->platform_specific_handle().stream);
}
} // namespace gpu
} // namespace stream_executor
#endif // HAVE_GPU
"""


@dataclass(frozen=True)
class Patches:
    """The changes that one build needs.

    Attributes:
        without_xla: Leave the XLA operations out. They need headers that newer TensorFlows do not ship;
            allreduce inside XLA is opt-in in Horovod, and hpcdl does not use it.
        rpath: Where the library finds the MPI of its own environment, relative to itself, so that a cached wheel
            serves environments in other folders. None leaves it to CMake, which writes absolute folders.
        with_link_path: After ``rpath``, look where CUDA and NCCL were linked: they lie elsewhere.
        stream_by_handle: Ask TensorFlow's stream for CUDA's by its handle. The function that Horovod calls for
            this is gone from newer TensorFlows, which would be seen only when the library is loaded.
    """

    without_xla: bool = False
    rpath: Optional[str] = None
    with_link_path: bool = False
    stream_by_handle: bool = False

    def describe(self) -> List[str]:
        """Says each change in a line, for people."""
        lines = [
            "debug information, and a copy of Gloo that nothing links, left out: half the time",
            "the library is named for no Python: one wheel serves them all",
        ]
        if self.without_xla:
            lines.append("XLA operations left out: this TensorFlow ships no headers for them")
        if self.rpath is not None:
            lines.append(f"MPI is looked for in {self.rpath}, so that the wheel can move")
        if self.stream_by_handle:
            lines.append("CUDA streams are asked for by their handle, as this TensorFlow offers them")
        return lines


def plan_patches(include: Path, rpath: Optional[str], for_gpu: bool) -> Patches:
    """Decides what must be changed.

    Args:
        include: TensorFlow's folder of headers.
        rpath: See `Patches`.
        for_gpu: Whether operations on GPUs are built.
    """
    return Patches(
        without_xla=bool(missing_xla_headers(include)),
        rpath=rpath,
        with_link_path=for_gpu and rpath is not None,
        stream_by_handle=for_gpu and _has_stream_handle(include),
    )


def missing_xla_headers(include: Path) -> Tuple[str, ...]:
    """Lists the headers of Horovod's XLA operations that are not in TensorFlow's folder of headers."""
    return tuple(header for header in _XLA_HEADERS if not (include / header).is_file())


def patch_sources(patches: Patches, sources: Mapping[str, str]) -> Dict[str, str]:
    """Changes Horovod's sources.

    Args:
        patches: What to change.
        sources: Text of each of PATCHED_FILES by its path.

    Returns:
        The new text of all of them.

    Raises:
        HpcdlError: A line that is to be changed is not there.
    """
    changed = dict(sources)
    for name, old, new in _ALWAYS:
        _replace(changed, name, old, new)
    if patches.without_xla:
        _replace(changed, _TENSORFLOW_LISTS, _XLA_SOURCE, "")
    if patches.rpath is not None:
        lines = f'set(CMAKE_BUILD_WITH_INSTALL_RPATH TRUE)\nset(CMAKE_INSTALL_RPATH "{patches.rpath}")\n'
        if patches.with_link_path:
            lines += "set(CMAKE_INSTALL_RPATH_USE_LINK_PATH TRUE)\n"
        _replace(changed, _LISTS, _PROJECT, _PROJECT + lines)
    if patches.stream_by_handle:
        _replace(changed, _TENSORFLOW_OPS, _STREAM_DECLARATION, "inline " + _STREAM_DECLARATION)
        _replace(changed, _TENSORFLOW_OPS, _STREAM_INCLUDED, _STREAM_INCLUDED + _STREAM_DEFINITION)
    return changed


def _has_stream_handle(include: Path) -> bool:
    header = include / _STREAM_HEADER
    return header.is_file() and "platform_specific_handle" in header.read_text(encoding="utf-8")


def _replace(sources: Dict[str, str], name: str, old: str, new: str) -> None:
    if sources[name].count(old) != 1:
        raise HpcdlError(f"cannot patch Horovod: {name} must have this line once: {old.splitlines()[0]!r}")
    sources[name] = sources[name].replace(old, new)
