"""Frozen dataclasses as options: each field is a flag, a line of help and a variable of the environment.

Synopsis::

    @dataclass(frozen=True)
    class Speed:
        \"\"\"How fast.\"\"\"

        limit: Optional[int] = option(None, "N", "drive N km/h at most", at_least(1))
        loud: bool = switch("blow the horn")

    parser = OptionParser("drive", "drive [OPTIONS]", "Drive.", "", {"speed": Speed})
    values = parser.parse(["--limit", "30"])
    speed = take(Speed, values)                             # Speed(limit=30, loud=False)
    to_argv(speed)                                          # ["--limit=30"]
    to_environ(speed, "CAR_")                               # {"CAR_LIMIT": "30"}
    from_environ(Speed, {"CAR_LOUD": "1"}, "CAR_")          # Speed(limit=None, loud=True)
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NoReturn, Optional, Sequence, Tuple, Type, TypeVar

from hpcdl.common.checks import did_you_mean, one_of, parse_number, parse_whole_number
from hpcdl.common.errors import BadInput
from hpcdl.common.files import nearest_existing

#: Reads a value from text; the first argument is the flag or variable that the text came from.
Reader = Callable[[str, str], Any]
T = TypeVar("T")


def option(default: Any, metavar: str, help: str, read: Reader, short: str = "") -> Any:
    """Makes a field that takes a value; ``help`` is an imperative sentence and tells the default."""
    metadata = {"metavar": metavar, "help": help, "read": read, "short": short}
    return dataclasses.field(default=default, metadata=metadata)


def switch(help: str) -> Any:
    """Makes a field that is False, and True where its flag stands."""
    return dataclasses.field(default=False, metadata={"help": help, "read": _read_switch, "is_switch": True})


def many(metavar: str, help: str, read: Reader) -> Any:
    """Makes a field whose flag may stand several times; its value is the tuple of what was given."""
    metadata = {"metavar": metavar, "help": help, "read": read, "short": "", "is_many": True}
    return dataclasses.field(default=(), metadata=metadata)


def retold(cls: Any, name: str, help: str) -> Any:
    """Makes a field for a subclass that differs from the one of the class only in its help."""
    (field,) = (field for field in _fields(cls) if field.name == name)
    return dataclasses.field(default=field.default, metadata={**field.metadata, "help": help})


def name_out_of(names: Sequence[str]) -> Reader:
    """Reads one of the names."""
    return lambda what, text: one_of(what, text, names)


def at_least(least: int, most: Optional[int] = None) -> Reader:
    """Reads a whole number."""
    return lambda what, text: parse_whole_number(what, text, least, most)


def positive_number(what: str, text: str) -> float:
    """Reads a number > 0."""
    return parse_number(what, text)


def number_from_0(what: str, text: str) -> float:
    """Reads a number >= 0."""
    return parse_number(what, text, positive=False)


def folder(what: str, text: str) -> str:
    """Reads the name of a folder."""
    if not text:
        raise BadInput(f"{what} must name a folder; received an empty text; pass e.g. runs/first")
    return text


def file_to_write(what: str, text: str) -> Path:
    """Reads the name of a file, whose folder may be yet to be made."""
    path = Path(text)
    if os.path.isdir(path) or not _can_write(path):
        raise BadInput(
            f"{what} must name a file that can be written; received {text!r}; pass another one, e.g. here.txt"
        )
    return path


def folder_to_write(what: str, text: str) -> Path:
    """Reads the name of a folder, which may be yet to be made."""
    path = Path(text)
    if (os.path.exists(path) and not os.path.isdir(path)) or not _can_write(path):
        raise BadInput(
            f"{what} must name a folder that can be made and written; received {text!r}; pass another one, e.g. here"
        )
    return path


def _can_write(path: Path) -> bool:
    """Says whether a path can be written, or made: told before the work, since after it that would be too late."""
    path = path.absolute()
    nearest = nearest_existing(path)
    return (nearest == path or os.path.isdir(nearest)) and os.access(str(nearest), os.W_OK)


def flag(name: str) -> str:
    """Gives the flag of a field: ``run_dir`` is ``--run-dir``."""
    return "--" + name.replace("_", "-")


def names_of(*groups: Any, with_refused: bool = True) -> List[str]:
    """Lists the flags of dataclasses, short ones too; those that are refused only if they are wanted."""
    refused = {} if with_refused else refused_by(*groups)
    fields = [field for cls in groups for field in _fields(cls) if field.name not in refused]
    return [name for f in fields for name in (flag(f.name), f.metadata.get("short")) if name]


def refused_by(*groups: Any) -> Dict[str, Tuple[str, str]]:
    """Gives what dataclasses say of those of their fields that a command does not take."""
    return {name: why for cls in groups for name, why in getattr(cls, "refused", {}).items()}


def changed(options: Any) -> Dict[str, Any]:
    """Gives the fields that differ from their defaults."""
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    }


def to_argv(options: Any) -> List[str]:
    """Writes what differs from the defaults as words."""
    return [
        flag(name) if one is True else f"{flag(name)}={_text(one)}"
        for name, value in changed(options).items()
        for one in (value if isinstance(value, tuple) else (value,))
    ]


def to_environ(options: Any, prefix: str) -> Dict[str, str]:
    """Writes what differs from the defaults as variables."""
    return {prefix + name.upper(): _text(value) for name, value in changed(options).items()}


def from_environ(cls: Type[T], environ: Mapping[str, str], prefix: str) -> T:
    """Reads what `to_environ` wrote; an empty variable counts as not set.

    Raises:
        BadInput: A variable is malformed; the message names it.
    """
    values = {}
    for field in _fields(cls):
        variable = prefix + field.name.upper()
        if environ.get(variable):
            values[field.name] = field.metadata["read"](variable, environ[variable])
    return cls(**values)


def take(cls: Type[T], values: Mapping[str, Any]) -> T:
    """Makes the dataclass from the parsed values that are its fields."""
    own = {field.name: values[field.name] for field in _fields(cls) if field.name in values}
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in own.items()})


class OptionParser:
    """Parses flags into values by field name; what is wrong is `BadInput`, not a usage text and an exit.

    Args:
        prog: What the user typed before the words.
        usage: The usage line.
        description: What the help starts with.
        epilog: What the help ends with.
        groups: Title -> dataclass. One may have an attribute ``instead``, which says for options of other programs what
            to use here; and ``refused``, which says of fields that are not for this command why, and the way out: the
            help leaves them out.
    """

    def __init__(
        self, prog: str, usage: str, description: str, epilog: str, groups: Mapping[str, Any]
    ) -> None:
        self._parser = OneLineParser(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            argument_default=argparse.SUPPRESS,
        )
        self._fields = [field for cls in groups.values() for field in _fields(cls)]
        self._names = names_of(*groups.values())
        self._instead = {
            name: use
            for cls in groups.values()
            for name, use in getattr(cls, "instead", {}).items()
            if name not in self._names
        }
        self._refused = refused_by(*groups.values())
        for title, cls in groups.items():
            group = self._parser.add_argument_group(title)
            for field in _fields(cls):
                _add(group, field, field.name in self._refused)

    @property
    def names(self) -> Sequence[str]:
        """The flags, short ones too."""
        return self._names

    def split(self, words: Sequence[str]) -> Tuple[List[str], Optional[str], List[str]]:
        """Splits words at the first that is neither a flag nor the value of one; None if there is none."""
        switches = {"-h", "--help"} | {flag(f.name) for f in self._fields if "is_switch" in f.metadata}
        taking = set(self._names) - switches
        at = 0
        while at < len(words):
            word = words[at]
            if word == "--":
                return list(words[:at]), words[at + 1] if words[at + 1 :] else None, list(words[at + 2 :])
            if not word.startswith("-"):
                return list(words[:at]), word, list(words[at + 1 :])
            holds_value = "=" in word or (len(word) > 2 and word[1] != "-")  # --np=4, -n4
            # A stranger, which `parse` refuses, must not swallow the option behind it and be refused for that one.
            is_alone = word not in taking and words[at + 1 : at + 2] and words[at + 1].startswith("-")
            at += 1 if word in switches or holds_value or is_alone else 2
        return list(words), None, []

    def parse(self, words: Sequence[str]) -> Dict[str, Any]:
        """Parses flags; ``--help`` prints the help and leaves with SystemExit(0).

        Raises:
            BadInput: A flag is unknown, not for this command, or its value malformed.
        """
        for word in words:  # argparse would take -np for -n with the value p
            use = self._instead.get(word.partition("=")[0])
            if use is not None:
                raise BadInput(f"unknown option {word!r}; use {use}; see {self._parser.prog} --help")
        parsed, strangers = self._parser.parse_known_args(list(words))
        if strangers:
            self._refuse(strangers[0])
        values = vars(parsed)
        for name, (rule, cure) in self._refused.items():
            if name in values:
                value = "" if values[name] is True else f" {values[name]}"
                raise BadInput(f"{rule}; received {flag(name)}{value}; {cure}")
        return values

    def _refuse(self, word: str) -> NoReturn:
        prog = self._parser.prog
        if not word.startswith("-"):
            raise BadInput(f"{prog} takes options only here; received {word!r}; see {prog} --help")
        known = [flag(field.name) for field in self._fields if field.name not in self._refused]
        hint = did_you_mean(word.partition("=")[0], known, cutoff=0.6)
        raise BadInput(f"unknown option {word!r}; {hint}see {prog} --help")


class OneLineParser(argparse.ArgumentParser):
    """An argparse parser whose errors are `BadInput`, and which prints its texts as they are written."""

    def __init__(self, **arguments: Any) -> None:
        # A shortened flag in a job script would break when the next option is added.
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **arguments
        )

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")


def _add(group: argparse._ArgumentGroup, field: dataclasses.Field[Any], is_refused: bool) -> None:
    name, metadata = flag(field.name), field.metadata
    # argparse takes % for its own.
    help = argparse.SUPPRESS if is_refused else metadata["help"].replace("%", "%%")
    if "is_switch" in metadata:
        group.add_argument(name, action="store_true", dest=field.name, help=help)
        return
    names = [short for short in (metadata["short"],) if short] + [name]

    def read(text: str) -> Any:  # BadInput passes through argparse as it is
        return text if is_refused else metadata["read"](name, text)

    group.add_argument(
        *names,
        type=read,
        action="append" if "is_many" in metadata else "store",
        dest=field.name,
        metavar=metadata["metavar"],
        help=help,
    )


def _fields(cls: Any) -> Tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)


def _read_switch(what: str, text: str) -> bool:
    return one_of(what, text, ("0", "1")) == "1"


def _text(value: Any) -> str:
    return "1" if value is True else str(value)  # str of a float is read back as the same float
