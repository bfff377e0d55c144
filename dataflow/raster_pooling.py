"""Rasters made smaller by whole pixels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt


def pooled(values: npt.NDArray[Any], times: int, how: Literal["mean", "max"]) -> npt.NDArray[Any]:
    """Return a raster with squares of ``times`` pixels a side made one; what is left over at the ends is made one, too.

    Parameters
    ----------
    values
        (y, x), float or integer.
    times
        How many pixels become one, along each axis.
    how
        Mean or maximum of those that are there: NaN counts for nothing, and only NaN makes NaN.

    Returns
    -------
    array
        (ceil(y / times), ceil(x / times)): floats in their dtype, the maximum in that of the values, the mean of
        integers in float32.
    """
    if times == 1:
        return values
    beyond = tuple((0, -size % times) for size in values.shape)
    known = np.pad(np.isfinite(values), beyond)
    least: Any = -np.inf if values.dtype.kind == "f" else np.iinfo(values.dtype).min
    padded = np.pad(values, beyond)
    rows, columns = (size // times for size in padded.shape)
    blocks = (rows, times, columns, times)
    if how == "max":
        greatest = np.where(known, padded, least).reshape(blocks).max(axis=(1, 3))
        some = known.reshape(blocks).any(axis=(1, 3))
        nothing = np.array(np.nan if values.dtype.kind == "f" else 0, values.dtype)
        return np.where(some, greatest, nothing).astype(values.dtype)
    dtype = values.dtype if values.dtype.kind == "f" else np.dtype(np.float32)
    sums = np.where(known, padded, 0).reshape(blocks).sum(axis=(1, 3), dtype=np.float64)
    counts = known.reshape(blocks).sum(axis=(1, 3))
    with np.errstate(invalid="ignore"):  # 0 / 0: only NaN
        means: npt.NDArray[Any] = (sums / counts).astype(dtype)
    return means
