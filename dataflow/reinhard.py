"""Reinhard's colour transfer in CIE Lab for batches of tiles, leaving clear glass as it is.

E. Reinhard et al., "Color transfer between images", IEEE CG&A 21(5), 2001, in the convention of torchstain and
HistomicsTK: CIE Lab of sRGB under D65 instead of the paper's l-alpha-beta. Unlike there, the
statistics are those of the tissue pixels only, and the transfer fades out where light passes
unhindered: a tile that is mostly glass keeps white glass instead of turning pink. On a tile full
of tissue it is the same thing. What has to look at pixels is behind :class:`~dataflow.lab_passes.LabPasses`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from dataflow.lab_passes import LabPasses

MIN_TISSUE_PX: Final = 256
MIN_TISSUE_FRACTION: Final = 0.02
MIN_STD: Final = (1.0, 0.5, 0.5)
"""Standard deviations of L, a, b below which there is nothing to scale but noise."""


@dataclass(frozen=True)
class ReinhardFit:
    """Lab statistics of a batch's tissue, and how far they can be trusted. All on the CPU.

    Attributes
    ----------
    mean, std
        float64 (n, 3) of L, a, b.
    trusted
        bool (n,).
    """

    mean: torch.Tensor
    std: torch.Tensor
    trusted: torch.Tensor


def fit(passes: LabPasses) -> ReinhardFit:
    """Take the statistics of each tile's tissue pixels: those that are not transparent in some channel.

    Parameters
    ----------
    passes
        The tiles, from :func:`~dataflow.lab_passes.lab_passes`.
    """
    count, mean, std = passes.moments()
    enough = (count >= MIN_TISSUE_PX) & (count >= MIN_TISSUE_FRACTION * passes.tile_px)
    varied = (std >= torch.tensor(MIN_STD, dtype=torch.float64)).all(dim=1)
    return ReinhardFit(mean, std, enough & varied)


def transfer(
    mean: torch.Tensor, std: torch.Tensor, target_mean: torch.Tensor, target_std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return gain and offset (n, 3) of L, a, b that give tiles the target's statistics.

    Parameters
    ----------
    mean, std
        (n, 3): of the tiles, or of their slide.
    target_mean, target_std
        (3,).
    """
    gain = target_std / std.clamp(min=1e-6)
    return gain, target_mean - mean * gain
