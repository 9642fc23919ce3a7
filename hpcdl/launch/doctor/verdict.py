"""What a check found: ok, warning or failed, on what evidence, and what cures it.

Synopsis::

    print("\\n".join(render(findings)))
    status = EXIT_FAILED if is_ill(findings) else EXIT_DONE
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: Its name.
        where: ``host``, ``image`` or ``nodes``.
        status: ``ok``, ``warning`` or ``failed``.
        evidence: What was seen.
        cure: What to do; empty where all is well.
    """

    check: str
    where: str
    status: str
    evidence: str
    cure: str = ""


def is_ill(findings: Sequence[Finding]) -> bool:
    """Whether anything failed."""
    return any(one.status == FAILED for one in findings)


def render(findings: Sequence[Finding]) -> List[str]:
    """Writes findings for people: a line each, and the cure below it."""
    lines, where = [], ""
    for one in findings:
        if one.where != where:
            where = one.where
            lines.append(f"{where}:")
        lines.append(f"  {one.status:<8} {one.check:<14} {one.evidence}")
        if one.cure:
            lines.append(f"  {'':<8} {'':<14} cure: {one.cure}")
    count = {status: sum(one.status == status for one in findings) for status in (OK, WARNING, FAILED)}
    return [*lines, ", ".join(f"{number} {status}" for status, number in count.items())]


def as_tree(findings: Sequence[Finding], facts: Dict[str, Any]) -> Dict[str, Any]:
    """Gives findings and the facts behind them for a file of JSON."""
    return {
        "ok": not is_ill(findings),
        "findings": [dataclasses.asdict(one) for one in findings],
        "facts": facts,
    }
