"""Macenko's passes over pixels as compiled loops with lookup tables: what the CPU runs.

Everything that a pixel needs is a sum of three table entries, one for each channel's grey level: an affine map of log
intensities as fixed-point numbers, several of them side by side in one 64-bit word. Sums of integers don't depend on
order, so a tile gives the same bits in any batch and on any thread. Scratch is made once a call, not once a tile.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from dataflow.compiled import compiled
from dataflow.optical_density import (
    FIXED_POINT,
    LOG2_INTENSITY,
    OPAQUE_MAX,
    flat_pixels,
    mean_and_covariance,
)
from dataflow.pixel_passes import BINS, MAX_CONCENTRATION

_LOGS: Final = np.log2(np.arange(1.0, 257.0))
_FIXED_LOGS: Final = np.round(_LOGS * FIXED_POINT).astype(np.int64)

# An apply word holds three fields of 21 bits: log2 of a result from -256 to 256, 12 bits after the point
_FIELD_BITS: Final = 21
_FIELD_ONE: Final = 1 << 12
_FIELD_ZERO: Final = 1 << (_FIELD_BITS - 1)
_FIELD_MASK: Final = (1 << _FIELD_BITS) - 1


def _grey_levels() -> npt.NDArray[np.uint8]:
    """Grey level of each value that a field can have: looked up without a check of its range.

    A tile touches a few ten of these 2048 kB; the rest is never in a cache.
    """
    grey = np.zeros(1 << _FIELD_BITS, dtype=np.uint8)
    white = _FIELD_ZERO + 8 * _FIELD_ONE
    grey[white:] = 255
    grey[_FIELD_ZERO:white] = np.exp2(np.arange(8 * _FIELD_ONE) / _FIELD_ONE)
    return grey


_GREY: Final = _grey_levels()


class CompiledPasses:
    """The :class:`~dataflow.pixel_passes.PixelPasses` of tiles on the CPU, uint8 (n, y, x, rgb)."""

    def __init__(self, tiles: torch.Tensor) -> None:
        self._pixels = flat_pixels(tiles.contiguous())

    @property
    def tile_px(self) -> int:
        """See :class:`~dataflow.pixel_passes.PixelPasses`."""
        return int(self._pixels.shape[1])

    def moments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See :class:`~dataflow.pixel_passes.PixelPasses`."""
        sums = np.empty((len(self._pixels), 10), dtype=np.int64)
        _moments(self._pixels, _FIXED_LOGS, OPAQUE_MAX, sums)
        exact = torch.from_numpy(sums).to(torch.float64)
        total = exact[:, 1:4] / FIXED_POINT
        squares = exact[:, [4, 5, 6, 5, 7, 8, 6, 8, 9]].view(-1, 3, 3) / FIXED_POINT**2
        return mean_and_covariance(exact[:, 0], total, squares)

    def extreme_slants(self, axes: torch.Tensor, share: float) -> torch.Tensor:
        """See :class:`~dataflow.pixel_passes.PixelPasses`."""
        found = np.empty((len(self._pixels), 2))
        matrix, bias = _numbers(-axes), _numbers(LOG2_INTENSITY * axes.sum(dim=2))
        _slants(self._pixels, _LOGS, matrix, bias, OPAQUE_MAX, BINS, share, found)
        return torch.from_numpy(found)

    def high_concentrations(self, inverse: torch.Tensor, share: float) -> torch.Tensor:
        """See :class:`~dataflow.pixel_passes.PixelPasses`."""
        found = np.empty((len(self._pixels), 2))
        per_log = inverse * (math.log(2.0) * BINS / MAX_CONCENTRATION)
        matrix, bias = _numbers(-per_log), _numbers(LOG2_INTENSITY * per_log.sum(dim=2))
        _concentrations(self._pixels, _LOGS, matrix, bias, BINS, share, found)
        return torch.from_numpy(found * (MAX_CONCENTRATION / BINS))

    def apply(
        self,
        matrix: torch.Tensor,
        bias: torch.Tensor,
        wanted: npt.NDArray[np.bool_],
        out: torch.Tensor,
    ) -> None:
        """See :class:`~dataflow.pixel_passes.PixelPasses`."""
        _apply(
            self._pixels, _LOGS, _numbers(matrix), _numbers(bias), wanted, _GREY, flat_pixels(out)
        )


def _numbers(values: torch.Tensor) -> npt.NDArray[np.float64]:
    return np.ascontiguousarray(values.numpy(), dtype=np.float64)


