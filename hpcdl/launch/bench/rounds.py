"""Rounds: every point once per round, in an order of its own, so that a drift of the machine hits all alike.

A study can be broken off and goes on where it was, since each measurement keeps its folder:
``round-003/hpcdl-2/measurement.json``. Rounds in which something else kept the machine busy are repeated, up to
a limit; if too few calm ones come together, all of them count, and the figures say so.

Synopsis::

    rounds = run_rounds(points, window, folder, Effort(rounds=9, most_rounds=18), say=print)
    chosen = choose(rounds, wanted=9)
    ratio([r.rate("hpcdl-2") for r in chosen.rounds], [r.rate("script-2") for r in chosen.rounds])
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple, TypeVar

from hpcdl.common.load import wait_until_calm
from hpcdl.common.saying import say
from hpcdl.launch.bench.measuring import Measurement, Point, Window, measure

T = TypeVar("T")
#: What a launch takes before one was seen: the start of TensorFlow and some steps, of a small network.
FIRST_GUESS_S = 35.0


@dataclass(frozen=True)
class Effort:
    """How long a study goes on.

    Attributes:
        rounds: Calm rounds that are wanted.
        most_rounds: Rounds after which it ends anyway.
        wait_s: How long a measurement waits for the machine to be calm, before it begins in spite of it.
        lock: A file to lock during each round, where several who measure take turns.
        timeout_s: The most that a launch may take.
    """

    rounds: int
    most_rounds: int
    wait_s: float = 30.0
    lock: Optional[Path] = None
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Round:
    """The measurements of one round, by the names of the points."""

    number: int
    measurements: Dict[str, Measurement]

    @property
    def is_calm(self) -> bool:
        """Whether nothing else kept the machine busy in any of them."""
        return all(m.is_calm for m in self.measurements.values())

    def rate(self, name: str) -> float:
        """Gives the samples/s of a point."""
        return self.measurements[name].samples_per_second


@dataclass(frozen=True)
class Chosen:
    """The rounds that count; ``is_calm`` is False if they had to be taken as they were."""

    rounds: Tuple[Round, ...]
    is_calm: bool


def choose(rounds: Sequence[Round], wanted: int) -> Chosen:
    """Takes the calm rounds if there are enough, else all."""
    calm = tuple(r for r in rounds if r.is_calm)
    return Chosen(calm, True) if len(calm) >= wanted else Chosen(tuple(rounds), False)


def run_rounds(
    points: Sequence[Point],
    window: Window,
    folder: Path,
    effort: Effort,
    say: Callable[[str], None],
    check: Callable[[Round], None] = lambda _: None,
) -> List[Round]:
    """Measures round after round; what lies in the folder already is not measured again.

    Args:
        points: What is measured in each.
        window: The steps that count.
        folder: Of the study.
        effort: How long it goes on.
        say: Is told how far it is.
        check: Is shown each round, and raises where further ones would be in vain.

    Raises:
        HpcdlError: A measurement failed.
    """
    rounds: List[Round] = []
    took: Dict[str, float] = {}
    while len(rounds) < effort.most_rounds and sum(r.is_calm for r in rounds) < effort.rounds:
        number = len(rounds)
        order = shuffled(points, number)
        measurements: Dict[str, Measurement] = {}
        with locked(effort.lock):
            for i, point in enumerate(order):
                left_here = [p.name for p in order[i:]]
                rounds_left = max(effort.rounds - sum(r.is_calm for r in rounds) - 1, 0)
                left = seconds_left(left_here, points, rounds_left, took)
                say(progress(number, effort.rounds, point.name, left, is_guess=not took))
                place = folder / round_name(number) / point.name
                is_new, begin = not (place / "measurement.json").exists(), time.monotonic()
                if effort.wait_s > 0 and is_new:
                    wait_until_calm(effort.wait_s)
                found = measurements[point.name] = measure(point, window, place, effort.timeout_s)
                took[point.name] = time.monotonic() - begin if is_new else found.seconds
        rounds.append(Round(number, measurements))
        check(rounds[-1])
    return rounds


def round_name(number: int) -> str:
    """Names the folder of a round."""
    return f"round-{number:03d}"


def parse_round(name: str) -> Optional[int]:
    """Reads what `round_name` gave; None: it is the name of something else."""
    digits = name.partition("-")[2]
    return int(digits) if digits.isdigit() and round_name(int(digits)) == name else None


def shuffled(points: Sequence[T], number: int) -> List[T]:
    """Gives the order of a round: always the same for its number."""
    return random.Random(number).sample(list(points), len(points))


def seconds_left(
    left_here: Sequence[str], points: Sequence[Point], rounds_left: int, took: Dict[str, float]
) -> float:
    """Estimates the rest: what is left of this round, and whole rounds after it."""
    guess = sum(took.values()) / len(took) if took else FIRST_GUESS_S
    one_round = sum(took.get(point.name, guess) for point in points)
    return sum(took.get(name, guess) for name in left_here) + rounds_left * one_round


def progress(number: int, rounds: int, name: str, seconds: float, is_guess: bool = False) -> str:
    """Writes the line that says how far a study is."""
    more = f" of {rounds}" if number < rounds else f", since {number + 1 - rounds} were not calm"
    guess = ", by a first guess" if is_guess else ""
    return f"round {number + 1}{more}: {name}; about {max(1, round(seconds / 60))} min left{guess}"


@contextlib.contextmanager
def locked(path: Optional[Path]) -> Iterator[None]:
    """Holds a file's lock, if one is named. Says that it waits, and where there are no locks (Lustre without flock)."""
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(str(path), "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another hpcdl bench, which has locked {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as problem:
            say(f"{path} cannot be locked ({problem.strerror}): let no other hpcdl bench run there meanwhile")
        yield
