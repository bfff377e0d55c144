"""Where a slide's physical pixel size comes from, and when it is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from store_schema.errors import InputError, MissingMppError

if TYPE_CHECKING:
    from dataflow.slide import SlideInfo

MppSource: TypeAlias = Literal["properties", "objective", "user", "unknown"]

PLAUSIBLE_MPP = (0.05, 10.0)  # [µm/px]; a microscope's slide scanner makes nothing outside
MPP_RANGE = (0.01, 1000.0)  # [µm/px]; what can be given and asked for: beyond it is a wrong unit
ANISOTROPY_NOTED = 0.01  # relative difference of x and y that is worth a note
OBJECTIVE_TIMES_MPP = 10.0  # [µm/px]: 40x is 0.25, 20x is 0.5 on every common scanner


class PhysicalSize(NamedTuple):
    """A level-0 pixel's size and its origin.

    Attributes
    ----------
    mpp
        Mean of x and y [µm/px, level 0], or None.
    source
        ``properties`` (the file says so), ``objective`` (derived from the magnification),
        ``user`` (given explicitly) or ``unknown``.
    note
        What a person should know about it, or an empty string.
    """

    mpp: float | None
    source: MppSource
    note: str = ""


_MPP_DIGITS = 6  # no scanner is calibrated better than to a millionth


def check_given_mpp(mpp: float) -> float:
    """Return an explicitly given mpp [µm/px]; InputError when it lies outside :data:`MPP_RANGE`."""
    if not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]:  # NaN is not, either
        raise InputError(
            f"mpp {mpp:g} is no size of a pixel; give {MPP_RANGE[0]:g} to {MPP_RANGE[1]:g} µm/px"
        )
    return float(mpp)


def physical_size(properties: Mapping[str, str], given: float | None = None) -> PhysicalSize:
    """Decide the size of a level-0 pixel.

    What is given explicitly always wins, even outside the plausible range of files. Then comes what the
    file says, unless it lies outside 0.05-10 µm/px (TIFF resolution tags are often those of a
    screen). Then the objective power: 10 µm/px divided by it.

    Parameters
    ----------
    properties
        OpenSlide's properties of the slide (``openslide.mpp-x``, ``openslide.mpp-y``,
        ``openslide.objective-power``); may be empty.
    given
        Explicitly given mpp [µm/px], or None.

    Returns
    -------
    PhysicalSize
        With ``mpp`` None and a note that says why, when nothing is usable.

    Raises
    ------
    InputError
        ``given`` lies outside :data:`MPP_RANGE`.
    """
    if given is not None:
        return PhysicalSize(check_given_mpp(given), "user")
    mpp_x = _positive(properties.get("openslide.mpp-x"))
    mpp_y = _positive(properties.get("openslide.mpp-y"))
    known = [mpp for mpp in (mpp_x, mpp_y) if mpp is not None]
    refused = "the file does not say"
    if known:
        # files hold inverse resolutions as fractions, and 0.972 comes back as 0.97200004
        mpp = float(f"{sum(known) / len(known):.{_MPP_DIGITS}g}")
        if PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]:
            return PhysicalSize(mpp, "properties", _anisotropy_note(known, mpp))
        refused = (
            f"the file says {mpp:g} µm/px, outside the plausible "
            f"{PLAUSIBLE_MPP[0]:g} to {PLAUSIBLE_MPP[1]:g}"
        )
    power = objective_power(properties)
    if power is not None:
        mpp = OBJECTIVE_TIMES_MPP / power
        if PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]:
            return PhysicalSize(
                mpp, "objective", f"{refused}; mpp derived from the {power:g}x objective"
            )
    return PhysicalSize(None, "unknown", refused)


def objective_power(properties: Mapping[str, str]) -> float | None:
    """Return the nominal magnification that OpenSlide reports, or None."""
    return _positive(properties.get("openslide.objective-power"))


def require_mpp(info: SlideInfo) -> float:
    """Return a slide's mpp [µm/px, level 0], or raise.

    Raises
    ------
    MissingMppError
        The size is not known; the sentence says why and what to give.
    """
    if info.mpp is None:
        raise MissingMppError(
            f"{info.path}: no usable pixel size ({info.mpp_note}); give it with --slide-mpp, "
            "or in the mpp column of a CSV of slides"
        )
    return info.mpp


def _positive(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None  # vendors write free text; that is the same as not saying it
    return number if math.isfinite(number) and number > 0 else None


def _anisotropy_note(known: list[float], mpp: float) -> str:
    if max(known) - min(known) <= ANISOTROPY_NOTED * mpp:
        return ""
    return f"pixels are not square ({known[0]:g} x {known[1]:g} µm); their mean is used"
