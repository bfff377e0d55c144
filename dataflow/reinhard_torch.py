"""Reinhard's passes over pixels in torch: what a GPU runs."""

from __future__ import annotations

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
from dataflow.optical_density import INTENSITY, OPAQUE_MAX, mix, moments, to_pixels

_LAB_UNIT = 16.0  # moments() takes magnitudes up to about 8; Lab has up to 128


class TorchLabPasses:
    """The :class:`~dataflow.lab_passes.LabPasses` of tiles on any device, uint8 (n, y, x, rgb)."""

    def __init__(self, tiles: torch.Tensor) -> None:
        self._tiles = tiles
        self._lab = lab_planes(tiles)

    @property
    def tile_px(self) -> int:
        """See :class:`~dataflow.lab_passes.LabPasses`."""
        return int(self._lab.shape[2])

    def moments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See :class:`~dataflow.lab_passes.LabPasses`."""
        tissue = self._tiles.amin(dim=3).flatten(1) <= OPAQUE_MAX
        count, mean, covariance = moments(self._lab / _LAB_UNIT, tissue)
        std = covariance.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()
        return count, mean * _LAB_UNIT, std * _LAB_UNIT

    def apply(
        self,
        gain: torch.Tensor,
        offset: torch.Tensor,
        wanted: npt.NDArray[np.bool_],
        out: torch.Tensor,
    ) -> None:
        """See :class:`~dataflow.lab_passes.LabPasses`."""
        lab = self._lab * gain.to(self._lab)[:, :, None] + offset.to(self._lab)[:, :, None]
        transferred = rgb_planes(lab)
        before = self._tiles.flatten(1, 2).transpose(1, 2).to(torch.float32)
        weight = (INTENSITY - before.amin(dim=1, keepdim=True)) / (INTENSITY - CLEAR)
        weight.clamp_(0.0, 1.0)
        mapped = transferred.mul_(weight).add_(before * (1.0 - weight))
        chosen = torch.from_numpy(wanted).to(out.device)[:, None, None, None]
        out.copy_(torch.where(chosen, to_pixels(mapped, self._tiles.shape), self._tiles))


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
    rgb = tiles.flatten(1, 2).transpose(1, 2).to(torch.float32) / 255.0
    linear = torch.where(rgb > GAMMA_KNEE, ((rgb + 0.055) / 1.055) ** 2.4, rgb / GAMMA_SLOPE)
    xyz = _affine(RGB_TO_XYZ, np.zeros(3), linear)
    f = torch.where(xyz > XYZ_KNEE, xyz.clamp(min=0.0) ** (1.0 / 3.0), F_SLOPE * xyz + F_ZERO)
    return _affine(F_TO_LAB, np.array([-L_ZERO, 0.0, 0.0]), f)


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
    f = _affine(LAB_TO_F, LAB_TO_F @ [L_ZERO, 0.0, 0.0], lab)
    xyz = torch.where(f > F_KNEE, f**3, (f - F_ZERO) / F_SLOPE)
    linear = _affine(XYZ_TO_RGB, np.zeros(3), xyz).clamp_(min=0.0)
    coded = 1.055 * linear ** (1.0 / 2.4) - 0.055
    rgb = torch.where(linear > LINEAR_KNEE, coded, GAMMA_SLOPE * linear)
    return rgb.clamp_(0.0, 1.0).mul_(255.0)


def _affine(
    matrix: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], planes: torch.Tensor
) -> torch.Tensor:
    """Compute ``matrix @ planes + bias`` per pixel (n, 3, pixel), in float32 on every device."""
    return mix(planes, torch.from_numpy(matrix)[None], torch.from_numpy(bias)[None])
