"""What hpcdl adds to Slurm's own times, on the private Slurm: to submit, to plan, and to begin.

Three times, each beside what Slurm does without hpcdl, in interleaved rounds: from Enter to the job's id, against a
bare sbatch; `hpcdl submit --dry-run`; and from the start of the batch script to rank 0's first training step, against
a bare srun of the same image, Python and script. Each round is written when it is over, and a further call adds
rounds, so a measurement may be made in pieces.

Synopsis::

    python -m tools.cluster run -- python tools/launch_speed.py --rounds 7 --json launch-speed.json
    python tools/launch_speed.py --rounds 0 --json launch-speed.json          # only the table
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.common.errors import BadInput, HpcdlError  # noqa: E402
from hpcdl.common.records import read_json, write_json  # noqa: E402
from tools.environments import guarded  # noqa: E402

_WAIT_S = 300.0
_NODES = ("--nodes=2", "--cpus-per-task=1", "--mem=3000M", "--time=5")

#: Plain Keras, so that srun can start it as well; rank 0 notes when its first step is over.
SCRIPT = """
import os, sys, time
import numpy as np
import tensorflow as tf
x = np.zeros((64, 8), "float32")
model = tf.keras.Sequential([tf.keras.Input((8,)), tf.keras.layers.Dense(1)])
model.compile(optimizer="sgd", loss="mse")
class First(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 0 and os.environ["SLURM_PROCID"] == "0":
            with open(sys.argv[1] + ".tmp", "w") as file:
                file.write(str(time.time()))
            os.replace(sys.argv[1] + ".tmp", sys.argv[1])
model.fit(x, x[:, :1], batch_size=32, verbose=0, callbacks=[First()])
"""

#: What is measured, beside what, and the goal: of the difference, or of the whole.
_NAMES = {
    "submit": ("Enter to job id", "sbatch", "< 1 s more"),
    "dry_run": ("`hpcdl submit --dry-run`", "python -c pass", "< 0.3 s"),
    "first_step": ("batch script to first step", "srun", "<= 2 s more"),
}


class Bench:
    """Measures in a folder that all nodes see.

    Args:
        folder: The folder.
        image: The image that both run in; None: the Python that runs this.
    """

    def __init__(self, folder: Path, image: Optional[str]) -> None:
        self._folder = folder
        self._image = image
        # Modules are compiled once, as where they are installed.
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._environ = {
            **kept,
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        (folder / "first.py").write_text(SCRIPT)
        self._run([sys.executable, "-m", "hpcdl", "site", "init", "box"])
        own = folder / "config" / "hpcdl" / "sites" / "box.toml"
        (own.parents[1] / "config.toml").write_text(f'shared_folder = "{folder}"\n')
        head, mark, rest = own.read_text().partition("[sources")
        own.write_text(f'{head}setup = [["{self._stamp()}"], "cluster"]\n\n{mark}{rest}')

    def round(self, number: int) -> Dict[str, Dict[str, float]]:
        """Measures each once; the one first that was second in the round before."""
        held = self._hpcdl("--sbatch-arg=--hold", "first.py", "x")
        bare = [
            "sbatch",
            "--parsable",
            "--hold",
            *_NODES,
            "--ntasks=2",
            f"--wrap={shlex.join(self._srun('x'))}",
        ]
        step = str(self._folder / "step")
        wrap = f"{self._stamp()}\n{shlex.join(self._srun(step))}"
        batch = ["sbatch", "--parsable", *_NODES, "--ntasks=2", f"--wrap={wrap}"]
        return {
            "submit": in_turn(
                number,
                bare=lambda: self._times(bare, cancel=True),
                hpcdl=lambda: self._times(held, cancel=True),
            ),
            "dry_run": in_turn(
                number,
                bare=lambda: self._times([sys.executable, "-c", "pass"]),
                hpcdl=lambda: self._times(self._hpcdl("--dry-run", "first.py", "x")),
            ),
            "first_step": in_turn(
                number,
                bare=lambda: self._first_step(batch, step),
                hpcdl=lambda: self._first_step(self._hpcdl("first.py", step), step),
            ),
        }

    def _stamp(self) -> str:
        return f"date +%s.%N > {self._folder}/start"

    def _srun(self, step: str) -> List[str]:
        enter = [] if self._image is None else ["apptainer", "exec", "--bind", str(self._folder), self._image]
        python = sys.executable if self._image is None else "python3"
        srun = ["srun", "--nodes=2", "--ntasks=2", "--cpus-per-task=1"]
        return [*srun, *enter, python, str(self._folder / "first.py"), step]

    def _hpcdl(self, *words: str) -> List[str]:
        image = ["--image", self._image or "none", "--gpus-per-node", "0"]
        return [
            sys.executable,
            "-m",
            "hpcdl",
            "submit",
            "--site",
            "box",
            *_NODES,
            "--np",
            "2",
            *image,
            *words,
        ]

    def _times(self, argv: Sequence[str], cancel: bool = False) -> float:
        started = time.monotonic()
        said = self._run(argv)
        took_s = time.monotonic() - started
        if cancel:
            self._run(["scancel", said.split()[-1]])
        return took_s

    def _first_step(self, argv: Sequence[str], step: str) -> float:
        for name in (step, f"{self._folder}/start"):
            Path(name).unlink(missing_ok=True)
        job_id = self._run(argv).split()[-1]
        deadline = time.monotonic() + _WAIT_S
        while not os.path.exists(step) or self._run(["squeue", "-h", "-j", job_id, "-o", "%i"]).strip():
            if time.monotonic() > deadline:
                raise HpcdlError(f"job {job_id} made no step within {_WAIT_S:g} s; see {self._folder}")
            time.sleep(0.2)
        return float(Path(step).read_text()) - float((self._folder / "start").read_text())

    def _run(self, argv: Sequence[str]) -> str:
        done = subprocess.run(
            list(argv), cwd=self._folder, env=self._environ, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise HpcdlError(f"`{shlex.join(argv)}` fails: {done.stderr.strip()}")
        return done.stdout


def in_turn(number: int, **ways: Callable[[], float]) -> Dict[str, float]:
    """Measures two ways; which one comes first changes from round to round."""
    return {way: ways[way]() for way in (reversed(list(ways)) if number % 2 else ways)}


def table(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> List[str]:
    """Writes the medians, and of a difference the median of the rounds' own differences."""
    lines = ["| time | without hpcdl | with hpcdl | difference | goal |", "|---|---|---|---|---|"]
    for name, (title, beside, goal) in _NAMES.items():
        bare_s, own_s = ([one[name][key] for one in rounds] for key in ("bare", "hpcdl"))
        added_s = median(own - bare for own, bare in zip(own_s, bare_s))
        lines.append(
            f"| {title} | {median(bare_s):.2f} s (`{beside}`) | {median(own_s):.2f} s | {added_s:.2f} s | {goal} |"
        )
    return lines


def main(argv: Sequence[str]) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="What hpcdl adds to Slurm's own times.")
    parser.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="measure N more rounds (default: 7)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the rounds in FILE, with those in it")
    options = parser.parse_args(list(argv))
    kept = options.json is not None and options.json.exists()
    tree: Dict[str, Any] = read_json(options.json) if kept else {"rounds": []}
    if options.rounds and "HPCDL_TEST_CLUSTER" not in os.environ:
        raise BadInput(
            f"this needs a cluster of its own; try python -m tools.cluster run -- python {sys.argv[0]}"
        )
    if options.rounds:
        with tempfile.TemporaryDirectory(dir=Path(os.environ["HPCDL_TEST_CLUSTER"]) / "shared") as folder:
            bench = Bench(Path(folder), os.environ.get("HPCDL_TEST_IMAGE"))
            for _ in range(options.rounds):
                load = os.getloadavg()[0]
                tree["rounds"].append({**bench.round(len(tree["rounds"])), "load": {"before": load}})
                if options.json is not None:
                    write_json(options.json, tree)
    if not tree["rounds"]:
        raise BadInput(
            f"there must be rounds; received {options.rounds} and a file without any; pass --rounds 7"
        )
    print("\n".join([f"{len(tree['rounds'])} rounds; medians", "", *table(tree["rounds"])]))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
