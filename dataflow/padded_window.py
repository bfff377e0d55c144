"""Windows of a raster with margins: what is computed of them is what would be computed of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Box: TypeAlias = tuple[slice, slice]
"""Rows and columns of a raster, with start and stop."""

ReadBox: TypeAlias = Callable[[Box], npt.NDArray[Any]]
"""A box within the raster → its values (…, y, x)."""


def windows(shape: tuple[int, int], side_px: int) -> Iterator[Box]:
    """Yield the boxes of at most ``side_px`` pixels a side that make up a raster of (rows, columns)."""
    for top in range(0, shape[0], side_px):
        for left in range(0, shape[1], side_px):
            bottom, right = min(top + side_px, shape[0]), min(left + side_px, shape[1])
            yield slice(top, bottom), slice(left, right)


def padded(
    read: ReadBox, shape: tuple[int, int], box: Box, margin_px: int, beyond: float
) -> npt.NDArray[Any]:
    """Read a box and what lies around it.

    Parameters
    ----------
    read
        Reads boxes of the raster.
    shape
        (rows, columns) of the raster.
    box
        What is wanted.
    margin_px
        How far around it.
    beyond
        What there is beyond the raster.

    Returns
    -------
    ndarray
        (…, y + 2 · margin_px, x + 2 · margin_px); :func:`inner` takes the margin away again.
    """
    wanted = [slice(part.start - margin_px, part.stop + margin_px) for part in box]
    rows, columns = (
        slice(max(0, part.start), min(size, part.stop))
        for part, size in zip(wanted, shape, strict=True)
    )
    values = read((rows, columns))
    widths = [
        (there.start - part.start, part.stop - there.stop)
        for part, there in zip(wanted, (rows, columns), strict=True)
    ]
    leading = [(0, 0)] * (values.ndim - 2)
    return np.pad(values, [*leading, *widths], constant_values=beyond)


def inner(values: npt.NDArray[Any], margin_px: int) -> npt.NDArray[Any]:
    """Take the margin of (…, y, x) away."""
    end = -margin_px or None
    return values[..., margin_px:end, margin_px:end]
