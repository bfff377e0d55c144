"""Macenko's passes over pixels in torch: what a GPU runs."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from dataflow.optical_density import (
    LOG2_INTENSITY,
    OPAQUE_MAX,
    log_planes,
    mix,
    moments,
    to_pixels,
)
from dataflow.pixel_passes import BINS, MAX_CONCENTRATION

_STAINED_LOG: Final = math.log2(OPAQUE_MAX + 1.5)


class TorchPasses:
    """The :class:`~dataflow.pixel_passes.PixelPasses` of tiles on any device, uint8 (n, y, x, rgb).

    Planes of log intensity are computed once, everything else is an affine map of them.
    """

    def __init__(self, tiles: torch.Tensor) -> None:
        self._tiles = tiles
        self._planes = log_planes(tiles)
        self._stained = self._planes.amax(dim=1) < _STAINED_LOG

    @property
    def tile_px(self) -> int:
        """See :class:`~dataflow.pixel_passes.PixelPasses`."""
        return int(self._planes.shape[2])

    def moments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See :class:`~dataflow.pixel_passes.PixelPasses`."""
        return moments(self._planes, self._stained)

    def extreme_slants(self, axes: torch.Tensor, share: float) -> torch.Tensor:
        """See :class:`~dataflow.pixel_passes.PixelPasses`."""
        uv = mix(self._planes, -axes, LOG2_INTENSITY * axes.sum(dim=2))
        u, v = uv[:, 0].clamp_(min=0.0), uv[:, 1]
        slant = v / (u + v.abs()).clamp_(min=1e-6)
        bins = slant.add_(1.0).mul_(BINS / 2)
        return _quantiles(bins, self._stained, (share, 1.0 - share)) * (2 / BINS) - 1.0

    def high_concentrations(self, inverse: torch.Tensor, share: float) -> torch.Tensor:
        """See :class:`~dataflow.pixel_passes.PixelPasses`."""
        per_bin = MAX_CONCENTRATION / BINS
        per_log = inverse * (math.log(2.0) / per_bin)
        bins = mix(self._planes, -per_log, LOG2_INTENSITY * per_log.sum(dim=2))
        return _quantiles(bins.view(-1, bins.shape[2]), None, (share,)).view(-1, 2) * per_bin

    def apply(
        self,
        matrix: torch.Tensor,
        bias: torch.Tensor,
        wanted: npt.NDArray[np.bool_],
        out: torch.Tensor,
    ) -> None:
        """See :class:`~dataflow.pixel_passes.PixelPasses`."""
        mapped = mix(self._planes, matrix, bias).exp2_().clamp_(max=255.0)
        chosen = torch.from_numpy(wanted).to(out.device)[:, None, None, None]
        out.copy_(torch.where(chosen, to_pixels(mapped, self._tiles.shape), self._tiles))


def _quantiles(
    bins: torch.Tensor, keep: torch.Tensor | None, shares: tuple[float, ...]
) -> torch.Tensor:
    """Quantiles (row, share) of each row through a histogram: integer counts, so exact in any order.

    ``bins`` float32 (row, pixel) is overwritten; its values are in units of bins, and those
    outside 0 to ``BINS`` count as the ends. Within a bin, values are taken as spread evenly; a
    quantile is between the two values that it lies between, as in numpy. Without values it is
    ``BINS``. ``keep`` is bool (row, pixel).
    """
    rows = bins.shape[0]
    index = bins.clamp_(0.0, BINS - 1).to(torch.int32)
    if keep is not None:
        index.masked_fill_(~keep, BINS)  # one bin more, for those that don't count
    if rows > 1:
        index += torch.arange(rows, dtype=torch.int32, device=index.device)[:, None] * (BINS + 1)
    counts = torch.bincount(index.view(-1), minlength=rows * (BINS + 1))
    counts = counts.view(rows, BINS + 1)[:, :BINS].cpu()
    cumulative = counts.cumsum(dim=1)
    last = cumulative[:, -1:] - 1
    rank = last.clamp(min=0) * torch.tensor(shares, dtype=torch.float64)
    lower = rank.floor().long()
    value, following = (_values(counts, cumulative, each) for each in (lower, lower + 1))
    following = torch.where(lower + 1 > last, value, following)
    return torch.where(last < 0, BINS, value + (rank - lower) * (following - value))


def _values(counts: torch.Tensor, cumulative: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """Return the values (row, k) of given ranks, in bins."""
    found = torch.searchsorted(cumulative, rank, right=True).clamp(max=BINS - 1)
    inside = counts.gather(1, found)
    before = cumulative.gather(1, found) - inside
    return found + (rank - before + 0.5) / inside.clamp(min=1)
