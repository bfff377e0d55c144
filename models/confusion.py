"""How pixels of several classes are told apart: counts by truth and prediction, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from models.overlap import Overlap
from models.weak_tiles import UNKNOWN

METRICS: Final = ("iou", "dice", "precision", "recall")
"""Of a class against all others; Dice is the F1 score, too."""

_BAND_PX: Final = 1 << 22  # pixels that are counted at once: their pair numbers are of 8 bytes

Counts: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Confusion:
    """Pixels by class.

    Attributes
    ----------
    counts
        int64 (truth, predicted): a row a class; a column a class, and a last one for pixels of which nothing was said.
    """

    counts: Counts

    @classmethod
    def of(
        cls, truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8], n_classes: int
    ) -> Confusion:
        """Count two arrays of one shape.

        Parameters
        ----------
        truth
            uint8, classes by index; where it is :data:`models.weak_tiles.UNKNOWN` nothing counts.
        predicted
            uint8, classes by index; ``n_classes`` where nothing was said.
        n_classes
            How many there are.
        """
        true, said = truth.reshape(-1), predicted.reshape(-1)
        pairs = np.zeros(n_classes * (n_classes + 1), np.int64)
        for start in range(0, true.size, _BAND_PX):
            part = slice(start, start + _BAND_PX)
            known = true[part] != UNKNOWN
            numbers = true[part][known].astype(np.int64) * (n_classes + 1) + said[part][known]
            pairs += np.bincount(numbers, minlength=len(pairs))
        return cls(pairs.reshape(n_classes, n_classes + 1))

    @classmethod
    def sum(cls, parts: Sequence[Confusion]) -> Confusion:
        """Return all of several together; there is at least one."""
        return reduce(Confusion.__add__, parts)

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.counts + other.counts)

    @property
    def n_pixels(self) -> int:
        """All that counted."""
        return int(self.counts.sum())

    @property
    def of_truth(self) -> Counts:
        """Pixels of each class by the truth, int64 (class,)."""
        pixels: Counts = self.counts.sum(axis=1)
        return pixels

    @property
    def present(self) -> tuple[int, ...]:
        """Classes that the truth has."""
        return tuple(np.flatnonzero(self.of_truth).tolist())

    @cached_property
    def overlaps(self) -> tuple[Overlap, ...]:
        """Each class against all others; what nothing was said of is none of them."""
        n_pixels, of_truth, said = self.n_pixels, self.of_truth, self.counts.sum(axis=0)
        found = []
        for k, true in enumerate(of_truth.tolist()):
            tp = int(self.counts[k, k])
            fn, fp = true - tp, int(said[k]) - tp
            found.append(Overlap(tp, fp, fn, n_pixels - tp - fp - fn))
        return tuple(found)

    def macro(self, metric: str, without: int | None = None) -> float | None:
        """Return the mean of one of :data:`METRICS` over the classes that the truth has.

        What is undefined, as the precision of a class that nothing was taken for, is 0. None where the truth has
        none of the classes.

        Parameters
        ----------
        metric
            Which.
        without
            A class that is left out.
        """
        classes = [k for k in self.present if k != without]
        return float(np.mean([self._value(k, metric) for k in classes])) if classes else None

    def weighted(self, metric: str) -> float | None:
        """Return such a mean, each class weighted by its pixels of truth."""
        if not self.n_pixels:
            return None
        classes = self.present
        weights = self.of_truth[list(classes)]
        return float(np.average([self._value(k, metric) for k in classes], weights=weights))

    @property
    def accuracy(self) -> float | None:
        """Share of pixels that are right."""
        n_pixels = self.n_pixels
        return float(np.trace(self.counts) / n_pixels) if n_pixels else None

    def all_taken_for(self, k: int) -> Confusion:
        """Return what would be counted if every pixel were taken for one class: a floor."""
        counts = np.zeros_like(self.counts)
        counts[:, k] = self.of_truth
        return Confusion(counts)

    def _value(self, k: int, metric: str) -> float:
        value: float | None = getattr(self.overlaps[k], metric)
        return 0.0 if value is None else value
