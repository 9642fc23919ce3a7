"""The command ``hpcdl site``: show what is known of centres, ask a cluster, compare the two.

Synopsis::

    sys.exit(main(["show", "bridges2"]))
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, BadInput
from hpcdl.common.options import OneLineParser
from hpcdl.launch.sites.library import config_dir, guess_site, load_profile, own_path, site_names
from hpcdl.launch.sites.live import ask_cluster, differences, profile_text
from hpcdl.launch.sites.profile import Container, Gpu, Profile, Queue, Site, Source, leaves

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
    if options.action == "init":
        print(_init(options.name, config, options.force))
        return EXIT_DONE
    facts: Any
    if options.action == "list":
        facts = list_facts(config)
        lines = list_lines(facts)
    elif options.action == "show":
        facts = show_facts(load_profile(options.name, config))
        lines = show_lines(facts)
    else:
        profile = load_profile(options.name, config)
        facts = [one._asdict() for one in differences(profile.site, ask_cluster())]
        lines = [
            f"differs  {one['path']:<32} profile {one['profile']}, cluster {one['cluster']}" for one in facts
        ]
        lines = lines or [f"{profile.name}: what this cluster can tell is as in the profile"]
    print(json.dumps(facts, indent=2) if options.json else "\n".join(lines))
    return EXIT_FAILED if options.action == "verify" and facts else EXIT_DONE


def list_facts(config: Path) -> List[Dict[str, Any]]:
    """Says what is known of each site."""
    here = guess_site(socket.gethostname(), os.environ, config)
    return [
        {
            "name": name,
            "title": profile.site.title,
            "num_values": len(profile.sources),
            "num_not_confirmed": sum(one.status != "confirmed" for one in profile.sources.values()),
            "is_here": name == here,
        }
        for name in site_names(config)
        for profile in [load_profile(name, config)]
    ]


def list_lines(sites: Sequence[Mapping[str, Any]]) -> List[str]:
    """Writes a line for each site."""
    return [
        f"{one['name']:<16} {one['title']}  ({one['num_values']} values, {one['num_not_confirmed']} not confirmed"
        f"{', here' if one['is_here'] else ''})"
        for one in sites
    ]


def show_facts(profile: Profile) -> Dict[str, Any]:
    """Says of a profile what is known, with source and date, and what is not."""
    site = profile.site
    parts = [("", Site, site), ("container.", Container, site.container)]
    parts += [(f"gpus.{name}.", Gpu, gpu) for name, gpu in site.gpus.items()]
    parts += [(f"queues.{name}.", Queue, queue) for name, queue in site.queues.items()]
    paths = {prefix + field.name: (part, field.name) for prefix, cls, part in parts for field in leaves(cls)}
    return {
        "name": profile.name,
        "title": site.title,
        "origin": profile.origin,
        "values": {
            path: {"value": getattr(part, name), "source": dataclasses.asdict(profile.sources[path])}
            for path, (part, name) in paths.items()
            if path in profile.sources
        },
        "unknown": [path for path in paths if path not in profile.sources],
    }


def show_lines(facts: Mapping[str, Any]) -> List[str]:
    """Writes a profile: a line for each value, and what is unknown."""
    return [
        f"{facts['name']}: {facts['title']}",
        f"from {facts['origin']}",
        "",
        *(
            f"{path:<32} {_text(one['value']):<28} {Source(**one['source']).describe()}"
            for path, one in facts["values"].items()
        ),
        "",
        "unknown, asked for where needed: " + ", ".join(facts["unknown"]),
    ]


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
        else:
            action.add_argument("--json", action="store_true", help="print JSON")
    return parser
