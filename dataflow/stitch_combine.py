"""What is said where tiles overlap: canvases that tiles are laid on, one after the other. NaN says nothing."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Box = tuple[slice, slice]


class Canvas(Protocol):
    """Takes tiles, or layers of tiles, in a fixed order."""

    def add(self, box: Box, values: Floats, weights: Floats | None) -> None:
        """Lay values (y, x) on a box; they may be changed. Weights, of the same shape, are 1 where there are none."""
        ...

    def result(self) -> Floats:
        """Return what is said of each pixel, float (y, x); NaN where nothing is."""
        ...


class Mean:
    """The mean, weighted if there are weights."""

    def __init__(self, shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
        self._sums: Floats = np.zeros(shape, dtype)
        self._weights: Floats = np.zeros(shape, dtype)

    def add(self, box: Box, values: Floats, weights: Floats | None) -> None:
        """Add to the sums."""
        known = ~np.isnan(values)
        if weights is not None:
            values *= weights
        if not known.all():
            np.copyto(values, 0, where=~known)
        self._sums[box] += values
        self._weights[box] += known if weights is None else weights * known

    def result(self) -> Floats:
        """Return the means."""
        nothing = self._weights == 0
        np.copyto(self._weights, np.nan, where=nothing)
        self._sums /= self._weights
        return self._sums


class Greatest:
    """The greatest."""

    def __init__(self, shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
        self._values: Floats = np.full(shape, np.nan, dtype)

    def add(self, box: Box, values: Floats, weights: Floats | None) -> None:
        """Keep what is greater."""
        del weights
        np.fmax(self._values[box], values, out=self._values[box])

    def result(self) -> Floats:
        """Return the greatest values."""
        return self._values


class Ballot:
    """What most say; of equally many the least.

    Parameters
    ----------
    shape, dtype
        Of the result.
    labels
        float (label,), ascending: all that may be voted for.
    """

    def __init__(self, shape: tuple[int, int], dtype: npt.DTypeLike, labels: Floats) -> None:
        self._labels = labels
        self._counts = np.zeros((len(labels), *shape), np.uint16)
        self._dtype = dtype

    def add(self, box: Box, values: Floats, weights: Floats | None) -> None:
        """Count votes."""
        del weights
        for counts, label in zip(self._counts, self._labels, strict=True):
            counts[box] += values == label

    def result(self) -> Floats:
        """Return the labels that most voted for."""
        elected = np.full(self._counts.shape[1:], np.nan, self._dtype)
        most = np.zeros(self._counts.shape[1:], np.uint16)
        for counts, label in zip(self._counts, self._labels, strict=True):
            more = counts > most
            elected[more] = label
            np.maximum(most, counts, out=most)
        return elected


def mean_of_samples(fine: Floats, samples: int) -> Floats:
    """Return the mean of each pixel's samples of which anything is said.

    Parameters
    ----------
    fine
        float (y * samples, x * samples).
    samples
        Along each axis.

    Returns
    -------
    ndarray
        (y, x); NaN where nothing is said of any.
    """
    cells = fine.reshape(fine.shape[0] // samples, samples, -1, samples)
    canvas = Mean((cells.shape[0], cells.shape[2]), fine.dtype)
    canvas_box = (slice(None), slice(None))
    for row in range(samples):
        for col in range(samples):
            canvas.add(canvas_box, cells[:, row, :, col].copy(), None)
    return canvas.result()


def commonest_of_samples(fine: Floats, samples: int) -> Floats:
    """Return what most of each pixel's samples say, of equally many the least; as of :func:`mean_of_samples`."""
    cells = fine.reshape(fine.shape[0] // samples, samples, -1, samples)
    canvas = Ballot((cells.shape[0], cells.shape[2]), fine.dtype, labels_in(fine))
    for row in range(samples):
        for col in range(samples):
            canvas.add((slice(None), slice(None)), cells[:, row, :, col], None)
    return canvas.result()


def labels_in(values: Floats) -> Floats:
    """Return the distinct values but NaN, ascending."""
    distinct: Floats = np.unique(values)
    return distinct[~np.isnan(distinct)]