@compiled("void(uint8[:,:,::1], int64[::1], int64, int64[:,::1])")
def _moments(pixels: Any, logs: Any, opaque_max: Any, sums: Any) -> None:
    """Count, three sums and six sums of products (n, 10) of the stained pixels' fixed-point logs."""
    for i in range(pixels.shape[0]):
        n = r1 = g1 = b1 = rr = rg = rb = gg = gb = bb = 0
        for j in range(pixels.shape[1]):
            red, green, blue = pixels[i, j, 0], pixels[i, j, 1], pixels[i, j, 2]
            if max(red, green, blue) <= opaque_max:
                r, g, b = logs[red], logs[green], logs[blue]
                n += 1
                r1 += r
                g1 += g
                b1 += b
                rr += r * r
                rg += r * g
                rb += r * b
                gg += g * g
                gb += g * b
                bb += b * b
        sums[i, 0], sums[i, 1], sums[i, 2], sums[i, 3] = n, r1, g1, b1
        sums[i, 4], sums[i, 5], sums[i, 6] = rr, rg, rb
        sums[i, 7], sums[i, 8], sums[i, 9] = gg, gb, bb


@compiled("void(float64[::1], float64[:,::1], float64[::1], int64, int64[:,::1])")
def _pair_table(logs: Any, matrix: Any, bias: Any, one: Any, table: Any) -> None:
    """Fill a table (channel, grey level) so that a sum over channels holds two numbers in units of 1 / ``one``.

    The low 32 bits are the first of ``matrix @ l + bias``, the high ones the second, one unit less where the first is
    negative. Numbers that could not fit come from bases that nothing trusts: they are held, not wrapped around.
    """
    most = 2.0**29
    for channel in range(3):
        for level in range(256):
            first = matrix[0, channel] * logs[level]
            second = matrix[1, channel] * logs[level]
            if channel == 0:
                first += bias[0]
                second += bias[1]
            low = np.int64(round(min(max(first * one, -most), most)))
            high = np.int64(round(min(max(second * one, -most), most)))
            table[channel, level] = low + (high << 32)


@compiled("float64(int32[::1], float64)")
def _quantile(counts: Any, share: Any) -> Any:
    """Find the quantile of a histogram, in bins, between the two values that it lies between, as numpy does.

    Within a bin, values are taken as spread evenly.
    """
    total = np.int64(0)
    for count in counts:
        total += count
    if total == 0:
        return np.float64(len(counts))
    rank = (total - 1) * share
    index = before = np.int64(0)
    while before + counts[index] <= np.int64(rank):
        before += counts[index]
        index += 1
    value = index + (np.int64(rank) - before + 0.5) / counts[index]
    then, above = np.int64(rank) + 1, index
    if then == total:
        return value
    while before + counts[above] <= then:
        before += counts[above]
        above += 1
    following = above + (then - before + 0.5) / counts[above]
    return value + (rank - np.int64(rank)) * (following - value)


@compiled(
    "void(uint8[:,:,::1], float64[::1], float64[:,:,::1], float64[:,::1], int64, int64, float64, float64[:,::1])"
)
def _slants(
    pixels: Any,
    logs: Any,
    matrix: Any,
    bias: Any,
    opaque_max: Any,
    bins: Any,
    share: Any,
    found: Any,
) -> None:
    """Quantiles (n, 2) of the slants of the stained pixels."""
    table = np.empty((3, 256), dtype=np.int64)
    counts = np.empty(bins, dtype=np.int32)
    half = np.float32(bins / 2)
    for i in range(pixels.shape[0]):
        _pair_table(logs, matrix[i], bias[i], 1 << 16, table)
        counts[:] = 0
        for j in range(pixels.shape[1]):
            red, green, blue = pixels[i, j, 0], pixels[i, j, 1], pixels[i, j, 2]
            if max(red, green, blue) <= opaque_max:
                pair = table[0, red] + table[1, green] + table[2, blue]
                u = max(np.int32(pair), np.int32(0))
                v = np.int32(pair >> 32)
                slant = np.float32(v) / np.float32(max(u + abs(v), np.int32(1)))
                index = np.int32(slant * half + half)
                counts[np.uint32(min(index, np.int32(bins - 1)))] += np.int32(1)
        found[i, 0] = _quantile(counts, share) / (bins / 2) - 1.0
        found[i, 1] = _quantile(counts, 1.0 - share) / (bins / 2) - 1.0


