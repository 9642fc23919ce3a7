"""The command ``hpcdl bench``: finds what is asked for, and loads that only.

Synopsis::

    sys.exit(main(["allreduce", "--np", "2"]))
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import Callable, Mapping, Sequence

from hpcdl.common.checks import did_you_mean
from hpcdl.common.errors import EXIT_DONE, BadInput

#: Word -> module whose ``main`` takes what stands after it, and its purpose.
_PARTS: Mapping[str, Sequence[str]] = {
    "run": (
        "hpcdl.launch.bench.run",
        "measure how a TARGET scales, here or at a site; `hpcdl bench TARGET` is the same",
    ),
    "report": ("hpcdl.launch.bench.report", "write tables, pictures and text from studies"),
    "compare": ("hpcdl.launch.bench.compare", "say whether one study is slower than another"),
    "predict": ("hpcdl.launch.bench.predict", "predict the throughput at counts that were not measured"),
    "allreduce": ("hpcdl.launch.bench.allreduce", "time sums over all ranks, Horovod's against MPI's own"),
}
_EXAMPLES = (
    "examples:",
    "  hpcdl bench --np 1,2 --study bench/first fashion_mnist/cnn_dropout",
    "  hpcdl bench --site bridges2 -N 1,2,4 -t 20 -A abc123p --dry-run synthetic/resnet50",
    "  hpcdl bench report bench/first",
    "  hpcdl bench compare bench/before bench/after",
    "  hpcdl bench predict bench/first --num-replicas 64,512",
    "  hpcdl bench allreduce",
)


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl bench ARGV``.

    Raises:
        BadInput: There is no such part.
    """
    word = argv[0] if argv else ""
    if word in ("", "-h", "--help"):
        print(_help(), file=sys.stdout if word else sys.stderr)
        return EXIT_DONE if word else BadInput.exit_status
    if word not in _PARTS:
        # A TARGET has a dot, a slash or a colon, an option its dashes.
        hint = did_you_mean(word, _PARTS, most=1, cutoff=0.6) if re.fullmatch(r"\w[\w-]*", word) else ""
        if hint:
            raise BadInput(f"unknown part of hpcdl bench {word!r}; {hint}parts are {', '.join(_PARTS)}")
        word, argv = "run", ["run", *argv]
    run: Callable[[Sequence[str]], int] = importlib.import_module(_PARTS[word][0]).main
    return run(argv[1:])


def _help() -> str:
    width = max(map(len, _PARTS))
    rows = [f"  {word:<{width}}  {purpose}" for word, (_, purpose) in _PARTS.items()]
    return "\n".join(
        [
            "usage: hpcdl bench [run] [OPTIONS] TARGET ...",
            "       hpcdl bench [run] --site NAME -N LIST [OPTIONS] TARGET ...",
            "       hpcdl bench PART [OPTIONS] ...",
            "",
            "Measure how fast training is, and how it scales.",
            "",
            "parts:",
            *rows,
            "",
            *_EXAMPLES,
            "",
            "Options: `hpcdl bench run --help` of a study here, `hpcdl bench --site NAME --help` of one at a site,",
            "`hpcdl bench PART --help` of another part.",
        ]
    )
