"""Reinhard's passes over pixels as compiled loops: what the CPU runs.

X, Y and Z of a pixel are sums of three table entries, one for each channel's grey level. The cube root and sRGB's
gamma are tables too, with straight lines between their entries: at most 0.001 off in Lab, which a steep map enlarges.
Between them the transfer is one affine map, for Lab is affine in the roots. Scratch is made once a call, not a tile.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from dataflow.cie_lab import (
    CLEAR,
    F_KNEE,
    F_SLOPE,
    F_TO_LAB,
    F_ZERO,
    GAMMA_KNEE,
    GAMMA_SLOPE,
    L_ZERO,
    LAB_TO_F,
    LINEAR_KNEE,
    RGB_TO_XYZ,
    XYZ_KNEE,
    XYZ_TO_RGB,
)
from dataflow.compiled import compiled
from dataflow.optical_density import INTENSITY, OPAQUE_MAX, flat_pixels

_STEPS: Final = 4096  # of the tables of curves from 0 to 1
_FIXED_POINT: Final = 128.0  # sums of squares of a million pixels stay exact


def _linear() -> npt.NDArray[np.float64]:
    """Intensity of each grey level."""
    coded = np.arange(256) / 255.0
    return np.where(coded > GAMMA_KNEE, ((coded + 0.055) / 1.055) ** 2.4, coded / GAMMA_SLOPE)


def _curve(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Make a table (step, 2) of values and of what comes on top up to the next."""
    return np.stack([values, np.diff(values, append=values[-1])], axis=1).astype(np.float32)


_AT: Final = np.arange(_STEPS + 2) / _STEPS  # one more, for a sum of 1 that is rounded up
_XYZ: Final = np.ascontiguousarray(
    RGB_TO_XYZ.T[:, None, :] * _linear()[:, None] * _STEPS, np.float32
)
_ROOT: Final = _curve(np.where(_AT > XYZ_KNEE, np.cbrt(_AT), F_SLOPE * _AT + F_ZERO))
_GAMMA: Final = _curve(
    255.0 * np.where(_AT > LINEAR_KNEE, 1.055 * _AT ** (1 / 2.4) - 0.055, GAMMA_SLOPE * _AT)
)
_TO_FIXED_LAB: Final = (F_TO_LAB * _FIXED_POINT).astype(np.float32)
_TO_STEPS: Final = (XYZ_TO_RGB * _STEPS).astype(np.float32)
_KNEE: Final = np.array([F_KNEE, F_ZERO, 1.0 / F_SLOPE], np.float32)
_FADE: Final = np.array([INTENSITY, 1.0 / (INTENSITY - CLEAR)], np.float32)


class CompiledLabPasses:
    """The :class:`~dataflow.lab_passes.LabPasses` of tiles on the CPU, uint8 (n, y, x, rgb)."""

    def __init__(self, tiles: torch.Tensor) -> None:
        self._pixels = flat_pixels(tiles.contiguous())

    @property
    def tile_px(self) -> int:
        """See :class:`~dataflow.lab_passes.LabPasses`."""
        return int(self._pixels.shape[1])

    def moments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See :class:`~dataflow.lab_passes.LabPasses`."""
        sums = np.empty((len(self._pixels), 7), dtype=np.int64)
        _moments(self._pixels, _XYZ, _ROOT, _TO_FIXED_LAB, OPAQUE_MAX, sums)
        exact = torch.from_numpy(sums).to(torch.float64)
        count = exact[:, 0]
        mean = exact[:, 1:4] / count.clamp(min=1)[:, None]
        scatter = exact[:, 4:] - exact[:, 1:4] * mean
        variance = scatter.clamp(min=0.0) / (count - 1).clamp(min=1)[:, None]
        mean = mean / _FIXED_POINT
        mean[:, 0] -= L_ZERO * (count > 0)
        return count, mean, variance.sqrt() / _FIXED_POINT

    def apply(
        self,
        gain: torch.Tensor,
        offset: torch.Tensor,
        wanted: npt.NDArray[np.bool_],
        out: torch.Tensor,
    ) -> None:
        """See :class:`~dataflow.lab_passes.LabPasses`."""
        zero = np.array([L_ZERO, 0.0, 0.0])
        gains = gain.numpy().astype(np.float64)
        matrix = LAB_TO_F @ (gains[:, :, None] * F_TO_LAB)
        bias = (offset.numpy() + zero - gains * zero) @ LAB_TO_F.T
        _apply(
            self._pixels,
            _XYZ,
            _ROOT,
            np.ascontiguousarray(matrix, np.float32),
            np.ascontiguousarray(bias, np.float32),
            _KNEE,
            _TO_STEPS,
            _GAMMA,
            _FADE,
            wanted,
            flat_pixels(out),
        )


@compiled("float32(float32[:,::1], float32)")
def _on(curve: Any, at: Any) -> Any:
    """Look a curve up, ``at`` in steps."""
    step = np.int32(at)
    return curve[step, 0] + (at - np.float32(step)) * curve[step, 1]


@compiled(
    "void(uint8[:,:,::1], float32[:,:,::1], float32[:,::1], float32[:,::1], int64, int64[:,::1])"
)
def _moments(pixels: Any, tables: Any, root: Any, to_lab: Any, opaque_max: Any, sums: Any) -> None:
    """Count, three sums and three sums of squares (n, 7) of the tissue pixels' fixed-point L + 16, a, b."""
    half = np.float32(0.5)
    for i in range(pixels.shape[0]):
        n = l1 = a1 = b1 = l2 = a2 = b2 = np.int64(0)
        for j in range(pixels.shape[1]):
            red, green, blue = pixels[i, j, 0], pixels[i, j, 1], pixels[i, j, 2]
            if min(red, green, blue) <= opaque_max:
                fx = _on(root, tables[0, red, 0] + tables[1, green, 0] + tables[2, blue, 0])
                fy = _on(root, tables[0, red, 1] + tables[1, green, 1] + tables[2, blue, 1])
                fz = _on(root, tables[0, red, 2] + tables[1, green, 2] + tables[2, blue, 2])
                lightness = np.int64(np.floor(to_lab[0, 1] * fy + half))
                a = np.int64(np.floor(to_lab[1, 0] * fx + to_lab[1, 1] * fy + half))
                b = np.int64(np.floor(to_lab[2, 1] * fy + to_lab[2, 2] * fz + half))
                n += np.int64(1)
                l1 += lightness
                a1 += a
                b1 += b
                l2 += lightness * lightness
                a2 += a * a
                b2 += b * b
        sums[i, 0], sums[i, 1], sums[i, 2], sums[i, 3] = n, l1, a1, b1
        sums[i, 4], sums[i, 5], sums[i, 6] = l2, a2, b2


