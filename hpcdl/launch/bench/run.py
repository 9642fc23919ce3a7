"""The command ``hpcdl bench run``: measures how a TARGET scales on this machine, in interleaved rounds.

The folder of a study::

    study.json                  what is measured, where, with which command; written first
    round-000/weak-2/           a measurement (hpcdl.launch.bench.measuring)
    trace/                      with --trace: the largest point once more, traced

Synopsis::

    sys.exit(main(["--np", "1,2", "fashion_mnist/cnn_dropout"]))
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Optional, Sequence

from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.options import OptionParser, names_of, take
from hpcdl.common.probe import ask_nvidia_smi, read_gpus
from hpcdl.common.saying import say
from hpcdl.common.targets import check_target
from hpcdl.common.words import parse_target, train_parser
from hpcdl.launch.bench import site
from hpcdl.launch.bench.batches import check_batches, check_batches_taken
from hpcdl.launch.bench.measuring import Window, measure
from hpcdl.launch.bench.opening import check_study, new_folder, open_study
from hpcdl.launch.bench.planning import TRACE, TRACED_STEPS, StudyPlan, describe, plan_study, traced_point
from hpcdl.launch.bench.rounds import FIRST_GUESS_S, Effort, Round, run_rounds
from hpcdl.launch.bench.site_words import (
    SiteJobOptions,
    SitePlaceOptions,
    SiteStudyOptions,
    hpcdl_words,
    is_meant,
)
from hpcdl.launch.bench.study import read_study, summary
from hpcdl.launch.bench.words import StudyOptions, StudyRunSettings, StudyWorkloadOptions
from hpcdl.launch.machine import gpu_names, read_machine
from hpcdl.launch.surroundings import processor

#: Options that only a study at a site has.
_OF_SITES = (SiteStudyOptions, SiteJobOptions, SitePlaceOptions)
_DESCRIPTION = """\
Measure how the training of TARGET scales on this machine: the loop of run.fit itself, cut short.

Each point is measured once per round, in launches of its own and in a new order each time; figures are medians over
the rounds with their 95 % intervals. Every rank has the same cores at all points. Runs have their folders in that of
the study.

At a site, one job for each point: see hpcdl bench --site NAME --help."""
_EPILOG = """\
examples:
  hpcdl bench --np 1,2 fashion_mnist/cnn_dropout
  hpcdl bench --np 1,2 --quick my_script.py
  hpcdl bench --np 1,2,4 --oversubscribe --scaling weak,strong --study bench/first fashion_mnist/cnn_dropout"""


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl bench run ARGV``.

    Raises:
        BadInput: The command line is wrong, or asks for more than this machine has.
        HpcdlError: A run failed.
    """
    if is_meant(argv):
        return site.main(argv)
    prog = "hpcdl bench run"  # whose help has the options; that of hpcdl bench lists the parts
    parser = train_parser(
        prog,
        _DESCRIPTION,
        _EPILOG,
        {"the study": StudyOptions},
        StudyRunSettings,
        StudyWorkloadOptions,
    )
    _refuse_words_of_sites(parser, argv)
    command, values = parse_target(parser, argv, prog, _OF_SITES)
    options = take(StudyOptions, values)
    check_target(command, os.environ)
    machine = read_machine(os.environ)
    plan = plan_study(
        command,
        options,
        machine,
        sys.executable,
        {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")},
        gpu_names(os.environ, machine.num_gpus),
    )
    for warning in check_batches(command, plan.points):
        say(warning)
    folder = (options.study or new_folder(command.target)).resolve()
    on = {
        "processor": processor(),
        "num_cores": machine.num_cores,
        "num_gpus": machine.num_gpus,
        "gpu_kind": _gpu_kind() if machine.num_gpus else None,
    }
    mine = {**plan.to_json(), **on}
    check_study(folder, mine)
    print(describe(plan, FIRST_GUESS_S), flush=True)
    if options.dry_run:
        return EXIT_DONE
    open_study(folder, mine, argv)
    effort = Effort(plan.rounds, 2 * plan.rounds, lock=options.lock, timeout_s=60 * options.timeout_min)
    if options.quick:
        effort = replace(effort, most_rounds=plan.rounds, wait_s=0.0)
    points = [plan.make_point(planned) for planned in plan.points]
    run_rounds(points, plan.window, folder, effort, _to_stderr, lambda found: _check_batches(plan, found))
    if options.trace:
        few = Window(plan.window.untimed_steps, TRACED_STEPS)
        measure(plan.make_point(traced_point(plan.points)), few, folder / TRACE, effort.timeout_s)
        print(f"trace: {folder / TRACE / 'process-0' / 'trace'}")
    print("\n" + summary(read_study(folder)))
    print(f"study: {folder}")
    return EXIT_DONE


def _refuse_words_of_sites(parser: OptionParser, argv: Sequence[str]) -> None:
    """Says of a word that only a study at a site has what is missing for it.

    Raises:
        BadInput: There is one.
    """
    of_sites = {*names_of(*_OF_SITES, with_refused=False)} - {*parser.names}
    for word in hpcdl_words(parser, argv):
        name = word.partition("=")[0] if word.startswith("--") else word[:2]  # -t20
        if name in of_sites:
            raise BadInput(
                f"{name} belongs to a study at a site; received {word} without --site; add --site NAME, or see"
                " hpcdl bench run --help"
            )


def _gpu_kind() -> Optional[str]:
    """Names the GPUs of this machine; None: it does not tell."""
    return ", ".join(sorted({gpu["name"] for gpu in read_gpus(ask_nvidia_smi())})) or None


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _check_batches(plan: StudyPlan, found: Round) -> None:
    check_batches_taken(plan.points, {name: {found.number: m} for name, m in found.measurements.items()})
