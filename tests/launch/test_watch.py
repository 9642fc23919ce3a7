"""Following rank 0's log, and what happens when: signals, failures, ranks that do not end. The clock is an argument."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import pytest

from hpcdl.common.failures import failure_path, write_failure
from hpcdl.launch.watch import Interrupts, LogFollower, Patience, watch

PATIENCE = Patience(
    after_failure_s=5, after_requeue_s=60, after_interrupt_s=10, after_term_s=300, term_to_kill_s=5
)


class FakeRanks:
    """Stands at the process boundary: ranks that end only when they are told to."""

    def __init__(self, *, end_at: float = 1e9) -> None:
        self.now = 0.0
        self.end_at = end_at
        self.failed_at = 1e9
        self.requeued_at = 1e9
        self.deaf_to: Tuple[int, ...] = ()
        self.said: List[Tuple[float, str]] = []

    def is_running(self) -> bool:
        return self.now < self.end_at

    def any_failed(self) -> bool:
        return self.now >= self.failed_at

    def any_left_for_requeue(self) -> bool:
        return self.now >= self.requeued_at

    def signal(self, number: int) -> None:
        self.said.append((round(self.now), signal.Signals(number).name))
        if number in (signal.SIGINT, signal.SIGTERM) and number not in self.deaf_to:
            self.end_at = self.now

    def kill(self) -> None:
        self.said.append((round(self.now), "kill"))
        self.end_at = self.now


class FakeInterrupts:
    def __init__(self, ranks: FakeRanks, at: Dict[float, int]) -> None:
        self.ranks, self.at = ranks, at

    def take(self) -> List[int]:
        due = [when for when in sorted(self.at) if when <= self.ranks.now]
        return [self.at.pop(when) for when in due]


class NoLog:
    def copy(self) -> None:
        pass


def run(ranks: FakeRanks, at: Optional[Dict[float, int]] = None) -> Optional[int]:
    def sleep(seconds: float) -> None:
        ranks.now += 0.5

    interrupts = FakeInterrupts(ranks, dict(at or {}))
    return watch(ranks, NoLog(), interrupts, PATIENCE, lambda: ranks.now, sleep)  # type: ignore[arg-type]


def test_ranks_that_end_by_themselves_are_left_alone() -> None:
    ranks = FakeRanks(end_at=1000)
    assert run(ranks) is None
    assert ranks.said == []


def test_after_a_failure_survivors_get_a_grace_then_sigterm_then_the_end() -> None:
    ranks = FakeRanks()
    ranks.failed_at, ranks.deaf_to = 100, (signal.SIGTERM,)
    assert run(ranks) is None
    assert ranks.said == [(105, "SIGTERM"), (110, "kill")]


def test_survivors_that_end_within_the_grace_see_no_signal() -> None:
    ranks = FakeRanks(end_at=102)
    ranks.failed_at = 100
    run(ranks)
    assert ranks.said == []


def test_ranks_that_stay_behind_an_agreed_stop_are_ended_later_than_after_a_failure() -> None:
    ranks = FakeRanks()
    ranks.requeued_at, ranks.deaf_to = 100, (signal.SIGTERM,)
    run(ranks)
    assert ranks.said == [(160, "SIGTERM"), (165, "kill")]


def test_ctrl_c_is_passed_on_once_and_ranks_that_ignore_it_are_killed() -> None:
    ranks = FakeRanks()
    ranks.deaf_to = (signal.SIGINT,)
    assert run(ranks, {20: signal.SIGINT}) == signal.SIGINT
    assert ranks.said == [(20, "SIGINT"), (30, "kill")]


def test_a_second_ctrl_c_kills_at_once() -> None:
    ranks = FakeRanks()
    ranks.deaf_to = (signal.SIGINT,)
    assert run(ranks, {20: signal.SIGINT, 21: signal.SIGINT}) == signal.SIGINT
    assert ranks.said == [(20, "SIGINT"), (21, "kill")]


def test_sigterm_is_passed_on_each_time_and_leaves_time_for_a_checkpoint() -> None:
    ranks = FakeRanks()
    ranks.deaf_to = (signal.SIGTERM,)
    assert run(ranks, {20: signal.SIGTERM, 40: signal.SIGTERM}) == signal.SIGTERM
    assert ranks.said == [(20, "SIGTERM"), (40, "SIGTERM"), (320, "kill")]


def test_a_lost_terminal_stops_the_ranks_as_sigterm_does() -> None:
    ranks = FakeRanks()
    assert run(ranks, {20: signal.SIGHUP}) == signal.SIGHUP
    assert ranks.said == [(20, "SIGTERM")]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_user_signals_are_passed_on_and_do_not_count_as_a_wish_to_end(number: int) -> None:
    ranks = FakeRanks(end_at=1000)
    assert run(ranks, {20: number}) is None
    assert ranks.said == [(20, signal.Signals(number).name)]


def test_signals_are_collected_and_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Interrupts() as interrupts:
        for number in (signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert interrupts.take() == [signal.SIGUSR1, signal.SIGTERM]
        assert interrupts.take() == []
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.take() == []
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def followed(tmp_path: Path) -> Tuple[Path, Callable[[], LogFollower], List[bytes]]:
    log, shown = tmp_path / "rank-0000.log", []  # type: ignore[var-annotated]

    def write(data: bytes) -> int:
        shown.append(data)
        return len(data)

    return log, lambda: LogFollower(log, failure_path(tmp_path, 0), write), shown


Followed = Tuple[Path, Callable[[], LogFollower], List[bytes]]


def test_a_log_is_copied_byte_by_byte_as_it_grows(followed: Followed) -> None:
    log, follow, shown = followed
    follower = follow()
    follower.copy()  # it is not there yet
    for part in (b"1/9 \r2/9 ", b"\xff\xc3", b"\xa9\n" * 100_000):
        with open(str(log), "ab") as file:
            file.write(part)
        follower.copy()
    assert b"".join(shown) == log.read_bytes()


def test_what_an_earlier_start_has_written_is_not_shown(followed: Followed) -> None:
    log, follow, shown = followed
    log.write_bytes(b"old\n")
    follower = follow()
    with open(str(log), "ab") as file:
        file.write(b"new\n")
    follower.copy()
    assert shown == [b"new\n"]


def test_the_copy_ends_where_the_rank_reported_its_failure(followed: Followed, tmp_path: Path) -> None:
    log, follow, shown = followed
    log.write_bytes(b"old\n")
    follower = follow()
    with open(str(log), "ab") as file:
        file.write(b"step 1\n")
    follower.copy()
    with open(str(log), "ab", buffering=0) as file:
        file.write(b"step 2\n")
        report(tmp_path, log.stat().st_size)
        file.write(b"Traceback ...\n")
    follower.copy()
    follower.copy()
    assert b"".join(shown) == b"step 1\nstep 2\n"


def test_what_there_was_no_room_for_is_shown_later_up_to_the_failure(tmp_path: Path) -> None:
    log, shown = tmp_path / "rank-0000.log", []  # type: ignore[var-annotated]

    def write(data: bytes) -> int:
        shown.append(data[:4])
        return len(data[:4])

    follower = LogFollower(log, failure_path(tmp_path, 0), write)
    log.write_bytes(b"step 1\nTraceback ...\n")
    report(tmp_path, len(b"step 1\n"))
    assert [follower.copy(), follower.copy(), follower.copy()] == [False, True, True]
    assert shown == [b"step", b" 1\n"]


def report(folder: Path, log_bytes: int) -> None:
    assert write_failure(folder, rank=0, hostname="n", exit_status=1, error="x")
    path = failure_path(folder, 0)
    path.write_text(json.dumps({**json.loads(path.read_text()), "log_bytes": log_bytes}))