@compiled("float32(float32, float32[::1])")
def _cubed(f: Any, knee: Any) -> Any:
    """X, Y or Z of its root."""
    return f * f * f if f > knee[0] else (f - knee[1]) * knee[2]


@compiled(
    "void(uint8[:,:,::1], float32[:,:,::1], float32[:,::1], float32[:,:,::1], float32[:,::1], float32[::1],"
    "float32[:,::1], float32[:,::1], float32[::1], boolean[::1], uint8[:,:,::1])"
)
def _apply(
    pixels: Any,
    tables: Any,
    root: Any,
    matrix: Any,
    bias: Any,
    knee: Any,
    to_steps: Any,
    gamma: Any,
    fade: Any,
    wanted: Any,
    out: Any,
) -> None:
    """Map the roots of wanted tiles, one map each or one for all; copy the others. ``out`` may be ``pixels``."""
    none, one = np.float32(0.0), np.float32(1.0)
    white = np.float32(len(gamma) - 2)
    for i in range(pixels.shape[0]):
        which = min(i, len(matrix) - 1)
        m, shift = matrix[which], bias[which]
        for j in range(pixels.shape[1]):
            red, green, blue = pixels[i, j, 0], pixels[i, j, 1], pixels[i, j, 2]
            darkest = np.float32(min(red, green, blue))
            weight = min((fade[0] - darkest) * fade[1], one)
            if not wanted[i] or weight <= none:
                out[i, j, 0], out[i, j, 1], out[i, j, 2] = red, green, blue
                continue
            fx = _on(root, tables[0, red, 0] + tables[1, green, 0] + tables[2, blue, 0])
            fy = _on(root, tables[0, red, 1] + tables[1, green, 1] + tables[2, blue, 1])
            fz = _on(root, tables[0, red, 2] + tables[1, green, 2] + tables[2, blue, 2])
            x = _cubed(m[0, 0] * fx + m[0, 1] * fy + m[0, 2] * fz + shift[0], knee)
            y = _cubed(m[1, 0] * fx + m[1, 1] * fy + m[1, 2] * fz + shift[1], knee)
            z = _cubed(m[2, 0] * fx + m[2, 1] * fy + m[2, 2] * fz + shift[2], knee)
            for channel in range(3):
                linear = (
                    to_steps[channel, 0] * x + to_steps[channel, 1] * y + to_steps[channel, 2] * z
                )
                # a table is read without a check of its range, and what is not a number is no place in it
                linear = linear if linear > none else none
                level = _on(gamma, min(linear, white))
                before = np.float32(pixels[i, j, channel])
                # a table may be rounded to a little above white
                level = min(before + weight * (level - before), np.float32(255.0))
                out[i, j, channel] = np.uint8(level)
