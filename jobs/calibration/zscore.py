"""Scores of a slide against that slide's own tiles: what takes scanner and stain out of the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

ZScore: TypeAlias = Literal["mean-std", "median-mad"]
"""``mean-std``: mean and population standard deviation. ``median-mad``: median and 1.4826 · MAD."""

TINY_TILES: Final = 10
"""Of fewer tiles no z by mean and standard deviation reaches 3: it is at most √(n - 1) (Shiffler 1988)."""

# what makes the median absolute (mean absolute) deviation of a normal distribution its standard deviation
_MAD_TO_STD: Final = 1.4826
_MEAN_AD_TO_STD: Final = 1.2533

Flag: TypeAlias = Literal["no-score", "constant", "tiny", "mad-zero"]

FLAG_MEANINGS: Final[dict[Flag, str]] = {
    "no-score": "no tile has a score",
    "constant": "all tiles have one score, so that all z-scores are 0",
    "tiny": f"fewer than {TINY_TILES} tiles, too few for a baseline",
    "mad-zero": "most tiles share one score, so that the mean absolute deviation stands in for the MAD",
}
"""Why the z-scores of a slide say less than they seem to."""


@dataclass(frozen=True)
class SlideZScores:
    """A slide's scores, normalized.

    Attributes
    ----------
    values
        float32 (tile,); NaN where the score isn't finite, finite everywhere else.
    center, scale
        ``z = (score - center) / scale``; None where no tile has a score. A scale of 0 gives z = 0.
    n_scored
        Tiles with a finite score.
    flags
        Keys of :data:`FLAG_MEANINGS`.
    """

    values: npt.NDArray[np.float32]
    center: float | None
    scale: float | None
    n_scored: int
    flags: tuple[Flag, ...]

    @property
    def n_without_score(self) -> int:
        """Tiles whose score isn't finite."""
        return len(self.values) - self.n_scored


def zscores(raw: npt.NDArray[np.floating], how: ZScore = "mean-std") -> SlideZScores:
    """Normalize the scores of one slide by its own tiles.

    Parameters
    ----------
    raw
        float (tile,). What isn't finite is no score, and counts for nothing.
    how
        ``mean-std``, or ``median-mad`` (Iglewicz & Hoaglin 1993), which a large lesion hardly moves. Where more
        than half of the tiles share one score the MAD is 0; 1.2533 times the mean absolute deviation from the
        median is taken then, as they advise, and the slide is flagged.
    """
    scored = np.isfinite(raw)
    known = raw[scored].astype(np.float64)
    values = np.full(raw.shape, np.nan, np.float32)
    if not known.size:
        return SlideZScores(values, None, None, 0, ("no-score",))
    flags: list[Flag] = []
    center, scale = float(np.mean(known)), float(np.std(known))
    if how == "median-mad":
        center = float(np.median(known))
        deviation = np.abs(known - center)
        scale = _MAD_TO_STD * float(np.median(deviation))
        if scale == 0 and deviation.any():
            scale = _MEAN_AD_TO_STD * float(np.mean(deviation))
            flags.append("mad-zero")
    if (
        known.min() == known.max() or scale == 0
    ):  # the mean of equal numbers may be off by a rounding
        center, scale, flags = float(known[0]), 0.0, ["constant"]
    if known.size < TINY_TILES:
        flags.append("tiny")
    if scale:
        most = np.finfo(np.float32).max  # an outlier over a tiny MAD may lie beyond
        values[scored] = np.clip((known - center) / scale, -most, most)
    else:
        values[scored] = 0.0
    return SlideZScores(values, center, scale, int(known.size), tuple(flags))
