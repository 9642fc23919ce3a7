"""Scripts under a bare mpirun, with real ranks and Horovod: no ``hpcdl train`` around them."""

from __future__ import annotations

from pathlib import Path

from tests.bare import needs_mpirun, under_mpirun

PROGRAMS = Path(__file__).parent / "programs"


@needs_mpirun
def test_a_call_that_one_rank_refuses_is_one_line_and_no_rank_waits_for_it():
    ended = under_mpirun([str(PROGRAMS / "refused.py"), "1"])
    assert ended.status == 2
    (line,) = ended.said
    assert line.startswith("hpcdl: a batch size must say of what; received batch_size=4;")
    assert ended.seconds < 120
