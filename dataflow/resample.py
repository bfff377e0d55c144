"""Exact area resampling: an output pixel is the mean of the input over the square it covers."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

_NEGLIGIBLE = 1e-7  # [px]: an overlap that is only rounding error of the bounds


class Box(NamedTuple):
    """A fractional rectangle of an image [px of that image]."""

    x: float
    y: float
    width: float
    height: float


def overlap_matrix(
    low: npt.NDArray[np.floating], high: npt.NDArray[np.floating], n_in: int
) -> csr_array:
    """Lengths by which intervals overlap the unit cells of an axis.

    Parameters
    ----------
    low, high
        float64 (n_out,), bounds of the intervals [px of the axis].
    n_in
        Number of cells; cell i is [i, i + 1).

    Returns
    -------
    csr_array
        float64 (n_out, n_in); what lies outside the axis is left out.
    """
    n_out = low.shape[0]
    first = np.floor(low).astype(np.int64)
    span = int((np.ceil(high).astype(np.int64) - first).max(initial=1))
    cell = first[:, None] + np.arange(span)
    length = np.minimum(high[:, None], cell + 1) - np.maximum(low[:, None], cell)
    kept = (length > _NEGLIGIBLE) & (cell >= 0) & (cell < n_in)
    row = np.broadcast_to(np.arange(n_out)[:, None], cell.shape)
    return csr_array((length[kept], (row[kept], cell[kept])), shape=(n_out, n_in))


@lru_cache(maxsize=1024)  # tiles of one plan share few phases; a matrix is some 10 kB
def mean_matrix(start: float, length: float, n_out: int, n_in: int) -> csr_array:
    """Weights that average an axis over equal intervals.

    Parameters
    ----------
    start
        Where the first interval begins [px of the axis].
    length
        Length of all intervals together [px of the axis].
    n_out
        Number of intervals.
    n_in
        Number of pixels on the axis; the intervals lie within [0, n_in].

    Returns
    -------
    csr_array
        float32 (n_out, n_in) with int64 indices, rows sum to 1. Shared between callers: not to be changed.
    """
    edges = start + length / n_out * np.arange(n_out + 1)
    lengths = overlap_matrix(edges[:-1], edges[1:], n_in)
    weights = (lengths * (n_out / length)).astype(np.float32)
    weights.indptr = weights.indptr.astype(np.int64, copy=False)
    weights.indices = weights.indices.astype(np.int64, copy=False)
    return weights


def area_resample(
    image: npt.NDArray[np.uint8], box: Box, out_width_px: int, out_height_px: int
) -> npt.NDArray[np.uint8]:
    """Resample a fractional box of an image.

    Parameters
    ----------
    image
        uint8 (y, x, channel).
    box
        What the result covers [px of ``image``]; it lies within the image.
    out_width_px, out_height_px
        Size of the result.

    Returns
    -------
    array
        uint8 (out_height_px, out_width_px, channel), rounded half up.
    """
    from dataflow.resample_cpu import weighted_means  # imports numba, and may have to compile

    rows, columns, channels = image.shape
    along_y = mean_matrix(box.y, box.height, out_height_px, rows)
    along_x = mean_matrix(box.x, box.width, out_width_px, columns)
    out = np.empty((out_height_px, out_width_px, channels), np.uint8)
    weighted_means(
        np.require(image, requirements=["C", "W"]).reshape(rows, columns * channels),
        channels,
        *(along_y.indptr, along_y.indices, along_y.data),
        *(along_x.indptr, along_x.indices, along_x.data),
        np.empty(columns * channels, np.float32),
        out,
    )
    return out
