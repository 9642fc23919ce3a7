"""What is changed in Horovod's sources: only where TensorFlow's headers ask for it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

import pytest

from hpcdl.common.errors import HpcdlError
from hpcdl.launch.horovod_patch import (
    PATCHED_FILES,
    Patches,
    missing_xla_headers,
    patch_sources,
    plan_patches,
)

LISTS, TENSORFLOW_LISTS, TENSORFLOW_OPS, UTIL = PATCHED_FILES
DEBUG_FLAGS = (
    'string(REPLACE "{}" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${{CMAKE_CXX_FLAGS_RELWITHDEBINFO}}")\n'
)
LIBRARY = "add_library(${{TF_TARGET_LIB}} SHARED ${{{}}} ${{{}}})\n"
XLA_SOURCE = 'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n'
SUFFIX = "                OUTPUT_VARIABLE Python_SUFFIX OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)\n"
SUFFIX_OF_PYTHON = "    ext_suffix = sysconfig.get_config_var('EXT_SUFFIX')\n"
SOURCES = {
    LISTS: (
        "project(horovod CXX)\n"
        + DEBUG_FLAGS.format("-O2")
        + "    add_subdirectory(third_party/gloo)\n"
        + SUFFIX
    ),
    UTIL: SUFFIX_OF_PYTHON,
    TENSORFLOW_LISTS: XLA_SOURCE + LIBRARY.format("SOURCES", "TF_SOURCES"),
    TENSORFLOW_OPS: (
        "#if HAVE_GPU\n"
        "GpuStreamHandle AsGpuStreamValue(Stream* stream);\n"
        "#if TENSORFLOW_VERSION >= 2011000000\n"
        "#endif // TENSORFLOW_VERSION >= 2011000000\n"
        "#endif // HAVE_GPU\n"
        "rest\n"
    ),
}
#: What every build changes: no debug information, no copy of Gloo that nothing links, the longest file first, and a
#: library that is named for no Python.
ALWAYS = {
    LISTS: (
        "project(horovod CXX)\n"
        + DEBUG_FLAGS.format("-O2 -g")
        + "    add_subdirectory(third_party/gloo EXCLUDE_FROM_ALL)\n"
        + SUFFIX
        + 'set(Python_SUFFIX ".so")\n'
    ),
    UTIL: "    ext_suffix = '.so'\n",
    TENSORFLOW_LISTS: XLA_SOURCE + LIBRARY.format("TF_SOURCES", "SOURCES"),
    TENSORFLOW_OPS: SOURCES[TENSORFLOW_OPS],
}
PROJECT = "project(horovod CXX)\n"
RPATH = 'set(CMAKE_BUILD_WITH_INSTALL_RPATH TRUE)\nset(CMAKE_INSTALL_RPATH "$ORIGIN/..")\n'
LINK_PATH = "set(CMAKE_INSTALL_RPATH_USE_LINK_PATH TRUE)\n"


@pytest.mark.parametrize(
    ("patches", "name", "old", "new"),
    [
        (Patches(), LISTS, "", ""),
        (Patches(without_xla=True), TENSORFLOW_LISTS, XLA_SOURCE, ""),
        (Patches(rpath="$ORIGIN/.."), LISTS, PROJECT, PROJECT + RPATH),
        (Patches(rpath="$ORIGIN/..", with_link_path=True), LISTS, PROJECT, PROJECT + RPATH + LINK_PATH),
    ],
)
def test_patches_change_their_line_and_nothing_else(patches: Patches, name: str, old: str, new: str) -> None:
    assert patch_sources(patches, SOURCES) == {**ALWAYS, name: ALWAYS[name].replace(old, new)}


def test_the_stream_function_is_declared_inline_and_defined_after_the_header_that_it_needs() -> None:
    text = patch_sources(Patches(stream_by_handle=True), SOURCES)[TENSORFLOW_OPS]
    assert "\ninline GpuStreamHandle AsGpuStreamValue(Stream* stream);\n" in text
    included, definition = (
        text.index("#endif // TENSORFLOW_VERSION"),
        text.index("platform_specific_handle()"),
    )
    assert included < definition < text.index("rest\n")
    assert text.count("#if") == text.count("#endif")


@pytest.mark.parametrize(
    ("patches", "name", "line"),
    [
        (Patches(), LISTS, "    add_subdirectory(third_party/gloo)\n"),
        (Patches(True), TENSORFLOW_LISTS, XLA_SOURCE),
        (Patches(rpath="x"), LISTS, PROJECT),
        (
            Patches(stream_by_handle=True),
            TENSORFLOW_OPS,
            "GpuStreamHandle AsGpuStreamValue(Stream* stream);\n",
        ),
    ],
)
def test_a_source_without_the_line_to_change_is_refused(patches: Patches, name: str, line: str) -> None:
    lacking = {**SOURCES, name: SOURCES[name].replace(line, "")}
    with pytest.raises(HpcdlError, match=f"cannot patch Horovod: {re.escape(name)} must have this line once"):
        patch_sources(patches, lacking)


def test_xla_operations_are_left_out_exactly_if_a_header_is_missing(tmp_path: Path) -> None:
    headers = missing_xla_headers(tmp_path)
    assert headers
    for header in headers:
        (tmp_path / header).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / header).touch()
    assert not plan_patches(tmp_path, None, for_gpu=False).without_xla
    (tmp_path / headers[0]).unlink()
    assert plan_patches(tmp_path, None, for_gpu=False).without_xla


@pytest.mark.parametrize(
    ("header", "for_gpu", "by_handle"),
    [
        ("PlatformSpecificHandle platform_specific_handle() const;", True, True),
        ("PlatformSpecificHandle platform_specific_handle() const;", False, False),
        ("class Stream {};", True, False),
        (None, True, False),
    ],
)
def test_streams_are_asked_by_handle_where_gpus_are_built_for_and_it_exists(
    header: Optional[str], for_gpu: bool, by_handle: bool, tmp_path: Path
) -> None:
    path = tmp_path / "tensorflow/compiler/xla/stream_executor/stream.h"
    path.parent.mkdir(parents=True)
    if header is not None:
        path.write_text(header)
    assert plan_patches(tmp_path, None, for_gpu).stream_by_handle is by_handle


def test_every_change_is_described() -> None:
    all_of_them = Patches(without_xla=True, rpath="$ORIGIN/..", stream_by_handle=True)
    assert len(all_of_them.describe()) == 5
    assert len(Patches().describe()) == 2
