"""What Reinhard's method needs to know of pixels, pass by pass: the seam between its algebra and a device."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch


class LabPasses(Protocol):
    """A batch of n tiles in CIE Lab (D65). A tile's numbers don't depend on its neighbours in the batch.

    A pixel is tissue where some channel is not transparent. Numbers are float64 tensors on the CPU.
    """

    @property
    def tile_px(self) -> int:
        """Pixels of each tile."""
        ...

    def moments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Count (n,), mean (n, 3) and standard deviation (n, 3) of L, a and b of the tissue pixels.

        L, a and b are taken to 7 bits after the point. Fewer than two pixels give zeros, not NaN.
        """
        ...

    def apply(
        self,
        gain: torch.Tensor,
        offset: torch.Tensor,
        wanted: npt.NDArray[np.bool_],
        out: torch.Tensor,
    ) -> None:
        """Write ``gain * Lab + offset`` as sRGB, faded out towards clear glass; other tiles are copied.

        Parameters
        ----------
        gain, offset
            (n or 1, 3) of L, a and b, finite.
        wanted
            (n,): the tiles that the map is for.
        out
            uint8 (n, y, x, rgb), contiguous; may be the batch itself.
        """
        ...


def lab_passes(tiles: torch.Tensor) -> LabPasses:
    """Return the passes over tiles, uint8 (n, y, x, rgb), where they are: compiled on the CPU, else in torch."""
    if tiles.device.type == "cpu":
        from dataflow.reinhard_cpu import (
            CompiledLabPasses,  # imports numba, and may have to compile
        )

        return CompiledLabPasses(tiles)
    from dataflow.reinhard_torch import TorchLabPasses

    return TorchLabPasses(tiles)
