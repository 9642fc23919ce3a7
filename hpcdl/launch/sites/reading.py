"""Makes a site's profile of TOML files, and holds them to what a profile is made of.

In a file every value stands beside the name of its source, and every source has a date and a status::

    title = "An example"
    scheduler = ["slurm", "guide"]

    [sources.guide]
    what = "the centre's user guide"
    date = "2026-11"
    status = "confirmed"

    [queues.gpu]
    partition = ["gpu", "guide"]
    max_min = [2880, "guide"]

A user's own file may leave the sources out: its values are then the user's.

Synopsis::

    profile = parse_profile("example", [Layer(read_toml(path), str(path))])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from hpcdl.common.checks import did_you_mean
from hpcdl.common.errors import BadInput
from hpcdl.launch.sites.profile import (
    CONTAINER_KINDS,
    GPU_REQUESTS,
    SCHEDULERS,
    STATUSES,
    Container,
    Gpu,
    Profile,
    Queue,
    Site,
    Source,
    leaves,
)


@dataclass(frozen=True)
class Layer:
    """A TOML file's content; a later layer's values replace an earlier one's.

    Attributes:
        tree: The content.
        origin: The file, for messages.
        own: The source of values that stand alone; None: every value must name one.
    """

    tree: Mapping[str, Any]
    origin: str
    own: Optional[Source] = None


def parse_profile(name: str, layers: Sequence[Layer]) -> Profile:
    """Checks what TOML files hold and makes a profile of it.

    Args:
        name: The site's name.
        layers: The shipped file, the user's own file, or both.

    Raises:
        BadInput: A key is unknown, a value has the wrong type, or a source is missing.
    """
    values: Dict[str, Any] = {"title": name}
    sources: Dict[str, Source] = {}
    for layer in layers:
        reader = _Reader(layer.origin, _read_sources(layer.tree.get("sources", {}), layer.origin), layer.own)
        title = layer.tree.get("title", values["title"])
        if not isinstance(title, str):
            raise BadInput(
                f"title in {layer.origin} must be text; received {title!r}; write e.g. title = 'My cluster'"
            )
        rest = {key: value for key, value in layer.tree.items() if key not in ("title", "sources")}
        _merge(values, {**reader.table(Site, rest, ""), "title": title})
        sources.update(reader.seen)
    origin = " + ".join(layer.origin for layer in layers)
    site = Site(
        **{
            **values,
            "container": Container(**values.get("container", {})),
            "gpus": {key: Gpu(**table) for key, table in values.get("gpus", {}).items()},
            "queues": {key: Queue(**table) for key, table in values.get("queues", {}).items()},
        }
    )
    _check_names(site, origin)
    return Profile(name, origin, site, sources)


def _merge(values: Dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, _Table):
            _merge(values.setdefault(key, _Table()), value)
        else:
            values[key] = value


_TABLES: Mapping[str, Any] = {"container": Container}
_NAMED_TABLES: Mapping[str, Any] = {"gpus": Gpu, "queues": Queue}


class _Table(Dict[str, Any]):
    """A table of the profile, other than a table that is one value (such as `Site.environ`)."""


class _Reader:
    """Reads tables of a profile and notes where each value is from."""

    def __init__(self, origin: str, sources: Mapping[str, Source], own: Optional[Source]) -> None:
        self._origin = origin
        self._sources = sources
        self._own = own
        self.seen: Dict[str, Source] = {}

    def table(self, cls: Any, tree: Any, path: str) -> _Table:
        if not isinstance(tree, Mapping):
            raise BadInput(f"{path} in {self._origin} must be a table; received {tree!r}; write [{path}]")
        fields = {field.name: field for field in leaves(cls)}
        values = _Table()
        for key, raw in tree.items():
            inner = f"{path}.{key}" if path else key
            if key in fields:
                values[key] = self._leaf(fields[key].metadata["kind"], raw, inner)
            elif cls is Site and key in _TABLES:
                values[key] = self.table(_TABLES[key], raw, inner)
            elif cls is Site and key in _NAMED_TABLES and isinstance(raw, Mapping):
                values[key] = _Table()
                for one, part in raw.items():
                    values[key][one] = self.table(_NAMED_TABLES[key], part, f"{inner}.{one}")
            else:
                known = [*fields, *(_TABLES if cls is Site else ()), *(_NAMED_TABLES if cls is Site else ())]
                hint = did_you_mean(key, known)
                raise BadInput(f"unknown key {inner} in {self._origin}; {hint}keys: {', '.join(known)}")
        return values

    def _leaf(self, kind: str, raw: Any, path: str) -> Any:
        value, source = raw, self._own
        # [value, source]; a list of texts is a pair only if its first part is a list itself.
        if isinstance(raw, list) and len(raw) == 2 and (kind != "texts" or isinstance(raw[0], list)):
            value = raw[0]
            source = self._sources.get(raw[1]) if isinstance(raw[1], str) else None
            if source is None:
                names = ", ".join(self._sources) or "none"
                raise BadInput(f"{path} in {self._origin} names the source {raw[1]!r}; sources: {names}")
        if source is None:
            raise BadInput(
                f"{path} in {self._origin} must name its source; received {raw!r}; write [value, 'x']"
            )
        is_kind, example = _KINDS[kind]
        if not is_kind(value):
            raise BadInput(
                f"{path} in {self._origin} must be {kind}; received {value!r}; write e.g. {example}"
            )
        self.seen[path] = source
        return tuple(value) if kind == "texts" else dict(value) if kind == "table" else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(one, str) for one in value.values())


_KINDS: Mapping[str, Tuple[Callable[[Any], bool], str]] = {
    "text": (lambda value: isinstance(value, str) and value != "", '"text"'),
    "whole": (_is_whole, "4"),
    "number": (lambda value: _is_whole(value) or (isinstance(value, float) and value >= 0), "1.5"),
    "yes or no": (lambda value: isinstance(value, bool), "true"),
    "texts": (_is_texts, '["a", "b"]'),
    "table": (_is_table, '{ NAME = "value" }'),
}


def _read_sources(tree: Any, origin: str) -> Dict[str, Source]:
    found = {}
    for name, table in tree.items() if isinstance(tree, Mapping) else ():
        keys = {"what", "date", "status"}
        if not isinstance(table, Mapping) or set(table) != keys or table["status"] not in STATUSES:
            raise BadInput(
                f"sources.{name} in {origin} must have what, date and status ({' or '.join(STATUSES)});"
                f" received {table!r}; fill them in"
            )
        found[name] = Source(str(table["what"]), str(table["date"]), table["status"])
    return found


def _check_names(site: Site, origin: str) -> None:
    """Holds values that name something to what there is."""
    choices = [
        ("scheduler", site.scheduler, SCHEDULERS),
        ("gpu_request", site.gpu_request, GPU_REQUESTS),
        ("container.kind", site.container.kind, CONTAINER_KINDS),
        ("charge_per", site.charge_per, ("gpu-hour", "node-hour")),
        ("default_queue", site.default_queue, tuple(site.queues)),
        *(
            (f"queues.{name}.gpus", gpu, tuple(site.gpus))
            for name, q in site.queues.items()
            for gpu in q.gpus
        ),
    ]
    for path, value, names in choices:
        if value is not None and value not in names:
            hint = did_you_mean(value, names, most=1)
            raise BadInput(f"unknown {path} {value!r} in {origin}; {hint}use one of {', '.join(names)}")
