"""How scores become colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import matplotlib
import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from store_schema.errors import InputError
from store_schema.near_names import near


@dataclass(frozen=True)
class HeatmapStyle:
    """How scores become colours.

    Attributes
    ----------
    cmap
        A matplotlib colour map. The default, viridis, is perceptually uniform (equal steps of score look equal, in
        grey print and to the colour-blind as well) and, unlike magma and its kin, holds no pink that could be taken
        for eosin.
    alpha
        Opacity of the overlay, 0 to 1.
    percentile
        Colour by the rank within the slide (0 to 100, ties averaged) instead of by value: shows the order where a few
        tiles have nearly all of the attention, but makes a slide without any finding look as hot as others.
    limits
        Values of the colour bar's ends; None takes what the score may range over, where it says so, else what it
        does on this slide but for far outliers: one black tile must not leave all others in one colour.
    """

    cmap: str = "viridis"
    alpha: float = 0.6
    percentile: bool = False
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        known = list(matplotlib.colormaps)
        if self.cmap not in known:
            raise InputError(
                f"there is no colour map {self.cmap!r} in matplotlib: {near(self.cmap, known)}"
            )
        if not 0 <= self.alpha <= 1:
            raise InputError(f"the opacity {self.alpha:g} isn't between 0 and 1")
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise InputError(
                f"the colour bar can't go from {self.limits[0]:g} to {self.limits[1]:g}: low before high"
            )

    def with_limits(self, limits: tuple[float, float]) -> HeatmapStyle:
        """Return the style with these ends of the colour bar; equal ends are set apart."""
        low, high = limits
        # a constant score has a colour, too
        return replace(self, limits=(low, high if high > low else low + (abs(low) or 1.0)))


DEFAULT_STYLE: Final = HeatmapStyle()
_FAR: Final = 3.0  # interquartile ranges beyond a quartile: Tukey's outer fence


@dataclass(frozen=True)
class Scale:
    """Values as they are coloured.

    Attributes
    ----------
    values
        float64, of any shape; NaN where there is none.
    limits
        Ends of the colour bar.
    label
        What the values are.
    """

    values: npt.NDArray[np.float64]
    limits: tuple[float, float]
    label: str

    @property
    def beyond(self) -> tuple[bool, bool]:
        """Whether values lie below and above the ends of the colour bar."""
        low, high = self.limits
        return bool(np.any(self.values < low)), bool(np.any(self.values > high))


def scaled(
    values: npt.NDArray[np.floating],
    valid: tuple[float | None, float | None],
    label: str,
    style: HeatmapStyle,
) -> Scale:
    """Return the values to colour, the ends of the colour bar, and its label.

    Parameters
    ----------
    values
        float, of any shape; NaN where there is none.
    valid
        What they may range over, None where there is no such end.
    label
        What they are.
    style
        Whether by value or by rank, and given limits.
    """
    exact: npt.NDArray[np.float64] = values.astype(np.float64)
    known = np.isfinite(exact)
    if style.percentile:
        ranks = np.full(exact.shape, np.nan)
        ranks[known] = rank_percentile(exact[known])
        return Scale(ranks, style.limits or (0.0, 100.0), f"{label}, as percentile of the slide")
    if style.limits is not None:
        return Scale(exact, style.limits, label)
    low, high = valid
    least, greatest = _range_but_outliers(exact[known])
    low = least if low is None else low
    high = greatest if high is None else high
    limits = style.with_limits((low, high)).limits
    assert limits is not None
    return Scale(exact, limits, label)


def _range_but_outliers(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the least and the greatest value within three interquartile ranges of the quartiles (Tukey 1977)."""
    if not values.size:
        return 0.0, 0.0
    first, third = np.quantile(values, (0.25, 0.75))
    fence = _FAR * (third - first)
    if not fence:  # most are equal: what differs is all there is to see
        return float(values.min()), float(values.max())
    near_by = values[(values >= first - fence) & (values <= third + fence)]
    return float(near_by.min()), float(near_by.max())


def rank_percentile(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the rank of each value among all, 0 (least) to 100 (greatest); ties share the mean of their ranks.

    Parameters
    ----------
    values
        float (n,), finite. A single value has rank 50: it is neither.
    """
    if values.size < 2:
        return np.full(values.shape, 50.0)
    ranks: npt.NDArray[np.float64] = (rankdata(values) - 1) * (100.0 / (values.size - 1))
    return ranks


def colours_of(
    values: npt.NDArray[np.floating], limits: tuple[float, float], cmap: str
) -> npt.NDArray[np.float64]:
    """Return float64 (…, rgb), 0 to 255; values beyond the limits have the colours of the ends."""
    low, high = limits
    shares = np.clip((values - low) / (high - low), 0, 1)
    colours: npt.NDArray[np.float64] = matplotlib.colormaps[cmap](shares)[..., :3] * 255
    return colours
