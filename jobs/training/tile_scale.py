"""Which tiles a model is for: their side and their pixel size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MPP_TOLERANCE: Final = 0.05
"""How far a pixel size may be off, as a fraction: scanners of one magnification differ by about that."""


@dataclass(frozen=True)
class TileScale:
    """The side of a tile [px], and its pixel size [µm/px], None where that isn't known."""

    tile_px: int
    mpp: float | None

    def __str__(self) -> str:
        if self.mpp is None:
            return f"tiles of {self.tile_px} px of unknown pixel size"
        return f"tiles of {self.tile_px} px at {self.mpp:.4g} µm/px"

    @property
    def making(self) -> str:
        """How a grid of such tiles is made."""
        mpp = PCAM.mpp if self.mpp is None else self.mpp
        return f"`slidestream index --tile-px {self.tile_px} --mpp {mpp:g}`"

    def same_mpp(self, other: TileScale) -> bool:
        """Tell whether pixels are of one size to within the tolerance, as far as both are known."""
        if self.mpp is None or other.mpp is None:
            return True
        return abs(other.mpp / self.mpp - 1) <= MPP_TOLERANCE

    def fits(self, other: TileScale) -> bool:
        """Tell whether tiles of the other scale can stand for tiles of this one."""
        return self.tile_px == other.tile_px and self.same_mpp(other)


PCAM: Final = TileScale(96, 0.972)
"""Of PatchCamelyon: 40x of 0.243 µm/px, undersampled to 10x."""
