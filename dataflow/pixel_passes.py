"""What Macenko's method needs to know of pixels, pass by pass: the seam between its algebra and a device."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

BINS: Final = 8192
"""Of the histograms through which quantiles are found: integer counts, so exact in any order."""

MAX_CONCENTRATION: Final = 8.0
"""Upper end of the histogram of concentrations; larger ones count as this."""


class PixelPasses(Protocol):
    """A batch of n tiles. A tile's numbers don't depend on its neighbours in the batch.

    A pixel's log intensity is ``l = log2(p + 1)``, its optical density ``OD = ln 2 (log2 Io - l)``.
    A pixel is stained where no channel is transparent. Numbers are float64 tensors on the CPU.
    """

    @property
    def tile_px(self) -> int:
        """Pixels of each tile."""
        ...

    def moments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Count (n,), mean (n, 3) and covariance (n, 3, 3) of the stained pixels' log intensities.

        Intensities are taken to 11 bits after the point. Fewer than two stained pixels give
        zeros, not NaN.
        """
        ...

    def extreme_slants(self, axes: torch.Tensor, share: float) -> torch.Tensor:
        """Quantiles (n, 2) of the stained pixels' slants at ``share`` and ``1 - share``.

        The slant of (u, v) = ``axes @ (log2 Io - l)`` is ``v / (max(u, 0) + |v|)``, -1 to 1: it
        grows with the angle to the first axis, and beyond a right angle stays at the end.

        Parameters
        ----------
        axes
            (n, 2, 3): unit vectors.
        share
            0 to 1.
        """
        ...

    def high_concentrations(self, inverse: torch.Tensor, share: float) -> torch.Tensor:
        """Quantiles (n, 2) of the concentrations ``inverse @ OD`` of all pixels.

        Parameters
        ----------
        inverse
            (n, 2, 3).
        share
            0 to 1.
        """
        ...

    def apply(
        self,
        matrix: torch.Tensor,
        bias: torch.Tensor,
        wanted: npt.NDArray[np.bool_],
        out: torch.Tensor,
    ) -> None:
        """Write ``2 ** (matrix @ l + bias)``, fractions cut off, at most 255; other tiles are copied.

        Parameters
        ----------
        matrix, bias
            (n or 1, 3, 3) and (n or 1, 3), finite.
        wanted
            (n,): the tiles that the map is for.
        out
            uint8 (n, y, x, rgb), contiguous; may be the batch itself.
        """
        ...


def pixel_passes(tiles: torch.Tensor) -> PixelPasses:
    """Return the passes over tiles, uint8 (n, y, x, rgb), where they are: compiled on the CPU, else in torch."""
    if tiles.device.type == "cpu":
        from dataflow.macenko_cpu import CompiledPasses  # imports numba, and may have to compile

        return CompiledPasses(tiles)
    from dataflow.macenko_torch import TorchPasses

    return TorchPasses(tiles)
