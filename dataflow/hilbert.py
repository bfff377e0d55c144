"""The Hilbert curve: an order of lattice cells that keeps neighbours together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def hilbert_index(
    col: npt.NDArray[np.integer], row: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Distance along the Hilbert curve that fills the smallest 2^k square holding all cells.

    Parameters
    ----------
    col, row
        Integer (n,), at least 0 and below 2^31.

    Returns
    -------
    array
        int64 (n,). Cells of an aligned 2^j x 2^j square have consecutive indices, so 1024 of them
        in a row are a 32 x 32 square.

    Notes
    -----
    The bitwise conversion from coordinates to distance with a rotation a level, after Warren,
    Hacker's Delight, 2nd ed., chapter 16.
    """
    x, y = col.astype(np.int64), row.astype(np.int64)
    index = np.zeros(x.shape, np.int64)
    side = 1 << max(int(x.max(initial=0)), int(y.max(initial=0))).bit_length()
    half = side >> 1
    while half:
        right, lower = (x & half) > 0, (y & half) > 0
        index += half * half * ((3 * right) ^ lower)
        x, y = x & (half - 1), y & (half - 1)
        flipped = right & ~lower
        x, y = np.where(flipped, half - 1 - x, x), np.where(flipped, half - 1 - y, y)
        x, y = np.where(lower, x, y), np.where(lower, y, x)  # the upper quadrants are transposed
        half >>= 1
    return index
