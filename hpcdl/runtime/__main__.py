"""One rank of a run: ``python -m hpcdl.runtime [options] TARGET [args]``, with the words of ``hpcdl train``."""

from __future__ import annotations

import os
import runpy
import socket
import sys
import traceback
from typing import List, Optional

from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REQUEUE, BadInput, HpcdlError
from hpcdl.common.failures import write_failure
from hpcdl.common.topology import read_topology
from hpcdl.common.words import TrainCommand, parse_train
from hpcdl.runtime import uncaught


def main(argv: List[str]) -> int:
    """Runs this rank and gives its exit status; what went wrong is reported where the launcher looks for it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        command = parse_train(argv)
        os.environ.update(command.settings.to_environ())
        if command.target_kind == "script":
            _run_script(command)
        elif command.target_kind == "workload":
            _run_workload(command)
        else:
            raise BadInput(
                f"TARGET must be a script or a workload for now; received {command.target};"
                " write a script of three lines"
            )
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
        return EXIT_INTERRUPTED
    except Exception as error:
        _report(EXIT_FAILED, f"{type(error).__name__}: {error}".splitlines()[0], traceback.format_exc())
        uncaught.let_the_cause_speak(error, os.environ)
        traceback.print_exc()
        return EXIT_FAILED
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
    if not os.path.isfile(command.target):
        raise BadInput(f"TARGET must be a script that exists; received {command.target}; check the path")
    sys.argv = [command.target, *command.script_args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(command.target)))
    runpy.run_path(command.target, run_name="__main__")


def _run_workload(command: TrainCommand) -> None:
    from hpcdl.runtime import datasets, workloads

    options = command.options
    workload = workloads.get(command.target)

    from hpcdl.runtime.training import init

    run = init()

    import tensorflow as tf

    if options.precision.startswith("mixed_"):
        tf.keras.mixed_precision.set_global_policy(options.precision)
    else:
        tf.keras.backend.set_floatx(options.precision)
    data = datasets.load(workload.dataset, options.data_dir)
    arrays = workload.arrays(data, tf.keras.backend.floatx())
    with run.scope():
        model = workload.build(learning_rate=options.learning_rate)
    recommended = workload.recommended
    per_replica = options.per_replica_batch_size
    if per_replica is None and options.global_batch_size is None:
        per_replica = recommended.per_replica_batch_size
    warmup = options.warmup_epochs if options.warmup_epochs is not None else recommended.warmup_epochs
    history = run.fit(
        model,
        arrays.x_train,
        arrays.y_train,
        per_replica_batch_size=per_replica,
        global_batch_size=options.global_batch_size,
        reference_batch_size=options.reference_batch_size,
        epochs=options.epochs or recommended.epochs,
        validation_data=(arrays.x_test, arrays.y_test),
        lr_scaling=options.lr_scaling or recommended.lr_scaling,
        warmup_epochs=warmup,
        scale_epochs=options.scale_epochs,
        title=workload.name,
    )
    if run.is_rank_0:
        final = {metric: values[-1] for metric, values in history.history.items()}
        print(f"{workload.name} on {data.name} from {data.source}")
        rate = "" if run.samples_per_second is None else f", {run.samples_per_second:.0f} samples/s"
        print(f"test accuracy {100 * final['val_accuracy']:.2f} %{rate}")
        print(f"record: {run.run_dir}/run.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
