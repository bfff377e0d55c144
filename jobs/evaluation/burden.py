"""How much of a slide's tissue is tumour: small lesions are another task than large ones."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

NO_TUMOUR: Final = "no tumour"

STRATA: Final = ("< 0.5 %", "0.5-2 %", "> 2 %")
"""Slides by the share of their tiles that is positive; the limits themselves belong to the middle one."""

_LOW, _HIGH = 0.005, 0.02


def burden_of(truth: npt.NDArray[np.bool_]) -> float:
    """Return the share of a slide's tissue tiles that is positive, 0 of a slide without tiles."""
    return float(np.mean(truth)) if truth.size else 0.0


def stratum_of(burden: float) -> str:
    """Return which of :data:`STRATA` a burden falls into, :data:`NO_TUMOUR` if it is 0."""
    if burden <= 0:
        return NO_TUMOUR
    if burden < _LOW:
        return STRATA[0]
    return STRATA[1] if burden <= _HIGH else STRATA[2]
