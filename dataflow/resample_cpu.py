"""Pixels averaged in one pass, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataflow.compiled import compiled


@compiled("void(uint8[:,:,::1], uint8[:,:,::1])")
def halved(image: Any, out: Any) -> None:
    """Average squares of 2 x 2 pixels, rounded half up: uint8 (2 * rows, 2 * columns, 3) into (rows, columns, 3)."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for c in range(3):
                total = 2 + image[2 * i, 2 * j, c] + image[2 * i, 2 * j + 1, c]
                total += image[2 * i + 1, 2 * j, c] + image[2 * i + 1, 2 * j + 1, c]
                out[i, j, c] = total >> 2


@compiled(
    "void(uint8[:,::1], int64, int64[::1], int64[::1], float32[::1], int64[::1], int64[::1], float32[::1],"
    "float32[::1], uint8[:,:,::1])"
)
def weighted_means(
    image: Any,
    channels: Any,
    row_start: Any,
    row: Any,
    row_weight: Any,
    column_start: Any,
    column: Any,
    column_weight: Any,
    line: Any,
    out: Any,
) -> None:
    """Average over rows, then over columns, by sparse weights, in float32 and in their order; rounded half up.

    Parameters
    ----------
    image
        uint8 (rows, columns * channels).
    channels
        Of a pixel.
    row_start, row, row_weight
        Of each row of the result: where its weights begin, which rows they are for, and they; a CSR matrix.
    column_start, column, column_weight
        The same for columns.
    line
        float32 (columns * channels,), overwritten.
    out
        uint8 (rows, columns, channels), filled in place.
    """
    for i in range(out.shape[0]):
        line[:] = 0
        for k in range(row_start[i], row_start[i + 1]):
            source, weight = row[k], row_weight[k]
            for j in range(image.shape[1]):
                line[j] += weight * np.float32(image[source, j])
        for j in range(out.shape[1]):
            for c in range(channels):
                total = np.float32(0)
                for k in range(column_start[j], column_start[j + 1]):
                    total += column_weight[k] * line[column[k] * channels + c]
                out[i, j, c] = total + np.float32(0.5)
