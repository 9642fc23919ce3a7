"""The command ``hpcdl site``: show what is known of centres, ask a cluster, compare the two.

Synopsis::

    sys.exit(main(["show", "bridges2"]))
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import time
from pathlib import Path
from typing import Any, List, Sequence

from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, BadInput
from hpcdl.common.options import OneLineParser
from hpcdl.launch.sites.library import config_dir, guess_site, load_profile, own_path, site_names
from hpcdl.launch.sites.live import ask_cluster, differences, profile_text
from hpcdl.launch.sites.profile import Container, Gpu, Profile, Queue, Site, leaves

_EPILOG = """\
examples:
  hpcdl site list                  which centres are known, and which one this is
  hpcdl site show bridges2         each value with its source; what is unknown
  hpcdl site init mycluster        ask this cluster and write ~/.config/hpcdl/sites/mycluster.toml
  hpcdl site verify bridges2       compare a profile with this cluster"""


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl site ARGV``.

    Returns:
        The exit status: 1 where ``verify`` finds a difference.

    Raises:
        BadInput: A site is unknown, a profile wrong, or there is no cluster to ask.
    """
    options = _parser().parse_args(list(argv))
    config = config_dir(os.environ)
    if options.action == "list":
        print("\n".join(list_lines(config)))
    elif options.action == "show":
        print("\n".join(show_lines(load_profile(options.name, config))))
    elif options.action == "init":
        print(_init(options.name, config, options.force))
    else:
        return _verify(load_profile(options.name, config))
    return EXIT_DONE


def list_lines(config: Path) -> List[str]:
    """Writes a line for each site."""
    here = guess_site(socket.gethostname(), os.environ, config)
    lines = []
    for name in site_names(config):
        profile = load_profile(name, config)
        doubtful = sum(source.status != "confirmed" for source in profile.sources.values())
        marks = f"{len(profile.sources)} values, {doubtful} not confirmed" + (
            ", here" if name == here else ""
        )
        lines.append(f"{name:<16} {profile.site.title}  ({marks})")
    return lines


def show_lines(profile: Profile) -> List[str]:
    """Writes a profile: what is known, with source and date, and what is not."""
    site = profile.site
    parts = [("", Site, site), ("container.", Container, site.container)]
    parts += [(f"gpus.{name}.", Gpu, gpu) for name, gpu in site.gpus.items()]
    parts += [(f"queues.{name}.", Queue, queue) for name, queue in site.queues.items()]
    lines, unknown = [f"{profile.name}: {site.title}", f"from {profile.origin}", ""], []
    for prefix, cls, part in parts:
        for field in leaves(cls):
            path = prefix + field.name
            if path in profile.sources:
                value = _text(getattr(part, field.name))
                lines.append(f"{path:<32} {value:<28} {profile.sources[path].describe()}")
            else:
                unknown.append(path)
    return [*lines, "", "unknown, asked for where needed: " + ", ".join(unknown)]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, dict):
        return " ".join(f"{name}={one}" for name, one in value.items())
    return str(value)


def _init(name: str, config: Path, force: bool) -> str:
    if re.fullmatch(r"[\w.-]+", name) is None:
        raise BadInput(
            f"the name of a site must be letters, digits, - and _; received {name!r}; e.g. mycluster"
        )
    path = own_path(name, config)
    if path.exists() and not force:
        raise BadInput(f"the profile must not be there yet; received {path}; pass --force to replace it")
    cluster = ask_cluster()
    date = time.strftime("%Y-%m-%d", time.gmtime())
    text = profile_text(cluster, f"Slurm cluster {cluster.name}", socket.gethostname(), date)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return f"{path}: {len(cluster.partitions)} partitions; see hpcdl site show {name}"


def _verify(profile: Profile) -> int:
    found = differences(profile.site, ask_cluster())
    for one in found:
        print(f"differs  {one.path:<32} profile {one.profile}, cluster {one.cluster}")
    if not found:
        print(f"{profile.name}: what this cluster can tell is as in the profile")
    return EXIT_FAILED if found else EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="hpcdl site",
        description="Show what is known of computing centres; ask a cluster for the rest.",
        epilog=_EPILOG,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help, example in (
        ("list", "list the sites", "list"),
        ("show", "show each value with its source", "show bridges2"),
        ("init", "ask this cluster and write a profile of your own", "init mycluster"),
        ("verify", "compare a profile with this cluster", "verify bridges2"),
    ):
        action = actions.add_parser(name, help=help, epilog=f"example: hpcdl site {example}")
        if name != "list":
            action.add_argument("name", metavar="NAME", help="name of the site")
        if name == "init":
            action.add_argument("--force", action="store_true", help="replace a profile that is there")
    return parser
