"""The profile of a site: what it is made of, and the check of a TOML file against that.

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

A user's own file may leave the sources out: its values are then the user's. What a file does not say is
unknown, and asked for where it is needed.

Synopsis::

    profile = parse_profile(read_toml(path), name="example", origin=str(path))
    profile.site.queues["gpu"].max_min              # 2880
    profile.sources["queues.gpu.max_min"].status    # "confirmed"
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput

STATUSES = ("confirmed", "second-hand")
SCHEDULERS = ("slurm", "none")
GPU_REQUESTS = ("gpus-per-node", "gres", "none")
CONTAINER_KINDS = ("singularity", "apptainer", "shifter", "podman-hpc", "none")


def _value(kind: str, help: str) -> Any:
    """Makes a field for one value: None, or () or {} for several, where the profile does not say it."""
    metadata = {"kind": kind, "help": help}
    if kind == "texts":
        return dataclasses.field(default=(), metadata=metadata)
    if kind == "table":
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=None, metadata=metadata)


@dataclass(frozen=True)
class Container:
    """How a site runs images."""

    kind: Optional[str] = _value("text", "singularity, apptainer, shifter, podman-hpc or none")
    command: Optional[str] = _value("text", "program that runs an image, if it is not named like the kind")
    gpu_flags: Tuple[str, ...] = _value("texts", "flags that give an image the GPUs")
    binds: Tuple[str, ...] = _value("texts", "folders that images need besides those of the run")
    images: Tuple[str, ...] = _value("texts", "patterns of the site's own images, the best first")
    python: Optional[str] = _value("text", "Python inside the image")
    cache: Optional[str] = _value("text", "folder for layers of images that are fetched, as a shell word")
    scratch: Optional[str] = _value("text", "folder to put images together in, as a shell word")


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU node."""

    per_node: Optional[int] = _value("whole", "GPUs of a node")
    cores_per_gpu: Optional[int] = _value("whole", "cores that belong to a GPU")
    memory_mb_per_gpu: Optional[int] = _value("whole", "memory that belongs to a GPU, in MB")
    charge: Optional[float] = _value("number", "units charged per GPU-hour or node-hour")
    type: Optional[str] = _value("text", "Slurm's name of the type, where requests must name it")


@dataclass(frozen=True)
class Queue:
    """Where a job can wait: a partition, a QOS or both, and what they allow."""

    partition: Optional[str] = _value("text", "Slurm's partition")
    qos: Optional[str] = _value("text", "Slurm's QOS")
    constraint: Optional[str] = _value("text", "Slurm's constraint")
    gpus: Tuple[str, ...] = _value("texts", "kinds of GPU nodes in it, the default first")
    min_nodes: Optional[int] = _value("whole", "nodes of a job, at least")
    max_nodes: Optional[int] = _value("whole", "nodes of a job, at most")
    max_gpus: Optional[int] = _value("whole", "GPUs of a job, at most")
    max_min: Optional[int] = _value("whole", "minutes of a job, at most")
    default_min: Optional[int] = _value("whole", "minutes of a job that does not ask for any")
    cores_per_node: Optional[int] = _value("whole", "cores of a node without GPUs")
    memory_mb_per_node: Optional[int] = _value("whole", "memory of a node, in MB")
    whole_nodes: Optional[bool] = _value("yes or no", "whether a job has its nodes for itself")
    preemption_grace_s: Optional[int] = _value("whole", "seconds between preemption's signal and the end")
    charge_factor: Optional[float] = _value("number", "what the charge is multiplied by here")


@dataclass(frozen=True)
class Site:
    """A computing centre's machine. None: the profile does not say."""

    title: str
    scheduler: Optional[str] = _value("text", "slurm, or none for this machine itself")
    slurm_version: Optional[str] = _value("text", "version of Slurm")
    hosts: Tuple[str, ...] = _value("texts", "patterns of the login nodes' names")
    host_variables: Mapping[str, str] = _value("table", "variables by which its login nodes are known")
    account_required: Optional[bool] = _value("yes or no", "whether a job must name an account")
    account_suffix: Optional[str] = _value("text", "what the account of a GPU job ends with")
    default_queue: Optional[str] = _value("text", "the queue of a job that names none")
    gpu_request: Optional[str] = _value("text", "how GPUs are asked for: gpus-per-node, gres or none")
    gpu_bind: Optional[str] = _value("text", "srun's --gpu-bind")
    cpu_bind: Optional[str] = _value("text", "srun's --cpu-bind")
    mpi: Optional[str] = _value("text", "srun's --mpi for ranks that meet through MPI")
    srun_args: Tuple[str, ...] = _value("texts", "further arguments of srun")
    sbatch_args: Tuple[str, ...] = _value("texts", "further arguments of sbatch, as --name=value")
    interactive: Optional[str] = _value("text", "what stands in for salloc, if the site has its own")
    requeue: Optional[bool] = _value("yes or no", "whether jobs may be requeued")
    job_chains: Optional[bool] = _value("yes or no", "whether jobs may depend on each other to go on")
    setup: Tuple[str, ...] = _value("texts", "shell lines before the run, such as module load")
    environ: Mapping[str, str] = _value("table", "variables that every rank gets")
    socket_ifname: Optional[str] = _value("text", "network interfaces for NCCL and Gloo")
    allreduce_gb_per_s: Optional[float] = _value("number", "speed of a 16 MiB sum between nodes, in GB/s")
    scratch: Optional[str] = _value("text", "node-local scratch, as a shell word")
    scratch_flag: Optional[str] = _value("text", "what a job must ask for to have it")
    charge_unit: Optional[str] = _value("text", "the site's unit of account")
    charge_per: Optional[str] = _value("text", "gpu-hour or node-hour")
    internet: Optional[bool] = _value("yes or no", "whether compute nodes reach the internet")
    container: Container = dataclasses.field(default_factory=Container)
    gpus: Mapping[str, Gpu] = dataclasses.field(default_factory=dict)
    queues: Mapping[str, Queue] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where a value is from."""

    what: str
    date: str
    status: str

    def describe(self) -> str:
        """Says it in a few words."""
        return f"{self.status}: {self.what}, {self.date}"


@dataclass(frozen=True)
class Profile:
    """A site with the source of each of its values, by dotted path."""

    name: str
    origin: str
    site: Site
    sources: Mapping[str, Source]

    def unconfirmed(self, prefixes: Sequence[str]) -> List[str]:
        """Lists the values under some paths that nobody has confirmed yet."""
        return [
            path
            for path, source in self.sources.items()
            if source.status != "confirmed"
            and any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)
        ]


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


def leaves(cls: Any) -> Iterator[dataclasses.Field[Any]]:
    """Gives the fields of a part of a profile that hold one value."""
    return (field for field in dataclasses.fields(cls) if "kind" in field.metadata)


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
                near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
                hint = f"did you mean {' or '.join(near)}? " if near else ""
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
            near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise BadInput(f"unknown {path} {value!r} in {origin}; {hint}use one of {', '.join(names)}")
