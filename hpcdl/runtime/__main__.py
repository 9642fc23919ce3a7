"""One rank of a run: ``python -m hpcdl.runtime [options] TARGET [args]``, with the words of ``hpcdl train``."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
import traceback
from typing import List, Optional

from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REQUEUE, HpcdlError
from hpcdl.common.failures import write_failure
from hpcdl.common.topology import read_topology
from hpcdl.common.words import TrainCommand, check_script, parse_train
from hpcdl.runtime import backend, uncaught
from hpcdl.runtime.collecting import search_rarely
from hpcdl.runtime.use import check_used, leave_check


def main(argv: List[str]) -> int:
    """Runs this rank and gives its exit status; what went wrong is reported where the launcher looks for it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    search_rarely()
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
        _report(error.exit_status, str(error), None)
        uncaught.tell(error, os.environ)
        return error.exit_status
    except KeyboardInterrupt:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # it may come twice: from the launcher, and to the whole group
        return EXIT_INTERRUPTED
    except Exception as error:
        _report(EXIT_FAILED, f"{type(error).__name__}: {error}".splitlines()[0], traceback.format_exc())
        uncaught.let_the_cause_speak(error, os.environ)
        traceback.print_exc()
        return EXIT_FAILED
    finally:
        leave_check()
    return EXIT_DONE


def _status_of(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or EXIT_DONE
    print(stop.code, file=sys.stderr)
    return EXIT_FAILED


def _report(exit_status: int, error: str, trace: Optional[str]) -> None:
    folder = os.environ.get("HPCDL_STATUS_DIR")
    if folder:
        hostname = socket.gethostname()
        rank = read_topology(os.environ, hostname).rank
        write_failure(
            folder, rank=rank, hostname=hostname, exit_status=exit_status, error=error, traceback=trace
        )


def _run_script(command: TrainCommand) -> None:
    check_script(command.target)
    sys.argv = [command.target, *command.script_args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(command.target)))
    try:
        runpy.run_path(command.target, run_name="__main__")
    except SystemExit as stop:
        if stop.code not in (None, EXIT_DONE):
            raise
    planned = os.environ.get("HPCDL_PLAN_WORLD_SIZE")
    world_size = int(planned) if planned else read_topology(os.environ, socket.gethostname()).world_size
    check_used(command.target, world_size, os.environ)


def _run_target(command: TrainCommand) -> None:
    import hpcdl

    init = hpcdl.init  # which comes first, since targets load what it may refuse
    from hpcdl.runtime import targets

    is_workload = command.target_kind == "workload"
    # A name that does not exist is said at once; a user's module may use TensorFlow, so it comes after init().
    workload = targets.of_workload(command.target, command.options.data_dir) if is_workload else None
    run = init()
    target = workload or targets.of_functions(command.target, str(command.options.data))
    targets.train(run, target, command.options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
