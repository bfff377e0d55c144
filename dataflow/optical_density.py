"""Optical density and log intensity: their constants, and pixels as planes of them in torch, on any device.

All of Macenko is affine in ``l = log2(p + 1)``, so the planes of ``l`` are computed once and
everything else is :func:`mix`. Sums over pixels are sums of integers in float64, which are exact
in any order: the same tile gives the same bits in any batch, on any number of threads.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

INTENSITY: Final = 240.0
"""Transmitted light Io [grey levels], torchstain's default."""

LOG2_INTENSITY: Final = math.log2(INTENSITY)

TRANSPARENT_OD: Final = 0.15
"""beta: a channel below this optical density lets the light through, torchstain's default."""

OPAQUE_MAX: Final = math.ceil(INTENSITY * math.exp(-TRANSPARENT_OD)) - 2
"""Largest grey level of a channel that is not transparent: -ln((p + 1) / Io) >= beta is p <= 205."""

FIXED_POINT: Final = 2048.0
"""Units of moments per unit of log intensity: products of two numbers of 4 + 11 bits sum exactly."""


def log_planes(tiles: torch.Tensor) -> torch.Tensor:
    """Split tiles into planes of log intensity.

    Parameters
    ----------
    tiles
        uint8 (n, y, x, rgb).

    Returns
    -------
    torch.Tensor
        float32 (n, rgb, y * x) on the same device: log2(p + 1), 0 to 8.
    """
    n = tiles.shape[0]
    planes = torch.empty((n, 3, tiles[0].numel() // 3), dtype=torch.float32, device=tiles.device)
    planes.copy_(tiles.reshape(n, -1, 3).transpose(1, 2))
    return planes.add_(1.0).log2_()


def mix(planes: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute ``matrix @ planes + bias`` per pixel.

    Written as multiplications and additions, not as a matrix product: those may run in TF32 or
    bfloat16 when the encoder asks for it, and their order of summation may depend on the batch.

    Parameters
    ----------
    planes
        float32 (n, 3, pixel).
    matrix
        float (n, out, 3), any device.
    bias
        float (n, out), any device.

    Returns
    -------
    torch.Tensor
        float32 (n, out, pixel).
    """
    matrix = matrix.to(planes.device, torch.float32)
    bias = bias.to(planes.device, torch.float32)
    mixed = torch.addcmul(bias[:, :, None], planes[:, 0:1], matrix[:, :, 0:1])
    mixed.addcmul_(planes[:, 1:2], matrix[:, :, 1:2])
    return mixed.addcmul_(planes[:, 2:3], matrix[:, :, 2:3])


def moments(
    planes: torch.Tensor, keep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Count, mean and covariance of the kept pixels.

    Parameters
    ----------
    planes
        float32 (n, 3, pixel), magnitudes up to 8; used to 11 bits after the point.
    keep
        bool (n, pixel).

    Returns
    -------
    tuple of torch.Tensor
        float64 on the CPU: count (n,), mean (n, 3), covariance (n, 3, 3) with divisor count - 1.
        Fewer than two kept pixels give zeros, not NaN.
    """
    n, channels, pixels = planes.shape
    rows = torch.empty((n, channels + 1, pixels), dtype=torch.float64, device=planes.device)
    rows[:, channels].copy_(keep)
    torch.mul((planes * FIXED_POINT).round_(), keep[:, None], out=rows[:, :channels])
    gram = torch.bmm(rows, rows.transpose(1, 2)).cpu()
    count = gram[:, channels, channels]
    total = gram[:, channels, :channels] / FIXED_POINT
    squares = gram[:, :channels, :channels] / FIXED_POINT**2
    return mean_and_covariance(count, total, squares)


def mean_and_covariance(
    count: torch.Tensor, total: torch.Tensor, squares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Turn sums into moments.

    Parameters
    ----------
    count, total, squares
        float64 (n,), (n, 3) and (n, 3, 3): how many, their sums, the sums of their products.

    Returns
    -------
    tuple of torch.Tensor
        As of :func:`moments`.
    """
    mean = total / count.clamp(min=1)[:, None]
    scatter = squares - total[:, :, None] * mean[:, None, :]
    return count, mean, scatter / (count - 1).clamp(min=1)[:, None, None]


def flat_pixels(tiles: torch.Tensor) -> npt.NDArray[np.uint8]:
    """View contiguous tiles on the CPU, uint8 (n, y, x, rgb), as uint8 (n, pixel, rgb)."""
    pixels: npt.NDArray[np.uint8] = tiles.view(tiles.shape[0], -1, 3).numpy()
    return pixels


def to_pixels(planes: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Write planes of grey levels as tiles; fractions are cut off, as torchstain does.

    Parameters
    ----------
    planes
        float32 (n, rgb, pixel), 0 up to less than 256.
    shape
        (n, y, x, rgb) of the result.

    Returns
    -------
    torch.Tensor
        uint8 (n, y, x, rgb), contiguous.
    """
    tiles = torch.empty(
        (planes.shape[0], planes.shape[2], 3), dtype=torch.uint8, device=planes.device
    )
    for channel in range(3):  # three strided copies are faster than one transposed copy
        tiles[:, :, channel].copy_(planes[:, channel])
    return tiles.view(shape)
