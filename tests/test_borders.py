"""The borders between hpcdl's folders: who may import whom, read from the source, so that no path escapes.

Imports inside functions count too: a lazy import crosses a border as well as any other.
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Mapping, Optional, Set

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hpcdl"

#: Folder -> what its modules may import besides the standard library and themselves.
MAY_IMPORT: Mapping[str, FrozenSet[str]] = {
    "common": frozenset(),
    "runtime": frozenset({"hpcdl", "hpcdl.common", "tensorflow", "keras", "horovod", "numpy"}),
    "launch": frozenset(
        # tomllib is the standard library's, but from Python 3.11 on only.
        {"hpcdl", "hpcdl.common", "submitit", "numpy", "matplotlib", "mpi4py", "tomli", "tomllib"}
    ),
}
HEAVY = ("tensorflow", "keras", "numpy", "horovod", "submitit", "matplotlib", "mpi4py")


def imports_of(source: str, module: str = "", is_package: bool = False) -> Set[str]:
    """Lists what a module imports, by full name; ``from a import b`` gives both ``a`` and ``a.b``."""
    found: Set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found.add(name)
            found.update(f"{name}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_module(node.func) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                found.add(name.value)
    return found


def trespasses(folder: str, imported: Set[str]) -> Set[str]:
    """Picks the imports that a module of a folder may not make."""
    own = f"hpcdl.{folder}"
    return {
        name
        for name in imported
        if not (
            _is_stdlib(name.split(".")[0])
            or any(_is_within(name, allowed) for allowed in {own, *MAY_IMPORT[folder]} - {"hpcdl"})
            or (name == "hpcdl" or (name.startswith("hpcdl.__")))
            and "hpcdl" in MAY_IMPORT[folder]
        )
    }


def find_cycle(graph: Mapping[str, Set[str]]) -> Optional[List[str]]:
    """Finds modules that import each other in a circle; None if there are none."""
    done: Set[str] = set()

    def visit(module: str, path: List[str]) -> Optional[List[str]]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for other in sorted(graph.get(module, ())):
            cycle = visit(other, [*path, module])
            if cycle:
                return cycle
        done.add(module)
        return None

    return next(filter(None, (visit(module, []) for module in sorted(graph))), None)


def test_each_folder_imports_only_what_its_border_allows() -> None:
    wrong = {
        module: sorted(bad)
        for module, imported in _imports().items()
        for bad in [trespasses(module.split(".")[1], imported)]
        if bad
    }
    assert wrong == {}


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = _imports()
    graph = {
        module: {name for name in names if name in imports} - {module} for module, names in imports.items()
    }
    assert find_cycle(graph) is None


@pytest.mark.parametrize("statement", ["import hpcdl", "import hpcdl.launch.cli, hpcdl.common.errors"])
def test_importing_the_face_or_the_command_loads_nothing_heavy(statement: str) -> None:
    code = f"{statement}, sys; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("common", "import numpy"),
        ("common", "from hpcdl.runtime import training"),
        ("common", "import hpcdl"),
        ("runtime", "import hpcdl.launch.local"),
        ("runtime", "from .. import launch"),
        ("runtime", "import submitit"),
        ("launch", "def late():\n    import tensorflow as tf"),
        ("launch", "import importlib\nimportlib.import_module('tensorflow')"),
        ("launch", "from hpcdl import runtime"),
    ],
)
def test_a_trespass_is_seen(folder: str, source: str) -> None:
    assert trespasses(folder, imports_of(source, f"hpcdl.{folder}.module"))


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        (
            "common",
            "from __future__ import annotations\nimport os.path\nfrom hpcdl.common.errors import BadInput",
        ),
        ("runtime", "import tensorflow as tf\nfrom hpcdl.common import errors\nfrom . import idx"),
        ("launch", "import hpcdl\nimport numpy as np\nfrom hpcdl import __version__"),
    ],
)
def test_what_is_allowed_is_no_trespass(folder: str, source: str) -> None:
    assert trespasses(folder, imports_of(source, f"hpcdl.{folder}.module")) == set()


def test_a_circle_is_seen() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def _imports() -> Dict[str, Set[str]]:
    found = {}
    for folder in MAY_IMPORT:
        for path in _modules(PACKAGE / folder):
            parts = path.relative_to(ROOT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            found[module] = imports_of(path.read_text(encoding="utf-8"), module, is_package)
    assert len(found) > 3, "the source of hpcdl was not found"
    return found


def _modules(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts)


def _is_import_module(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _is_stdlib(name: str) -> bool:
    # sys.stdlib_module_names is there from Python 3.10 on only.
    if name in sys.builtin_module_names or name == "__future__":
        return True
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    origin = Path(spec.origin) if spec and spec.origin and spec.origin != "frozen" else None
    if origin is None:
        return spec is not None and spec.origin == "frozen"
    library = Path(sysconfig.get_path("stdlib")).resolve()
    origin = origin.resolve()
    return library in origin.parents and not {"site-packages", "dist-packages"} & set(origin.parts)
