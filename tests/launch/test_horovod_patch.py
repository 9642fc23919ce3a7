"""What is changed in Horovod's sources: only where TensorFlow's headers ask for it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional

import pytest

from hpcdl.common.errors import HpcdlError
from hpcdl.launch.horovod_patch import (
    PATCHED_FILES,
    Patches,
    missing_xla_headers,
    patch_sources,
    plan_patches,
)

LISTS, TENSORFLOW_LISTS, TENSORFLOW_OPS = PATCHED_FILES
SOURCES = {
    LISTS: "a\nproject(horovod CXX)\nb\n",
    TENSORFLOW_LISTS: 'a\nlist(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\nb\n',
    TENSORFLOW_OPS: (
        "#if HAVE_GPU\n"
        "GpuStreamHandle AsGpuStreamValue(Stream* stream);\n"
        "#if TENSORFLOW_VERSION >= 2011000000\n"
        "#endif // TENSORFLOW_VERSION >= 2011000000\n"
        "#endif // HAVE_GPU\n"
        "rest\n"
    ),
}
RPATH = 'set(CMAKE_BUILD_WITH_INSTALL_RPATH TRUE)\nset(CMAKE_INSTALL_RPATH "$ORIGIN/..")\n'


@pytest.mark.parametrize(
    ("patches", "expected"),
    [
        (Patches(), {}),
        (Patches(without_xla=True), {TENSORFLOW_LISTS: "a\nb\n"}),
        (Patches(rpath="$ORIGIN/.."), {LISTS: f"a\nproject(horovod CXX)\n{RPATH}b\n"}),
        (
            Patches(rpath="$ORIGIN/..", with_link_path=True),
            {LISTS: f"a\nproject(horovod CXX)\n{RPATH}set(CMAKE_INSTALL_RPATH_USE_LINK_PATH TRUE)\nb\n"},
        ),
    ],
)
def test_patches_change_their_line_and_nothing_else(patches: Patches, expected: Dict[str, str]) -> None:
    assert patch_sources(patches, SOURCES) == {**SOURCES, **expected}


def test_the_stream_function_is_declared_inline_and_defined_after_the_header_that_it_needs() -> None:
    text = patch_sources(Patches(stream_by_handle=True), SOURCES)[TENSORFLOW_OPS]
    assert "\ninline GpuStreamHandle AsGpuStreamValue(Stream* stream);\n" in text
    included, definition = (
        text.index("#endif // TENSORFLOW_VERSION"),
        text.index("platform_specific_handle()"),
    )
    assert included < definition < text.index("rest\n")
    assert text.count("#if") == text.count("#endif")


@pytest.mark.parametrize("patches", [Patches(True), Patches(rpath="x"), Patches(stream_by_handle=True)])
def test_a_source_without_the_line_to_change_is_refused(patches: Patches) -> None:
    with pytest.raises(HpcdlError, match="cannot patch Horovod: .* must have this line once"):
        patch_sources(patches, {name: "" for name in PATCHED_FILES})


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
    assert len(all_of_them.describe()) == 3
    assert Patches().describe() == []
