"""``hpcdl horovod install`` and ``hpcdl horovod check``: a Horovod that matches the TensorFlow that is here.

Horovod is published as source only, and its last release needs old build tools and, under new TensorFlows, a
patch. ``install`` builds it once per combination of versions and keeps the wheel in ``$HPCDL_CACHE/wheels``
(by default ``~/.cache/hpcdl/wheels``). A Horovod that works already, as in NVIDIA's images, is kept.

Synopsis::

    hpcdl horovod install --dry-run
    hpcdl horovod install
    hpcdl horovod check --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from hpcdl.common.cache import cache_folder
from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, HpcdlError
from hpcdl.common.options import OneLineParser
from hpcdl.common.releases import of_another_release
from hpcdl.common.saying import say
from hpcdl.launch.horovod_build import build_wheel, find_tools, find_wheel, install_wheel, read_target
from hpcdl.launch.horovod_recipe import (
    HOROVOD_VERSION,
    Horovod,
    Recipe,
    Target,
    TensorFlow,
    Tools,
    need_compiler,
    plan_recipe,
)
from hpcdl.launch.logged import Screen

_OF_INSTALL = """\
examples:
  hpcdl horovod install --dry-run     say what would be built, and how
  hpcdl horovod install               build (about 2 minutes on 2 cores), or take the wheel from the cache
  hpcdl horovod install --force       replace a Horovod that works, for example to add MPI
"""
_CHECK = "  hpcdl horovod check                 exit status 0: it matches this TensorFlow; 1: it does not\n"
_OF_CHECK = f"example:\n{_CHECK}"
_EXAMPLES = _OF_INSTALL + _CHECK


@dataclass(frozen=True)
class Verdict:
    """Whether Horovod can be used. ``problem`` and ``cure`` are empty where it can."""

    problem: str = ""
    cure: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it can be used."""
        return not self.problem