@compiled(
    "void(uint8[:,:,::1], float64[::1], float64[:,:,::1], float64[:,::1], int64, float64, float64[:,::1])"
)
def _concentrations(
    pixels: Any, logs: Any, matrix: Any, bias: Any, bins: Any, share: Any, found: Any
) -> None:
    """Quantiles (n, 2), in bins, of two affine maps of the log intensities of all pixels."""
    table = np.empty((3, 256), dtype=np.int64)
    first = np.empty(bins, dtype=np.int32)
    second = np.empty(bins, dtype=np.int32)
    zero, last = np.int32(0), np.int32(bins - 1)
    for i in range(pixels.shape[0]):
        _pair_table(logs, matrix[i], bias[i], 256, table)
        first[:] = 0
        second[:] = 0
        for j in range(pixels.shape[1]):
            pair = table[0, pixels[i, j, 0]] + table[1, pixels[i, j, 1]] + table[2, pixels[i, j, 2]]
            low = np.int32(pair) >> np.int32(8)
            high = np.int32(pair >> 32) >> np.int32(8)
            first[np.uint32(min(max(low, zero), last))] += np.int32(1)
            second[np.uint32(min(max(high, zero), last))] += np.int32(1)
        found[i, 0] = _quantile(first, share)
        found[i, 1] = _quantile(second, share)


@compiled("boolean(float64[:,::1], float64[::1])")
def _fits(matrix: Any, bias: Any) -> bool:
    """Whether the logs of all results stay within a field, for l from 0 to 8."""
    for row in range(3):
        low = high = bias[row]
        for channel in range(3):
            low += min(8.0 * matrix[row, channel], 0.0)
            high += max(8.0 * matrix[row, channel], 0.0)
        if low < -255.0 or high > 255.0:
            return False
    return True


@compiled("void(float64[::1], float64[:,::1], float64[::1], int64[:,::1])")
def _word_table(logs: Any, matrix: Any, bias: Any, table: Any) -> None:
    """Fill a table (channel, grey level) so that a sum over channels holds the three logs of a result."""
    for channel in range(3):
        for level in range(256):
            word = np.int64(0)
            for row in range(3):
                number = matrix[row, channel] * logs[level]
                if channel == 0:
                    number += bias[row] + _FIELD_ZERO // _FIELD_ONE
                word += np.int64(round(number * _FIELD_ONE)) << (row * _FIELD_BITS)
            table[channel, level] = word


@compiled("void(uint8[:,::1], float64[::1], float64[:,::1], float64[::1], uint8[:,::1])")
def _apply_formula(pixels: Any, logs: Any, matrix: Any, bias: Any, out: Any) -> None:
    """Compute what the tables of :func:`_apply` hold, pixel by pixel: for maps so steep that they don't fit."""
    for j in range(pixels.shape[0]):
        red, green, blue = logs[pixels[j, 0]], logs[pixels[j, 1]], logs[pixels[j, 2]]
        for row in range(3):
            log = bias[row] + matrix[row, 0] * red + matrix[row, 1] * green + matrix[row, 2] * blue
            out[j, row] = np.uint8(min(2.0 ** min(max(log, -1.0), 8.0), 255.0))


@compiled(
    "void(uint8[:,:,::1], float64[::1], float64[:,:,::1], float64[:,::1], boolean[::1], uint8[::1], uint8[:,:,::1])"
)
def _apply(
    pixels: Any, logs: Any, matrix: Any, bias: Any, wanted: Any, grey: Any, out: Any
) -> None:
    """Map wanted tiles, one map each or one for all; copy the others. ``out`` may be ``pixels``."""
    table = np.empty((3, 256), dtype=np.int64)
    mask = np.uint64(_FIELD_MASK)
    in_table = -1
    for i in range(pixels.shape[0]):
        which = min(i, len(matrix) - 1)
        if not wanted[i]:
            for j in range(pixels.shape[1]):  # a slice's assignment takes numba seconds to compile
                for row in range(3):
                    out[i, j, row] = pixels[i, j, row]
        elif not _fits(matrix[which], bias[which]):
            _apply_formula(pixels[i], logs, matrix[which], bias[which], out[i])
        else:
            if in_table != which:
                _word_table(logs, matrix[which], bias[which], table)
                in_table = which
            for j in range(pixels.shape[1]):
                red, green, blue = pixels[i, j, 0], pixels[i, j, 1], pixels[i, j, 2]
                word = np.uint64(table[0, red] + table[1, green] + table[2, blue])
                out[i, j, 0] = grey[word & mask]
                out[i, j, 1] = grey[(word >> np.uint64(_FIELD_BITS)) & mask]
                out[i, j, 2] = grey[word >> np.uint64(2 * _FIELD_BITS)]
