"""Whether a driver and a GPU run the CUDA that a TensorFlow was built with. Pure functions.

Read in NVIDIA's documentation in November 2026: the oldest driver of each CUDA in "CUDA Compatibility", section "Minor
Version Compatibility"; that an image with the compatibility package runs data-center GPUs on certain older drivers in
the release notes of its TensorFlow images (23.01: R450, R470, R510, R515). Which GPUs a TensorFlow holds code for is no
table of ours: its build says it.

Synopsis::

    findings = [*driver_findings("image", tensorflow, gpus, has_compat=False)]
"""

from __future__ import annotations

import re
from typing import Any, Iterator, List, Mapping, Optional, Sequence, Tuple

from hpcdl.launch.doctor.verdict import FAILED, OK, WARNING, Finding

#: CUDA's major version -> the oldest driver that runs it.
_DRIVERS = {11: 450, 12: 525, 13: 580}


def driver_findings(
    where: str, tensorflow: Mapping[str, Any], gpus: Sequence[Mapping[str, str]], has_compat: bool
) -> Iterator[Finding]:
    """Judges the driver, and the generation of each kind of GPU.

    Args:
        where: Where the GPUs were seen.
        tensorflow: What the TensorFlow says of itself: ``cuda``, and ``gpu_code``, such as ``sm_80``, ``compute_90``.
        gpus: Name, capability and driver of each GPU.
        has_compat: Whether the image holds NVIDIA's compatibility package.
    """
    cuda = tensorflow.get("cuda")
    if not cuda or not gpus:
        return
    yield _driver(where, cuda, gpus[0]["driver"], has_compat)
    code = tensorflow.get("gpu_code") or []
    for name, capability in dict.fromkeys((gpu["name"], gpu["capability"]) for gpu in gpus):
        yield _generation(where, name, capability, code)


def runs_on(code: str, capability: Tuple[int, int]) -> Optional[str]:
    """Tells how code for a generation runs on a GPU: ``as it is``, ``compiled at start``, or not at all (None).

    Machine code (sm) runs on the same major version from its minor version on; PTX (compute) on all that are not older.
    """
    match = re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", code)
    if match is None:
        return None
    kind, own = match.group(1), (int(match.group(2)), int(match.group(3)))
    if kind == "sm":
        return "as it is" if own[0] == capability[0] and own <= capability else None
    return "compiled at start" if own <= capability else None


def _driver(where: str, cuda: str, driver: str, has_compat: bool) -> Finding:
    oldest = _DRIVERS.get(int(cuda.split(".")[0])) if cuda[:1].isdigit() else None
    version = re.match(r"\d+", driver)
    if version is None:
        return Finding("driver", where, OK, f"the driver does not say its version: {driver}")
    if oldest is None or int(version.group(0)) >= oldest:
        return Finding("driver", where, OK, f"driver {driver} runs CUDA {cuda}")
    evidence = f"driver {driver} is older than CUDA {cuda} needs, {oldest}"
    if has_compat:
        return Finding(
            "driver",
            where,
            WARNING,
            f"{evidence}; the image has NVIDIA's compatibility package, which serves data-center GPUs on some older"
            " drivers",
            "see the driver requirements in the image's release notes; take an older image if GPUs are not found",
        )
    return Finding(
        "driver",
        where,
        FAILED,
        evidence,
        "take an image with an older CUDA or with the compatibility package, or ask the centre for a newer driver",
    )


def _generation(where: str, name: str, capability: str, code: List[str]) -> Finding:
    major, _, minor = capability.partition(".")
    known = [one for one in code if re.match(r"(sm|compute)_\d", one)]
    if not known or not (major.isdigit() and minor.isdigit()):
        return Finding(
            "gpu code",
            where,
            OK,
            f"{name} ({capability}); TensorFlow does not say which GPUs it has code for",
        )
    ways = {runs_on(one, (int(major), int(minor))) for one in known}
    evidence = f"{name} ({capability}), TensorFlow has code for {', '.join(known)}"
    if "as it is" in ways:
        return Finding("gpu code", where, OK, evidence)
    if "compiled at start" in ways:
        return Finding(
            "gpu code",
            where,
            WARNING,
            f"{evidence}: it is compiled at each start, which takes minutes",
            "take an image that was built for these GPUs, or keep what was compiled: CUDA_CACHE_PATH and"
            " CUDA_CACHE_MAXSIZE=4294967296 in the profile's environ",
        )
    return Finding(
        "gpu code",
        where,
        FAILED,
        f"{evidence}: none of it runs there",
        "take an image that was built for these GPUs",
    )
