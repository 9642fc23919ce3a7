"""Bad input, as a user meets it: a command, status 2, one line with the rule, what was received and the way out.

Nothing is written. What the launch side refuses goes through `hpcdl`, what a rank refuses through the entry of a rank,
which `hpcdl train` of one process becomes; both in this process, to be quick.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Mapping, Optional, Sequence

import pytest
import tensorflow as tf

from hpcdl.launch.cli import main as hpcdl_main
from hpcdl.launch.machine import Machine
from hpcdl.launch.submission.job import SCHEMA_VERSION as JOB_SCHEMA
from hpcdl.runtime.__main__ import main as rank_main
from hpcdl.runtime.idx import idx_header
from tests.parallel.test_functions import MODULE

WORKLOAD = "fashion_mnist/fc64"
#: What every script begins with.
SCRIPT = """
import numpy as np
import tensorflow as tf
import hpcdl

keras = tf.keras
x, y = np.zeros((20, 4)), np.zeros((20, 1))

def build(units=1, optimizer="sgd", loss="mse", **arguments):
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
    made.compile(optimizer, loss=loss, jit_compile=False, **arguments)
    return made

run = hpcdl.init(run_dir="run")
with run.scope():
    model = build()
"""
CLASSES = "with run.scope():\n    model = build(3, loss='sparse_categorical_crossentropy')\n"
FIT = "run.fit(model, x, y, global_batch_size=4)"


@dataclass(frozen=True)
class Case:
    """A command and what it must say.

    Attributes:
        argv: After ``hpcdl``; or, where ``script`` is given, of a rank that trains it.
        said: Words of the message, in order: the rule, what was received, the way out.
        script: What follows SCRIPT in ``train.py``.
        environ: Variables.
        machine: Where the command is typed; None: this one.
        files: Content by name.
    """

    argv: Sequence[str]
    said: Sequence[str]
    script: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    machine: Optional[Machine] = None
    files: Mapping[str, bytes] = field(default_factory=dict)


def of_train(*words, said, **more):
    return Case(("train", *words), said, **more)


def of_script(code, *said, **more):
    return Case(("train.py",), said, script=code, **more)


def of_rank(*words, said, **more):
    return Case(words, said, script=None, **more)


def own(*words):
    return [*words, "--data", "my_module:data"]


FOREIGN_RUN = json.dumps({"status": "done", "identity": {"global_batch_size": 8, "seed": 0}}).encode()
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
ZEROS = {
    f"data/{name}": idx_header(array) + array.tobytes()
    for name, array in zip(
        NAMES,
        [
            tf.zeros(shape, tf.uint8).numpy()
            for shape in ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
        ],
    )
}
CUT = {**ZEROS, f"data/{NAMES[1]}": ZEROS[f"data/{NAMES[1]}"][:-5]}

CASES = {
    # The command and its words.
    "no command": Case(("trian", "x.py"), ("unknown command 'trian'", "did you mean train", "see hpcdl --help")),
    "no target": of_train("--np", "2", said=("needs a TARGET", "received none", "e.g.")),
    "no form of a target": of_train("train.sh", said=("TARGET must be", "received 'train.sh'", "e.g.")),
    "an option with a near name": of_train(
        WORKLOAD, "--epoch", "3", said=("unknown option '--epoch'", "did you mean --epochs", "see hpcdl train")
    ),
    "an option far from all": of_train("--zzz", "1", "x.py", said=("unknown option '--zzz'", "see hpcdl train --help")),
    "mpirun's -np": of_train("-np", "2", WORKLOAD, said=("unknown option '-np'", "use --np, or -n")),
    "sbatch's --gres": Case(
        ["submit", "--site", "local", "--gres=gpu:v100-32:8", WORKLOAD],
        ("unknown option '--gres=gpu:v100-32:8'", "use --gpus-per-node"),
    ),
    "a number of nodes behind a script": Case(
        ["submit", "--site", "local", "mine.py", "-N4"],
        ("options stand before TARGET", "received -N4 after mine.py", "-- mine.py -N4"),
        files={"mine.py": b"# takes --Name -Number"},
    ),
    "an option of hpcdl's behind a script": Case(
        ["train", "mine.py", "--mine", "--dry-run"],
        ("options stand before TARGET", "received --dry-run after mine.py", "-- mine.py --dry-run"),
        files={"mine.py": b"print()"},
    ),
    "an unknown switch before an option": of_train(
        "--zzz", "--np", "2", WORKLOAD, said=("unknown option '--zzz'", "see hpcdl train --help")
    ),
    "an option without its value": of_train(WORKLOAD, "--epochs", said=("--epochs", "expected one argument", "see")),
    "a value for a switch": of_train("--fresh=1", "x.py", said=("--fresh", "'1'", "see hpcdl train --help")),
    "a word too many": of_train(WORKLOAD, "fc64", said=("takes options only here", "received 'fc64'", "see")),
    "an unknown strategy": of_train(
        "--strategy", "horovodd", WORKLOAD, said=("unknown --strategy 'horovodd'", "did you mean horovod", "use one of")
    ),
    "an unknown launcher": of_train("--launcher", "slurm", WORKLOAD, said=("--launcher 'slurm'", "use one of auto")),
    "a network without its data": of_train(
        "fc64", said=("workload data/network", "received 'fc64'", "did you mean mnist/fc64, fashion_mnist/fc64")
    ),
    "an unknown workload": of_train("mnist/fc63", said=("unknown workload 'mnist/fc63'", "did you mean mnist/fc64")),
    "a workload on unknown data": of_train(
        "fashion/fc64", said=("unknown workload 'fashion/fc64'", "written data/network", "did you mean fashion_mnist")
    ),
    "an unknown scaling": of_train(
        WORKLOAD, "--lr-scaling", "liner", said=("unknown --lr-scaling 'liner'", "did you mean linear", "use one of")
    ),
    "an unknown precision": of_train(WORKLOAD, "--precision", "fp16", said=("--precision 'fp16'", "mixed_float16")),
    "no processes": of_train("--np", "0", WORKLOAD, said=("--np must be a whole number >= 1", "received 0", "pass")),
    "processes that are no number": of_train("-n", "two", WORKLOAD, said=("--np must be", "'two'", "pass e.g. 1")),
    "no replicas": of_train(
        "--replicas-per-process", "0", WORKLOAD, said=("--replicas-per-process must be", "received 0", "pass")
    ),
    "more processes than cores": of_train("--np", "4096", WORKLOAD, said=("np=4096", "--oversubscribe")),
    "more replicas than cores": of_train(
        "--replicas-per-process", "4096", WORKLOAD, said=("4096", "--oversubscribe")
    ),
    "more processes than GPUs": of_train(
        "--np", "3", WORKLOAD, said=("every replica needs a GPU", "received np=3 on box with 2 GPUs", "--oversubscr"),
        machine=Machine("box", tuple((cpu,) for cpu in range(8)), num_gpus=2),
    ),
    "a negative number of restarts": of_train("--restarts", "-1", "x.py", said=("--restarts must", "-1", "pass")),
    "half an epoch": of_train(WORKLOAD, "--epochs", "0.5", said=("--epochs must be", "'0.5'", "pass e.g. 1")),
    "a learning rate of 0": of_train(
        WORKLOAD, "--learning-rate", "0", said=("--learning-rate must be a number > 0", "received '0'", "pass")
    ),
    "a warmup without an end": of_train(
        WORKLOAD, "--warmup-epochs", "inf", said=("--warmup-epochs must be a number >= 0", "'inf'", "pass")
    ),
    "both batch sizes": of_train(
        WORKLOAD, "--per-replica-batch-size=32", "--global-batch-size=64", said=("received both (32 and 64)", "leave")
    ),
    "a bare batch size": of_train(
        WORKLOAD, "--batch-size", "32", said=("must say whose it is", "received --batch-size", "--per-replica-batch")
    ),
    "options of workloads for a script": of_train(
        "--epochs", "2", "x.py", said=("a script takes no options of workloads", "received --epochs", "put them after")
    ),
    "an interval without a unit": of_train(
        "--checkpoint-every", "10", "x.py", said=("--checkpoint-every must be", "'10'", "pass e.g. 10min")
    ),
    "a folder without a name": of_train("--run-dir=", "x.py", said=("must name a folder", "empty", "pass e.g.")),
    "a model without data": of_train("m:build", said=("needs --data", "received none", "pass e.g. --data m:data")),
    "data for a workload": of_train(
        WORKLOAD, "--data", "m:data", said=("a workload has its own data", "received --data m:data", "leave it out")
    ),
    "data that are no function": of_train(
        "m:build", "--data", "data.py", said=("--data must be module:function", "'data.py'", "pass e.g.")
    ),
    "a folder for made-up data": of_train(
        "synthetic/resnet50", "--data-dir", "d", said=("--data-dir is for", "received d", "leave it out")
    ),
    "mpi by one's own processes": of_train(
        "--np", "2", "--oversubscribe", "--launcher", "gloo", "--controller", "mpi", WORKLOAD,
        said=("MPI connects only ranks that mpirun started", "received launcher gloo", "leave one of them out"),
    ),
    "another world than the launcher's": of_train(
        "--np", "3", WORKLOAD, said=("np must be the world size", "received np=3", "leave --np out"),
        environ={"HPCDL_RANK": "0", "HPCDL_WORLD_SIZE": "2", "HPCDL_LOCAL_RANK": "0", "HPCDL_LOCAL_WORLD_SIZE": "2"},
    ),
    "an image outside of a job": of_train(
        "--image", "foo.sif", WORKLOAD, said=("are for ranks", "by srun", "received --image foo.sif", "hpcdl submit")
    ),
    "a site outside of a job": of_train(
        "--site", "nowhere", WORKLOAD, said=("are for ranks", "received --site nowhere", "use hpcdl submit")
    ),
    "a variable of no meaning": of_train(
        WORKLOAD, said=("HPCDL_CONTROLLER", "'nccl'", "use one of mpi, gloo"), environ={"HPCDL_CONTROLLER": "nccl"}
    ),
    "an unknown data set": Case(
        ("data", "fetch", "minst"), ("unknown data set 'minst'", "did you mean mnist")
    ),
    "an unknown site": Case(
        ("submit", "--site", "bridges3", "x.py"), ("bridges3", "bridges2"), files={"x.py": b""}
    ),
    "a run that is none": Case(("show", "nowhere"), ("RUN must be a folder", "received nowhere", "`ls runs`")),
    "a study without a target": Case(
        ("bench", "--np", "1,2"), ("hpcdl bench run needs a TARGET", "received none", "e.g. hpcdl bench run ")
    ),
    "a study with an unknown option": Case(
        ("bench", "--np", "1,2", "--zzz", WORKLOAD), ("unknown option '--zzz'", "see hpcdl bench run --help")
    ),
    "a study here with the words of one at a site": Case(
        ("bench", "--np", "1,2", "-t", "20", WORKLOAD), ("-t belongs to a study at a site", "add --site NAME")
    ),
    "a study at a site with an unknown option": Case(
        ("bench", "--site", "bridges2", "-N", "1,2", "--zzz", WORKLOAD),
        ("unknown option '--zzz'", "see hpcdl bench --site NAME --help"),
    ),
    "a report of nothing": Case(
        ("bench", "report", "nothing"), ("studies and runs", "received nothing", "not there", "name another")
    ),
    "a report of a folder of studies": Case(
        ("bench", "report", "bench"), ("studies and runs", "received bench", "holds such", "name them: bench/*"),
        files={"bench/first/study.json": b"{}"},
    ),
    "a comparison with nothing": Case(
        ("bench", "compare", "nothing", "nothing"),
        ("with a study.json", "received nothing/study.json (No such file or directory)"),
    ),
    "a prediction from nothing": Case(
        ("bench", "predict", "--num-replicas", "4"), ("takes studies, a --table", "received none of them", "pass one")
    ),
    "a prediction from two kinds": Case(
        ("bench", "predict", "bench/first", "--table", "x.csv", "--num-replicas", "4"),
        ("takes studies, a --table", "received bench/first and --table x.csv", "pass one"),
    ),
    "a table without its columns": Case(
        ("bench", "predict", "--table", "x.csv", "--num-replicas", "4"),
        ("the columns replicas,samples_per_second", "received x.csv", "the columns ranks,rate", "name them in"),
        files={"x.csv": b"ranks,rate\n1,100\n"},
    ),
    "a table without a number": Case(
        ("bench", "predict", "--table", "x.csv", "--num-replicas", "4"),
        ("samples_per_second in line 2 of x.csv must be a number > 0", "received 'fast'", "pass"),
        files={"x.csv": b"replicas,samples_per_second\n1,fast\n"},
    ),
    "a table of no rows": Case(
        ("bench", "predict", "--table", "x.csv", "--num-replicas", "4"),
        ("at least 2 different counts", "received none", "measure at more counts"),
        files={"x.csv": b"replicas,samples_per_second\n"},
    ),
    "a study to go on with that is damaged": Case(
        ("bench", "--study", "st", "--dry-run", "--np", "1", WORKLOAD),
        ("st/study.json, which is damaged", "measure it again"),
        files={"st/study.json": b"{"},
    ),
    "a study at a site to go on with that is damaged": Case(
        ("bench", "--site", "bridges2", "-N", "1", "-A", "x", "--study", "st", "--dry-run", WORKLOAD),
        ("st/study.json, which is damaged", "measure it again"), files={"st/study.json": b"{"},
    ),
    "a run that says nothing": Case(
        ("show", "run"), ("received run/run.json, which is damaged", "lacks a status", "name another"),
        files={"run/run.json": b'{"schema_version": 1}'},
    ),
    "a run of another form": Case(
        ("show", "run"), ("received run/run.json, which is damaged", "its config cannot be read", "name another"),
        files={"run/run.json": b'{"status": "done", "config": []}'},
    ),
    "bytes of an unknown unit": Case(
        ("bench", "allreduce", "--bytes", "4K,4Q"), ("multiples of 4", "K, M or G", "received '4Q'", "pass e.g. 4K")
    ),
    "bytes of half a number": Case(("bench", "allreduce", "--bytes", "6"), ("multiples of 4", "'6'", "pass e.g. 4K")),
    "a definition of another ending": Case(
        ("container", "build", "cpu.txt", "x.sif"),
        ("must be one of cpu, gpu", "ends in .def", "received 'cpu.txt'", "did you mean cpu", "rename the file"),
    ),
    "an image of no scheme": Case(
        ("container", "pull", "nvcr.io/x", "tf.sif"),
        ("must say how it is fetched", "received 'nvcr.io/x'", "pass e.g. docker://nvcr.io/x"),
    ),
    "an image in a folder that is not there": Case(
        ("container", "pull", "docker://x", "gone/tf.sif"),
        ("in a folder that is there", "received gone/tf.sif", "make the folder first"),
    ),
    "a job that is damaged": Case(
        ("jobs", "hpcdl-jobs/one"), ("hpcdl-jobs/one/job.json is damaged", "submit the job again"),
        files={"hpcdl-jobs/one/job.json": b"{", "hpcdl-jobs/one/handle.json": b'{"job_id": "7"}'},
    ),
    "a job that is damaged, by its id": Case(
        ("logs", "7"), ("hpcdl-jobs/one/job.json is damaged", "KeyError: 'layout'", "submit the job again"),
        files={
            "hpcdl-jobs/one/job.json": b'{"schema_version": %d}' % JOB_SCHEMA,
            "hpcdl-jobs/one/handle.json": b'{"job_id": "7"}',
        },
    ),
    "a job that is not there": Case(("jobs", "8"), ("no job 8 in", "jobs there: none", "pass --jobs-dir")),
    "a rank that is no number": Case(
        ("logs", "12345", "--rank", "x"), ("--rank must be a whole number >= 0", "received 'x'", "pass")
    ),
    # What a rank sees before TensorFlow is asked.
    "a script that is not there": of_rank(
        "gone.py", said=("a script that exists", "received gone.py", "check the path")
    ),
    "a module that is not there": of_rank(
        *own("my_modul:build"), said=("a module that exists", "'my_modul:build'", "did you mean my_module")
    ),
    "a function that is not there": of_rank(
        *own("my_module:biuld"), said=("a function that exists", "'my_module:biuld'", "did you mean build")
    ),
    "a name that is no function": of_rank(
        *own("my_module:scale"), said=("must name a function", "'my_module:scale'", "name a function")
    ),
    "a folder of data that is not there": of_rank(
        WORKLOAD, "--data-dir", "gone", said=("--data-dir gone is no folder", "create it", "leave it out")
    ),
    "a data file cut short": of_rank(
        WORKLOAD, "--data-dir", "data", said=(NAMES[1], "60008 bytes", "60003"), files=CUT
    ),
    "data of another content": of_rank(
        WORKLOAD, "--data-dir", "data", said=(NAMES[0], "SHA-256", "found", "replace it"), files=ZEROS
    ),
    "no network and no data": of_rank(
        "mnist/fc64", said=("no data for mnist: looked in", "no route to host", "hpcdl data fetch mnist")
    ),
    # What run.fit refuses.
    "an unknown strategy in a variable": of_script(
        "",
        "unknown HPCDL_STRATEGY 'miror'",
        "did you mean mirrored",
        "use one of",
        environ={"HPCDL_STRATEGY": "miror"},
    ),
    "another backend": of_script("", "must compute with TensorFlow", "KERAS_BACKEND=jax", "unset it",
        environ={"KERAS_BACKEND": "jax"}),
    "no batch size": of_script("run.fit(model, x, y)", "exactly one of", "received neither", "global ="),
    "two batch sizes": of_script(
        "run.fit(model, x, y, global_batch_size=4, per_replica_batch_size=4)", "exactly one of", "received", "4"
    ),
    "a batch size of whatever": of_script(
        "run.fit(model, x, y, batch_size=4)", "must say of what", "received batch_size=4", "per_replica_batch_size=4"
    ),
    "a batch larger than the data": of_script(
        "run.fit(model, x, y, global_batch_size=32)", "not be larger than the data", "32", "20 samples", "smaller"
    ),
    "an uncompiled model": of_script(
        "with run.scope():\n    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])\n" + FIT,
        "must be compiled", "received one without an optimizer", "model.compile",
    ),
    "a model that is none": of_script(
        "run.fit(print, x, y, global_batch_size=4)", "the model must be made by", "builtin_function", "tf.keras"
    ),
    "a model built outside the scope": of_script(
        "model = build()\n" + FIT, "inside `with run.scope():`", "which was built outside", "indent"
    ),
    "a model that is not built": of_script(
        "with run.scope():\n    model = keras.Sequential([keras.layers.Dense(1)])\n"
        "    model.compile('sgd', 'mse')\n" + FIT,
        "must have its variables", "is not built", "keras.Input",
    ),
    "an optimizer of Horovod's": of_script(
        "model.optimizer._allreduce_grads = None\n" + FIT, "must be a plain Keras one", "Horovod", "take hvd."
    ),
    "an optimizer that Horovod has wrapped": of_script(
        "import horovod.tensorflow.keras as hvd\n"
        "with run.scope():\n    model = build(optimizer=hvd.DistributedOptimizer(keras.optimizers.SGD()))\n" + FIT,
        "must be a plain Keras one", "wrapped by Horovod", "take hvd.DistributedOptimizer away",
    ),
    "a callback of no class": of_script(
        "run.fit(model, x, y, global_batch_size=4, callbacks=[print])", "derived from", "received"
    ),
    "a callback that resumes by itself": of_script(
        "run.fit(model, x, y, global_batch_size=4, callbacks=[keras.callbacks.BackupAndRestore('kept')])",
        "saves and resumes by itself", "received the callback BackupAndRestore", "take it away",
    ),
    "a best checkpoint by no direction": of_script(
        "run.fit(model, x, y, global_batch_size=4, best_by='most:val_loss')",
        "best_by must be", "min: or max:", "received 'most:val_loss'", "pass e.g. val_loss",
    ),
    "no checkpoints to keep": of_script(
        "run.fit(model, x, y, global_batch_size=4, keep_checkpoints=0)",
        "keep_checkpoints must be a whole number >= 1", "received 0", "pass e.g. 1",
    ),
    "a checkpoint of an unknown interval": of_script(
        "run.fit(model, x, y, global_batch_size=4, checkpoint_every='1epok')",
        "must be", "'1epok'", "did you mean 1epoch",
    ),
    "an argument that there is not": of_script(
        "run.fit(model, x, y, global_batch_size=4, epoch=3)", "help(run.fit)", "received epoch=3", "did you mean epochs"
    ),
    "an argument of Keras' alone": of_script(
        "run.fit(model, x, y, global_batch_size=4, validation_split=0.2)",
        "must be given", "received validation_split=0.2", "pass the one part as validation_data",
    ),
    "a wish for words that Keras does not know": of_script(
        "run.fit(model, x, y, global_batch_size=4, verbose='x')", "verbose must be", "received 'x'", "pass 0"
    ),
    "an unknown way of scaling": of_script(
        "run.fit(model, x, y, global_batch_size=4, lr_scaling='root')", "unknown lr_scaling 'root'", "use one of linear"
    ),
    "rows that do not match": of_script(
        "run.fit(model, x, y[:7], global_batch_size=4)", "the same number of rows", "received [20, 7]"
    ),
    "no y": of_script(
        "run.fit(model, x, global_batch_size=4)", "needs a y", "received x alone as training data", "pass y as well"
    ),
    "no y to validate on": of_script(
        "run.fit(model, x, y, global_batch_size=4, validation_data=x)", "needs a y", "as validation data", "(x, y)"
    ),
    "a bare batch size without a name": of_script(
        "run.fit(model, x, y, 32)", "must say of what", "received batch_size=32", "per_replica_batch_size=32"
    ),
    "weights that are no dict": of_script(
        CLASSES + "run.fit(model, x, np.arange(20) % 3, global_batch_size=4, class_weight=[1, 2, 3])",
        "must be a dict", "received [1, 2, 3]", "pass e.g. {0: 1.0",
    ),
    "an input of another shape": of_script(
        "run.fit(model, np.zeros((20, 5)), y, global_batch_size=4)", "shapes must fit", "(4)", "(5,)", "reshape"
    ),
    "a target of another shape": of_script(
        "run.fit(model, x, np.zeros((20, 3)), global_batch_size=4)", "shapes must fit", "(1)", "(3,)", "reshape"
    ),
    "one-hot rows for a loss of numbers": of_script(
        CLASSES + "run.fit(model, x, np.eye(3)[np.arange(20) % 3], global_batch_size=4)",
        "shapes must fit", "()", "(3,)", "take categorical_crossentropy",
    ),
    "an input to evaluate on of another shape": of_script(
        "run.evaluate(model, np.zeros((20, 5)), y)", "shapes must fit", "(4)", "(5,)", "reshape"
    ),
    "NaN in the input": of_script(
        "x[7, 2] = np.nan\n" + FIT, "must be finite numbers", "received NaN in x", "row 7", "leave such rows out"
    ),
    "a label outside the classes": of_script(
        CLASSES + "y = np.arange(20) % 4\n" + FIT, "labels must be 0 to 2", "received 3", "row 3", "number the classes"
    ),
    "NaN in a target": of_script(
        "y[7] = np.nan\n" + FIT, "must be finite numbers", "received NaN in y", "row 7", "leave such rows out"
    ),
    "NaN in a weight": of_script(
        "run.fit(model, x, y, np.full(20, np.nan), global_batch_size=4)", "received NaN in sample_weight", "row 0"
    ),
    "a label that is no whole number": of_script(
        CLASSES + "y = np.arange(20) % 4 / 2\n" + FIT, "whole numbers", "received 0.5", "row 1", "number the classes"
    ),
    "a callback that watches what the logs will lack": of_script(
        "run.fit(model, x, y, global_batch_size=4, callbacks=keras.callbacks.EarlyStopping('los'))",
        "must be in the logs", "received monitor='los' of EarlyStopping", "did you mean loss?", "validation_data",
    ),
    "a file that is named by what the logs will lack": of_script(
        "run.fit(model, x, y, global_batch_size=4, validation_data=(x, y),"
        " callbacks=keras.callbacks.ModelCheckpoint('{val_acc:.2f}.keras'))",
        "must be in the logs", "received filepath='val_acc' of ModelCheckpoint", "they will have loss, ", "val_loss",
    ),
    "NaN in the validation data": of_script(
        "run.fit(model, x, y, global_batch_size=4, validation_data=(x * np.nan, y))", "NaN in x of the validation data"
    ),
    "a run folder of another run": of_script(
        FIT, "goes on with the run that it holds", "received run", "global_batch_size 8, now 4", "another --run-dir",
        files={"run/run.json": FOREIGN_RUN},
    ),
    "a folder that holds no run": of_script(
        FIT, "must be new, or hold a run", "received run", "notes.txt", "pass another --run-dir",
        files={"run/notes.txt": b"mine"},
    ),
    "a run folder that cannot be written": of_script(
        FIT, "must be one that can be written", "received run/of-mine", "Not a directory", "pass another --run-dir",
        files={"run": b"a file"}, environ={"HPCDL_RUN_DIR": "run/of-mine"},
    ),
    "an end that is past": of_script(
        FIT, "must be in the future", "received 12", "pass a later --end-time", environ={"HPCDL_END_TIME": "12"}
    ),
    "a model under a name that is none of Keras'": of_script(
        "run.save(model, 'model.h5')", "Keras' own format", "received model.h5", "ends in .keras"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _as_a_process_finds_it(tmp_path, monkeypatch):
    """Gives each case a folder and the variables of a shell, and takes back what a rank does to its process."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("HPCDL_", "SLURM_", "OMPI_", "KERAS_")):
            monkeypatch.delenv(name)
    for name in ("HPCDL_CACHE", "KERAS_HOME", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def no_network(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    yield
    sys.modules.pop("my_module", None)
    os.environ.clear()
    os.environ.update(before)


def files_in(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.suffix != ".lock"  # of the cache of data
    }


@pytest.mark.parametrize("name", CASES)
def test_is_one_line_with_status_2_and_nothing_written(name, tmp_path, monkeypatch, capfd):
    case = CASES[name]
    (tmp_path / "my_module.py").write_text(MODULE)
    if case.script is not None:
        (tmp_path / "train.py").write_text(SCRIPT + case.script)
    for path, content in case.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    for variable, value in case.environ.items():
        monkeypatch.setenv(variable, value)
    if case.machine is not None:
        monkeypatch.setattr("hpcdl.launch.local.read_machine", lambda environ: case.machine)
    before = files_in(tmp_path)

    is_of_rank = case.script is None or case.argv == ("train.py",)
    status = (rank_main if is_of_rank else hpcdl_main)(list(case.argv))

    told = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert status == 2, told
    assert len(told) == 1, told
    assert told[0].startswith("hpcdl: ")
    at = 0
    for words in case.said:
        assert words in told[0][at:], (words, told[0])
        at = told[0].index(words, at)
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        (["gone.py"], {}),
        ([WORKLOAD, "--data-dir", "gone"], {}),
        ([WORKLOAD], {"HPCDL_DATA": "gone"}),
        (own("my_modul:build"), {}),
        (own("my_pack.models:build"), {}),
        (["my_module:build", "--data", "my_dat:data"], {}),
    ],
)
def test_ranks_are_not_started_for_what_each_would_refuse_and_the_words_are_theirs(
    words, environ, tmp_path, monkeypatch, capfd
):
    (tmp_path / "my_module.py").write_text(MODULE)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    assert rank_main(words) == 2
    of_rank = capfd.readouterr().err
    assert hpcdl_main(["train", "--np", "2", "--oversubscribe", *words]) == 2
    assert capfd.readouterr().err == of_rank
    assert not (tmp_path / "hpcdl-logs").exists()


def test_there_are_enough_cases():
    assert len(CASES) >= 60


def test_of_a_dry_run_only_that_is_written_which_a_script_writes_before_it_fits(tmp_path, monkeypatch, capfd):
    wish = "open(f'before-{run.rank}-of-{run.world_size}', 'w').close()\n"
    (tmp_path / "train.py").write_text(SCRIPT + wish + FIT + "\nopen('after', 'w').close()\n")
    monkeypatch.setenv("HPCDL_PLAN_WORLD_SIZE", "2")  # as `hpcdl train --np 2 --dry-run` sets it
    assert rank_main(["train.py"]) == 0
    assert "2 processes" in capfd.readouterr().out
    assert set(files_in(tmp_path)) == {"train.py", "before-0-of-2"}
