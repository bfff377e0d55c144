"""Reinhard's colour transfer in CIE Lab for batches of tiles, leaving clear glass as it is.

E. Reinhard et al., "Color transfer between images", IEEE CG&A 21(5), 2001, in the convention of torchstain and
HistomicsTK: CIE Lab of sRGB under D65 instead of the paper's l-alpha-beta. Unlike there, the
statistics are those of the tissue pixels only, and the transfer fades out where light passes
unhindered: a tile that is mostly glass keeps white glass instead of turning pink. On a tile full
of tissue it is the same thing.
"""

from __future__ import annotations

import math
from typing import Final

import torch

from dataflow.optical_density import INTENSITY, OPAQUE_MAX, TRANSPARENT_OD, moments, to_pixels

MIN_TISSUE_PX: Final = 256
MIN_TISSUE_FRACTION: Final = 0.02
MIN_STD: Final = (1.0, 0.5, 0.5)
"""Standard deviations of L, a, b below which there is nothing to scale but noise."""

_RGB_TO_XYZ: Final = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE: Final = (0.95047, 1.0, 1.08883)  # D65
_XYZ_TO_LAB: Final = ((0.0, 116.0, 0.0), (500.0, -500.0, 0.0), (0.0, 200.0, -200.0))
_LAB_UNIT: Final = 16.0  # moments() takes magnitudes up to about 8; Lab has up to 128


def lab_planes(tiles: torch.Tensor) -> torch.Tensor:
    """Convert tiles to CIE Lab (D65).

    Parameters
    ----------
    tiles
        uint8 (n, y, x, rgb), sRGB.

    Returns
    -------
    torch.Tensor
        float32 (n, Lab, y * x): L 0 to 100, a and b about -128 to 127.
    """
    n = tiles.shape[0]
    rgb = tiles.reshape(n, -1, 3).transpose(1, 2).to(torch.float32) / 255.0
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    white = torch.tensor(_WHITE, dtype=torch.float64)
    xyz = _matmul(torch.tensor(_RGB_TO_XYZ, dtype=torch.float64) / white[:, None], linear)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0.0) ** (1.0 / 3.0), 7.787 * xyz + 16.0 / 116.0)
    lab = _matmul(torch.tensor(_XYZ_TO_LAB, dtype=torch.float64), f)
    lab[:, 0] -= 16.0
    return lab


def rgb_planes(lab: torch.Tensor) -> torch.Tensor:
    """Convert CIE Lab to sRGB.

    Parameters
    ----------
    lab
        float32 (n, Lab, pixel).

    Returns
    -------
    torch.Tensor
        float32 (n, rgb, pixel), 0 to 255.
    """
    y = (lab[:, 0] + 16.0) / 116.0
    f = torch.stack((y + lab[:, 1] / 500.0, y, y - lab[:, 2] / 200.0), dim=1)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16.0 / 116.0) / 7.787)
    white = torch.tensor(_WHITE, dtype=torch.float64)
    to_rgb = torch.linalg.inv(torch.tensor(_RGB_TO_XYZ, dtype=torch.float64)) * white
    linear = _matmul(to_rgb, xyz).clamp_(min=0.0)
    rgb = torch.where(linear > 0.0031308, 1.055 * linear ** (1.0 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp_(0.0, 1.0).mul_(255.0)


def statistics(tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lab statistics of the tissue pixels: those that are not transparent in some channel.

    Parameters
    ----------
    tiles
        uint8 (n, y, x, rgb).

    Returns
    -------
    tuple of torch.Tensor
        On the CPU: mean (n, 3) and standard deviation (n, 3), float64, and bool (n,), whether they
        can be trusted.
    """
    tissue = tiles.amin(dim=3).flatten(1) <= OPAQUE_MAX
    count, mean, covariance = moments(lab_planes(tiles) / _LAB_UNIT, tissue)
    std = covariance.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt() * _LAB_UNIT
    enough = (count >= MIN_TISSUE_PX) & (count >= MIN_TISSUE_FRACTION * tissue.shape[1])
    varied = (std >= torch.tensor(MIN_STD, dtype=torch.float64)).all(dim=1)
    return mean * _LAB_UNIT, std, enough & varied


def apply(
    tiles: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    target_mean: torch.Tensor,
    target_std: torch.Tensor,
) -> torch.Tensor:
    """Give tiles the target's colour statistics.

    Parameters
    ----------
    tiles
        uint8 (n, y, x, rgb).
    mean, std
        (n or 1, 3): of the tiles, or of their slide.
    target_mean, target_std
        (3,).

    Returns
    -------
    torch.Tensor
        uint8 (n, y, x, rgb).
    """
    gain = target_std / std.clamp(min=1e-6)
    offset = target_mean - mean * gain
    lab = lab_planes(tiles)
    lab.mul_(gain.to(lab)[:, :, None]).add_(offset.to(lab)[:, :, None])
    transferred = rgb_planes(lab)
    before = tiles.flatten(1, 2).transpose(1, 2).to(torch.float32)
    # 0 at clear glass, 1 from the optical density at which a pixel counts as tissue
    clear = INTENSITY * math.exp(-TRANSPARENT_OD)
    weight = ((INTENSITY - before.amin(dim=1, keepdim=True)) / (INTENSITY - clear)).clamp_(0.0, 1.0)
    return to_pixels(transferred.mul_(weight).add_(before * (1.0 - weight)), tiles.shape)


def _matmul(matrix: torch.Tensor, planes: torch.Tensor) -> torch.Tensor:
    """Compute ``matrix @ planes`` per pixel (n, 3, pixel), in float32 on every device."""
    m = matrix.to(planes)
    return (
        planes[:, 0:1] * m[:, 0][:, None]
        + planes[:, 1:2] * m[:, 1][:, None]
        + planes[:, 2:3] * m[:, 2][:, None]
    )
