"""The job files in ``jobs/``, for those who write their own: rendered from the same layouts as ``hpcdl submit``.

They need no launch side of hpcdl, only a copy of its folder that the nodes see. A test compares the files in the
repository with what is rendered, so they never say something else than ``hpcdl submit`` does.

Synopsis, to write them anew::

    python -m hpcdl.launch.templates jobs
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from hpcdl.common.words import RunSettings, parse_train
from hpcdl.launch.container import LIBRARIES_FOR_IMAGES, enter_argv
from hpcdl.launch.sites.library import load_profile
from hpcdl.launch.sites.profile import Container, Profile
from hpcdl.launch.submission.argv import srun_argv
from hpcdl.launch.submission.executors import batch_script, end_time_lines, parameters
from hpcdl.launch.submission.job import Equipment, Job, make_job
from hpcdl.launch.submission.layout import lay_out
from hpcdl.launch.submission.words import JobOptions

_ACCOUNT = "CHANGE_ME"
_WIDTH = 100
#: What `_Place.allocate` asks for.
_INTERACTIVE_MIN = 60
_STRATEGIES: Mapping[str, Tuple[str, int]] = {
    "mirrored": ("one process with all GPUs of one node", 1),
    "horovod": ("one process for each GPU of two nodes", 2),
    "hybrid": ("one process for each of two nodes, with all its GPUs", 2),
}


@dataclasses.dataclass(frozen=True)
class _Place:
    """A site that there are job files for, and what a job there asks for."""

    site: str
    job: JobOptions
    image: str
    allocate: str


_PLACES = (
    _Place(
        "bridges2",
        JobOptions(time="2:00:00"),
        "/ocean/containers/ngc/tensorflow/tensorflow_23.04-tf2-py3.sif",
        "interact -p GPU -N 2 --ntasks-per-node=8 --gres=gpu:v100-32:8 -t 1:00:00 -A CHANGE_ME",
    ),
    _Place(
        "generic_slurm",
        JobOptions(time="2:00:00", gpus_per_node="4", mem="0", exclusive=True),
        "CHANGE_ME.sif",
        "salloc -A CHANGE_ME -N 2 --ntasks-per-node=4 --cpus-per-task=8 --gpus-per-node=4 --mem=0 -t 1:00:00",
    ),
)


def render_all() -> Dict[str, str]:
    """Renders all job files: path below ``jobs/`` -> text."""
    files = {}
    for place in _PLACES:
        for strategy, (words, nodes) in _STRATEGIES.items():
            job, profile = _job(place, strategy, nodes)
            files[f"{place.site}/{strategy}.sbatch"] = _batch(job, profile, place, words)
        job, profile = _job(place, "horovod", 2)
        files[f"{place.site}/interactive.sh"] = _interactive(job, profile, place)
        files[f"{place.site}/submitit_job.py"] = _submitit(job, profile, place)
    return files


def main(argv: Sequence[str]) -> int:
    """Writes all job files into a folder."""
    for name, text in render_all().items():
        path = Path(argv[0]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def _job(place: _Place, strategy: str, nodes: int) -> Tuple[Job, Profile]:
    profile = load_profile(place.site, Path("no-files-of-a-user"))
    if profile.site.container.kind is None:
        site = dataclasses.replace(profile.site, container=Container(kind="apptainer", gpu_flags=("--nv",)))
        profile = dataclasses.replace(profile, site=site)
    # On a cluster that nothing is known of: 32 cores on a node of 4 GPUs.
    of_node = {"mirrored": 32, "hybrid": 32, "horovod": 8}
    cores = of_node[strategy] if place.site == "generic_slurm" else None
    options = dataclasses.replace(place.job, nodes=nodes, cpus_per_task=cores, job_name=f"hpcdl-{strategy}")
    layout = lay_out(profile, options, RunSettings(strategy=strategy), "gloo")
    equipment = Equipment(image=place.image, python=("python3",), folders=(), import_path=None)
    job = make_job(
        parse_train(["train.py"]),
        options,
        profile,
        layout,
        equipment,
        folder=Path("job"),
        cwd="/",
        executor="slurm",
        account=_ACCOUNT,
        record={},
    )
    return job, profile


def _batch(job: Job, profile: Profile, place: _Place, words: str) -> str:
    strategy = job.layout.strategy
    asked = [line for line in batch_script(job).splitlines() if line.startswith("#SBATCH")]
    asked = [line for line in asked if not line.startswith("#SBATCH --output")]
    return _text(
        [
            "#!/bin/bash",
            f"# {profile.site.title}: {words}.",
            "#",
            f"#     sbatch jobs/{place.site}/{strategy}.sbatch train.py --my-flag",
            "#",
            "# Change the account, and what your cluster calls otherwise. HPCDL: a copy of hpcdl that the nodes see.",
            "# Rendered by python -m hpcdl.launch.templates; `hpcdl submit` writes the like and more.",
            *asked,
            "#SBATCH --output=%x-%j.log",
            "",
            *_set_up(job, place, job.layout.time_limit_min),
            "",
            *_srun(job, profile),
            "status=$?",
            "",
            "# 85: stopped with a checkpoint before the time was over. Back into the queue, ten times at most.",
            'if [ "$status" = 85 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 10 ]; then',
            '    scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$status"',
        ]
    )


def _interactive(job: Job, profile: Profile, place: _Place) -> str:
    return _text(
        [
            "#!/bin/bash",
            f"# {profile.site.title}, interactively: one process for each GPU of two nodes.",
            "#",
            f"#     {place.allocate}",
            f"#     bash jobs/{place.site}/interactive.sh train.py --my-flag      # as often as you like",
            "#",
            "# Rendered by python -m hpcdl.launch.templates.",
            "",
            *_set_up(job, place, _INTERACTIVE_MIN),
            'tail -F "$LOGS/rank-0000.log" 2>/dev/null &',
            "shown=$!",
            "",
            *_srun(job, profile),
            "status=$?",
            "",
            "sleep 1",
            'kill "$shown"',
            'exit "$status"',
        ]
    )


def _set_up(job: Job, place: _Place, time_limit_min: int) -> List[str]:
    return [
        "HPCDL=${HPCDL:-$HOME/hpcdl}",
        f"IMAGE=${{IMAGE:-{place.image}}}",
        "LOGS=$PWD/hpcdl-logs/$SLURM_JOB_ID-$(date +%s)",
        'mkdir -p "$LOGS" && echo "logs of the ranks: $LOGS"',
        f"unset {' '.join(LIBRARIES_FOR_IMAGES)}  # the host's libraries are not the image's",
        *job.setup,
        *end_time_lines(time_limit_min),
    ]


def _rank_words(job: Job, profile: Profile) -> List[List[str]]:
    """Gives the words that each rank runs, in groups that stand on a line each."""
    inside = enter_argv(
        profile.site.container, "$IMAGE", folders=["$HPCDL", "$PWD"], cwd="$PWD", with_gpus=True
    )
    names = {"PYTHONPATH": "$HPCDL", "HPCDL_STATUS_DIR": "$LOGS", "HPCDL_RENDEZVOUS_DIR": "$LOGS/rendezvous"}
    environ = [f"{name}={value}" for name, value in sorted({**job.layout.environ, **names}.items())]
    start = ["python3", "-m", "hpcdl.common.rank_start", "--log-dir", "$LOGS", "--"]
    run = ["python3", "-m", "hpcdl.runtime", f"--strategy={job.layout.strategy}", "$@"]
    return [inside, ["env", "-u", "PYTHONHOME", *environ], start, run]


def _srun(job: Job, profile: Profile) -> List[str]:
    groups = [srun_argv(job.layout, [], watched=False), *_rank_words(job, profile)]
    lines = [line for group in groups for line in _wrapped([_word(word) for word in group])]
    return [lines[0] + " \\", *(f"    {line} \\" for line in lines[1:-1]), "    " + lines[-1]]


def _wrapped(words: Sequence[str]) -> List[str]:
    """Joins words to lines of a width that fits on a screen."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < _WIDTH:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def _word(word: str) -> str:
    """Quotes a word for the shell; one with a variable so that the variable is still one."""
    return f'"{word}"' if "$" in word else shlex.quote(word)


def _submitit(job: Job, profile: Profile, place: _Place) -> str:
    # The batch file is what runs, on the first node; what it asks of Slurm in comments is asked here.
    left_out = ("setup", "wckey", "stderr_to_stdout", "signal_delay_s")
    asked = {name: value for name, value in parameters(job).items() if name not in left_out}
    slurm = "".join(f"    slurm_{name}={_python(value)},\n" for name, value in sorted(asked.items()))
    return f'''"""{profile.site.title} by submitit: runs {job.layout.strategy}.sbatch, which stands beside this file.

    python jobs/{place.site}/submitit_job.py train.py --my-flag

Rendered by python -m hpcdl.launch.templates.
"""

import subprocess
import sys
from pathlib import Path

import submitit

script = Path(__file__).resolve().with_name("{job.layout.strategy}.sbatch")
executor = submitit.AutoExecutor(folder="hpcdl-logs/%j", cluster="slurm")
executor.update_parameters(
{slurm})
executor._executor.update_parameters(wckey=None)  # submitit's own is refused by clusters that know no keys
print(executor.submit(subprocess.check_call, ["bash", str(script), *sys.argv[1:]]).job_id)
'''


def _python(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value).replace("'", '"')


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
