"""One rank of a run: ``python -m hpcdl.runtime [options] TARGET [args]``, with the words of ``hpcdl train``."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
import traceback
from typing import List, Optional

from hpcdl.common.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_REQUEUE,
    BadInput,
    HpcdlError,
)
from hpcdl.common.failures import is_said_by_survivor, note_end, ranks_ended, write_failure
from hpcdl.common.topology import Topology, read_topology
from hpcdl.common.words import TrainCommand, check_script, parse_train
from hpcdl.runtime import backend, uncaught
from hpcdl.runtime.collecting import search_rarely
from hpcdl.runtime.use import check_used, leave_check, may_have_trained


def main(argv: List[str]) -> int:
    """Runs this rank and gives its exit status; what went wrong is reported where the launcher looks for it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    search_rarely()
    folder = os.environ.get("HPCDL_STATUS_DIR")
    try:
        command = parse_train(argv)
        backend.check_backend(os.environ, backend.version_of_keras())  # a script may load Keras before hpcdl
        os.environ.update(command.settings.to_environ())
        if command.target_kind == "script":
            _run_script(command)
        else:
            _run_target(command)
    except SystemExit as stop:
        status = _status_of(stop)
        if status not in (EXIT_DONE, EXIT_REQUEUE):
            _report(status, f"{command.target} ended with exit status {status}", None)
        return status
    except HpcdlError as error:
        return _tell(error)
    except KeyboardInterrupt:
        # It may come twice: to the whole group of processes, and from the launcher.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return EXIT_INTERRUPTED
    except Exception as error:
        ended = ranks_ended(folder) if folder and is_said_by_survivor(str(error)) else []
        if ended:
            return _tell(_left_alone(error, ended, command.target))
        _report(EXIT_FAILED, f"{type(error).__name__}: {error}".splitlines()[0], traceback.format_exc())
        uncaught.let_the_cause_speak(error, os.environ)
        traceback.print_exc()
        return EXIT_FAILED
    finally:
        leave_check()
    # Before Python ends, and Horovod with it: whoever still waits for this rank is to find the note.
    if folder:
        note_end(folder, _topology().rank)
    return EXIT_DONE


def _tell(error: HpcdlError) -> int:
    """Reports an error of hpcdl's own, says it, and gives its exit status."""
    _report(error.exit_status, str(error), None)
    uncaught.tell(error, os.environ)
    return error.exit_status


def _left_alone(error: Exception, ended: List[int], script: str) -> BadInput:
    """Says of a rank that waited for others which had ended the script, well and before, what it must do.

    Horovod says the same in a rank that waited as in one whose partner has died.
    """
    here = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == script]
    where = f", in line {here[-1].lineno} of {script}" if here else ""
    others = f"rank {ended[0]} had" if len(ended) == 1 else f"{len(ended)} other ranks had"
    return BadInput(
        f"what ranks do together every rank must call; received a call on rank {_topology().rank}{where}, while"
        f" {others} ended the script; call run.save, run.barrier, run.evaluate, run.fit and their like on every rank,"
        " without `if run.is_rank_0`"
    )


def _status_of(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or EXIT_DONE
    print(stop.code, file=sys.stderr)
    return EXIT_FAILED


def _report(exit_status: int, error: str, trace: Optional[str]) -> None:
    folder = os.environ.get("HPCDL_STATUS_DIR")
    if folder:
        write_failure(
            folder,
            rank=_topology().rank,
            hostname=socket.gethostname(),
            exit_status=exit_status,
            error=error,
            traceback=trace,
        )


def _topology() -> Topology:
    return read_topology(os.environ, socket.gethostname())


def _run_script(command: TrainCommand) -> None:
    check_script(command.target)
    sys.argv = [command.target, *command.script_args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(command.target)))
    try:
        runpy.run_path(command.target, run_name="__main__")
    except SystemExit as stop:
        if stop.code not in (None, EXIT_DONE):
            raise
        if not may_have_trained():  # --help, say
            return
    topology, planned = _topology(), os.environ.get("HPCDL_PLAN_WORLD_SIZE")
    # Of the others one may be through while rank 0 still waits for it, wrongly; then that is what there is to say.
    if topology.is_rank_0:
        check_used(command.target, int(planned) if planned else topology.world_size, os.environ)


def _run_target(command: TrainCommand) -> None:
    import hpcdl

    init = hpcdl.init  # which comes first, since targets load what it may refuse
    from hpcdl.runtime import targets

    is_workload = command.target_kind == "workload"
    # A name that does not exist is said at once; a user's module may use TensorFlow, so it comes after init().
    workload = targets.of_workload(command.target, command.options.data_dir) if is_workload else None
    run = init()
    target = workload or targets.of_functions(command.target, str(command.options.data))
    targets.train(run, target, command.options, command.settings.precision)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
