"""The synopsis of each module calls what is there: by these names, with these arguments.

What a synopsis takes from the user, such as a model, is not known here, and left alone.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
import typing
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import pytest

import hpcdl

ROOT = Path(__file__).resolve().parent.parent


def synopsis_of(source: str) -> str:
    """Cuts the synopsis out of a module's docstring; "" if it is none of Python."""
    text = f"{ast.get_docstring(ast.parse(source))}\n"
    found = re.search(r"^Synopsis[^\n]*::\n\n((?:(?:    [^\n]*)?\n)+)", text, re.MULTILINE)
    code = textwrap.dedent(found.group(1)) if found else ""
    is_shell = re.match(r"(srun|python3?|hpcdl) ", code)
    return "" if is_shell else re.sub(r"\.\.\.(?=\s*[)}])", "**more", code)


def problems(code: str, names: Dict[str, Any]) -> Iterator[str]:
    """Says what a synopsis calls otherwise than it is, or names though it is not there.

    Args:
        code: The synopsis.
        names: What its module knows.
    """
    tree = ast.parse(code)
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    names = {"hpcdl": hpcdl, **{name: value for name, value in names.items() if name not in own}}
    classes: Dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = _made_by(_found(node.value.func, names, {}))
            classes.update({t.id: made for t in node.targets if isinstance(t, ast.Name) and made})
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = classes.get(node.value.id)
            if owner is not None and not _has(owner, node.attr):
                yield f"{owner.__name__} has no {node.attr}"
        elif isinstance(node, ast.Call):
            called = _found(node.func, names, classes)
            if called is not None:
                yield from _misfit(called, node)


def _found(node: ast.expr, names: Dict[str, Any], classes: Dict[str, Any]) -> Optional[Any]:
    """Finds the function, class or method of hpcdl's that is called."""
    if isinstance(node, ast.Name):
        return _of_hpcdl(names.get(node.id))
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = classes.get(node.value.id, names.get(node.value.id))
        if owner is hpcdl or (inspect.isclass(owner) and _of_hpcdl(owner)):
            return _of_hpcdl(getattr(owner, node.attr, None))
    return None


def _of_hpcdl(value: Any) -> Optional[Any]:
    is_known = callable(value) and str(getattr(value, "__module__", "")).startswith("hpcdl")
    return value if is_known else None


def _made_by(called: Any) -> Optional[type]:
    """Gives the class of hpcdl's that a call gives an object of."""
    if inspect.isfunction(called):
        called = typing.get_type_hints(called).get("return")
        if typing.get_origin(called) is typing.Union:  # Optional
            called = typing.get_args(called)[0]
    return called if inspect.isclass(called) and _of_hpcdl(called) else None


def _has(kind: type, name: str) -> bool:
    is_set = any(
        f"self.{name}" in inspect.getsource(k) for k in kind.__mro__ if k.__module__.startswith("hpcdl")
    )
    return (
        hasattr(kind, name) or is_set or any(name in vars(k).get("__annotations__", {}) for k in kind.__mro__)
    )


def _misfit(called: Any, call: ast.Call) -> Iterator[str]:
    if inspect.isclass(called) and issubclass(called, BaseException):
        return  # which takes any arguments
    is_method = isinstance(call.func, ast.Attribute) and inspect.isfunction(called)
    needs_object = is_method and "self" in inspect.signature(called).parameters
    arguments = [None] * (needs_object + len(call.args))
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
    is_whole = len(keywords) == len(call.keywords) and not any(isinstance(a, ast.Starred) for a in call.args)
    signature = inspect.signature(called)
    try:
        (signature.bind if is_whole else signature.bind_partial)(*arguments, **keywords)
    except TypeError as problem:
        yield f"{ast.unparse(call) if hasattr(ast, 'unparse') else called.__name__}: {problem}"


def _modules() -> Iterator[str]:
    for folder in ("common", "launch", "runtime"):
        for path in sorted((ROOT / "hpcdl" / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if synopsis_of(path.read_text(encoding="utf-8")):
                yield name


@pytest.mark.parametrize("name", list(_modules()))
def test_a_synopsis_calls_what_is_there_as_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert list(problems(synopsis_of(inspect.getsource(module)), vars(module))) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("order = Order(num_samples=1, global_batch_size=1)", "missing a required argument: 'seed'"),
        ("order = Order(1, 1, 0)\norder.sort()", "Order has no sort"),
        ("order = Order(1, 1, 0)\norder.cut(rows)", "missing a required argument: 'step'"),
        ("run = hpcdl.init(sed=0)", "unexpected keyword argument 'sed'"),
        ("run = hpcdl.init()\nrun.fit(model, x, epoks=3)\nrun.shart()", "Run has no shart"),
    ],
)
def test_a_stale_synopsis_is_seen(code: str, said: str) -> None:
    from hpcdl.runtime.feed import Order

    (problem,) = problems(code, {"Order": Order})
    assert said in problem
