"""Where a number comes from: which hpcdl, and the environment that may change it, without what is secret.

The launch side asks git and hands the answer on in ``HPCDL_SOURCE``; a rank starts no program. One that no launcher of
hpcdl's started reads the commit from git's files, and does not know whether anything was changed since.

Synopsis::

    source = read_source(Path(hpcdl.__file__).parent, os.environ)
    source.commit, source.is_changed                   # "3f9a...", False; source is None outside of a checkout
    environment_that_matters(os.environ)               # {"OMP_NUM_THREADS": "4", ...}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Optional

VARIABLE = "HPCDL_SOURCE"
_CHANGED = {True: "changed", False: "clean", None: "unknown"}

#: Variables that may change how fast a run is. Terraform's begin like TensorFlow's, and may be secret.
_MATTERS = re.compile(
    r"(?!TF_(CLI|VAR|TOKEN|REGISTRY|PLUGIN)_|TF_(DATA_DIR|WORKSPACE|INPUT|IN_AUTOMATION|LOG(_.*)?)$)"
    r"(OMP|KMP|GOMP|MKL|OPENBLAS|TF|XLA|CUDA|ROCR|HIP|NCCL|RCCL|UCX|FI|GLOO|HOROVOD|OMPI_MCA|PRTE_MCA|MALLOC|GLIBC|HPCDL"
    r"|KERAS)_.*|LD_PRELOAD|SLURM_(JOB_ID|JOB_NODELIST|JOB_PARTITION|CPUS_PER_TASK|MPI_TYPE)"
    r"|(APPTAINER|SINGULARITY)_CONTAINER"
)
#: What looks like a password or a token, in a text.
_SECRETS = (
    (
        re.compile(
            r"(?i)\b([\w-]*(?:token|secret|passw(?:or)?d|api_?key|credential|jwt)[\w-]*(?:\\?[\"'])?\s*[=:]\s*)"
            r"(?:(\\?[\"'])(?:(?!\2)\\.|(?!\2).)*\2|\S+)"  # in quotes, those of a text within JSON too
        ),
        r"\1\2(removed)\2",
    ),
    (re.compile(r"://[^/\s:@]+:[^/\s@]+@"), "://(removed)@"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "(removed)"),
    (re.compile(r"\b(?:ghp|gho|github_pat|hf|xox[abp]|AKIA)[_-]?[A-Za-z0-9_-]{16,}\b"), "(removed)"),
)


@dataclass(frozen=True)
class Source:
    """The code of hpcdl: a commit, and whether it was changed since; None: not known."""

    commit: str
    is_changed: Optional[bool]

    def to_environ(self) -> Dict[str, str]:
        """Gives the variable that `read_source` reads."""
        return {VARIABLE: f"{self.commit} {_CHANGED[self.is_changed]}"}

    def describe(self) -> str:
        """Says it in a few words."""
        return f"commit {self.commit}{' and changes' if self.is_changed else ''}"


def read_source(package: Path, environ: Mapping[str, str]) -> Optional[Source]:
    """Says which code this is: by the launcher's word, else by git's files beside the package.

    Args:
        package: The folder ``hpcdl``.
        environ: Of this process.
    """
    commit, _, state = environ.get(VARIABLE, "").partition(" ")
    if commit:
        return Source(commit, {word: value for value, word in _CHANGED.items()}.get(state))
    try:
        found = _head(package.parent / ".git")
    except OSError:
        return None
    return Source(found, None) if found else None


def _head(git: Path) -> Optional[str]:
    """Reads the commit that is checked out; None where it cannot be told."""
    if git.is_file():  # a worktree's
        git = (git.parent / git.read_text(encoding="utf-8").partition(": ")[2].strip()).resolve()
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref: "):
        return head
    name = head[len("ref: ") :]
    common = git / "commondir"
    shared = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.exists() else git
    if (shared / name).exists():
        return (shared / name).read_text(encoding="utf-8").strip()
    lines = (shared / "packed-refs").read_text(encoding="utf-8").splitlines()
    return next((line.split()[0] for line in lines if line.endswith(" " + name)), None)


def environment_that_matters(environ: Mapping[str, str]) -> Dict[str, str]:
    """Picks the variables that may change how fast a run is, without their secrets."""
    found = {name: value for name, value in sorted(environ.items()) if _MATTERS.fullmatch(name)}
    return {
        name: without_secrets(f"{name}={value}").partition("=")[2].strip() for name, value in found.items()
    }


def without_secrets(text: str) -> str:
    """Takes out what looks like a password or a token."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