def judge(python: Path, tensorflow: Optional[TensorFlow], horovod: Optional[Horovod]) -> Verdict:
    """Decides whether a Horovod works with the TensorFlow beside it.

    It does if its library loads and both have the same release (2.15.0 and 2.15.1 are interchangeable).
    """
    cure = "hpcdl horovod install"
    if tensorflow is None:
        return Verdict(f"TensorFlow is missing in {python}", "pip install tensorflow (or tensorflow-cpu)")
    if horovod is None:
        return Verdict(f"Horovod is missing in {python}", cure)
    trouble = of_another_release(horovod.version, horovod.tensorflow, tensorflow.version)
    if trouble is not None:
        return Verdict(trouble, cure)
    if horovod.error:
        return Verdict(f"Horovod {horovod.version} does not load: {horovod.error}", cure)
    if not (horovod.mpi or horovod.gloo):
        return Verdict(f"Horovod {horovod.version} was built with neither MPI nor Gloo", f"{cure} --force")
    return Verdict()


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl horovod ...``.

    Args:
        argv: What stands after ``horovod``.

    Returns:
        The exit status.

    Raises:
        HpcdlError: Something cannot be done; the text says what and the way out.
    """
    options = _parser().parse_args(list(argv))
    target = read_target(options.python)
    if options.action == "check":
        return _check(target, as_json=options.json)
    return _install(target, options, Screen(sys.stderr), cache_folder(os.environ))


def render_check(target: Target, verdict: Verdict) -> str:
    """Writes what ``check`` found, for people."""
    rows = [("Python", str(target.python))]
    if target.tensorflow:
        cuda = f"CUDA {target.tensorflow.cuda}" if target.tensorflow.cuda else "CPU only"
        rows.append(("TensorFlow", f"{target.tensorflow.version} ({cuda})"))
    if target.horovod:
        rows.append(("Horovod", f"{target.horovod.version} in {target.horovod.folder}"))
        rows.append(("built for", f"TensorFlow {target.horovod.tensorflow or 'unknown'}"))
        if not target.horovod.error:
            rows.append(("built with", target.horovod.built_with))
    if verdict.is_good:
        rows.append(("verdict", "works with this TensorFlow"))
    return "\n".join(f"{name:<11} {value}" for name, value in rows)


def render_plan(recipe: Recipe, wheel: Optional[Path], compiler: Optional[Path]) -> str:
    """Writes what ``install --dry-run`` would do, for people."""
    rows: List[Tuple[str, str]] = [("wheel", recipe.key)]
    if wheel:
        rows.append(("source", f"the cache: {wheel}"))
    else:
        options = " ".join(f"{name}={value}" for name, value in sorted(recipe.environ.items()))
        rows.append(
            ("source", f"the source distribution of Horovod {HOROVOD_VERSION}, built with {compiler}")
        )
        rows.append(("options", options))
        rows.extend(("patch", line) for line in recipe.patches.describe())
    rows.extend(("note", note) for note in recipe.notes)
    return "\n".join(f"{name:<8} {value}" for name, value in rows)


def render_kept(horovod: Horovod, tools: Tools) -> str:
    """Writes that a Horovod is left as it is, and what another build would add."""
    text = f"Horovod {horovod.version}, built with {horovod.built_with}, works here already: kept"
    if tools.mpi and not horovod.mpi:
        return f"{text}; --force builds it with MPI too ({tools.mpi.name} {tools.mpi.version})"
    return f"{text} (--force builds another)"


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="hpcdl horovod",
        description="Install a Horovod that matches the TensorFlow that is here, or check the one that is.",
        epilog=_EXAMPLES,
    )
    common = OneLineParser(add_help=False)
    common.add_argument(
        "--python",
        metavar="PATH",
        type=_interpreter,
        default=Path(sys.executable),
        help="act on the interpreter PATH (default: the one that runs hpcdl)",
    )
    common.add_argument("--json", action="store_true", help="write one JSON object to stdout")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    install = actions.add_parser(
        "install", parents=[common], help="build and install, unless one works here", epilog=_OF_INSTALL
    )
    install.add_argument("--dry-run", action="store_true", help="say what would be done; change nothing")
    install.add_argument("--force", action="store_true", help="build anew and replace what is there")
    actions.add_parser(
        "check",
        parents=[common],
        help="say what it was built with, and whether it matches",
        epilog=_OF_CHECK,
    )
    return parser


def _interpreter(text: str) -> Path:
    # Not resolved: the link in a virtual environment is what makes Python use that environment.
    return Path(os.path.abspath(text))


def _check(target: Target, as_json: bool) -> int:
    verdict = judge(target.python, target.tensorflow, target.horovod)
    if as_json:
        print(json.dumps({"ok": verdict.is_good, **dataclasses.asdict(verdict), **_facts(target)}))
    else:
        print(render_check(target, verdict))
        if not verdict.is_good:
            say(f"{verdict.problem}; cure: {verdict.cure}")
    return EXIT_DONE if verdict.is_good else EXIT_FAILED


def _install(target: Target, options: argparse.Namespace, screen: Screen, cache: Path) -> int:
    horovod = target.horovod
    tools = find_tools(target, os.environ)
    if horovod and not options.force and judge(target.python, target.tensorflow, horovod).is_good:
        _answer(options.json, "kept", render_kept(horovod, tools), target)
        return EXIT_DONE
    recipe = plan_recipe(target, tools, os.environ)
    wheel = None if options.force else find_wheel(recipe, cache)
    if wheel is None:
        need_compiler(tools)
    if options.dry_run:
        action = "would install from the cache" if wheel else "would build"
        _answer(options.json, action, render_plan(recipe, wheel, tools.compiler), target, recipe)
        return EXIT_DONE
    for note in recipe.notes:
        screen.say(f"note: {note}")
    if wheel:
        screen.say(f"Horovod {HOROVOD_VERSION}: taking the wheel from the cache ({wheel.parent})")
    install_wheel(target, wheel or build_wheel(target, recipe, cache, screen), cache, screen)
    target = read_target(target.python)
    verdict = judge(target.python, target.tensorflow, target.horovod)
    if not verdict.is_good:
        raise HpcdlError(
            f"the Horovod just installed cannot be used: {verdict.problem}; build it anew with"
            f" `hpcdl horovod install --force`; the log: {cache / 'logs' / recipe.key}.log"
        )
    _answer(options.json, "installed", render_check(target, verdict), target, recipe)
    return EXIT_DONE


def _answer(as_json: bool, action: str, text: str, target: Target, recipe: Optional[Recipe] = None) -> None:
    if not as_json:
        print(text)
        return
    plan: Dict[str, Any] = {}
    if recipe:
        plan = {"wheel": recipe.key, "patches": recipe.patches.describe(), "notes": list(recipe.notes)}
    print(json.dumps({"action": action, **plan, **_facts(target)}))


def _facts(target: Target) -> Dict[str, Any]:
    facts: Dict[str, Any] = {"python": str(target.python), "tensorflow": None, "horovod": None}
    if target.tensorflow:
        facts["tensorflow"] = {"version": target.tensorflow.version, "cuda": target.tensorflow.cuda}
    if target.horovod:
        facts["horovod"] = dataclasses.asdict(target.horovod)
    return facts
