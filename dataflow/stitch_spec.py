"""How tiles become one slide-sized array: the frozen settings, and the raster that they come to on a slide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from store_schema.errors import InputError

Mode: TypeAlias = Literal["mean", "max", "gaussian", "vote"]
FloatDtype: TypeAlias = Literal["float16", "float32"]

# Standard deviation of the Gaussian weights in sides of a tile: that of nnU-Net (Isensee et al., Nature Methods 2021)
# and of MONAI's sliding window. At the middle of a tile's edge the weight is 1/3000 of that at its centre.
GAUSSIAN_SIGMA: Final = 0.125

_ROUNDING: Final = 1e-9
_MOST_SAMPLES: Final = 256  # along an axis of a pixel
_FINER: Final = 0.01  # pixels that are at most this share coarser than the source's are sampled once, at their centres


@dataclass(frozen=True)
class StitchSpec:
    """What is asked for, the same for all slides.

    Attributes
    ----------
    mode
        What is said where tiles overlap: their mean, the greatest, the mean weighted by a Gaussian around each tile's
        centre, or what most of them say.
    mpp, px_level0
        Side of a pixel of the result, in µm or in level-0 pixels; None of both takes the source's own: the side of a
        map's pixel, of scalars the distance of tiles.
    dtype
        Of floats that are stored; None takes float32, with ``argmax`` float16.
    vote_from
        With ``vote`` a tile of one number votes for 1 from here on, else for 0.
    argmax
        Also the greatest class of each pixel.
    """

    mode: Mode = "mean"
    mpp: float | None = None
    px_level0: float | None = None
    dtype: FloatDtype | None = None
    vote_from: float = 0.5
    argmax: bool = False

    def __post_init__(self) -> None:
        if self.mpp is not None and self.px_level0 is not None:
            raise InputError("--mpp and --px say the same thing twice: give one of them")
        for size, unit in ((self.mpp, "µm"), (self.px_level0, "level-0 pixels")):
            if size is not None and not (math.isfinite(size) and size > 0):
                raise InputError(f"a pixel of {size:g} {unit} is no pixel: give a positive number")

    @property
    def float_dtype(self) -> FloatDtype:
        """The dtype of floats that are stored."""
        return self.dtype or ("float16" if self.argmax else "float32")


@dataclass(frozen=True)
class StitchRaster:
    """The pixels of the result on one slide; they begin at the slide's level-0 origin.

    Attributes
    ----------
    n_rows, n_cols
        Its size; the last row and column may reach over the slide's border.
    px_level0
        Side of a pixel [px, level 0].
    samples
        Samples of a pixel along each axis: more than one where a pixel is coarser than the source's.
    """

    n_rows: int
    n_cols: int
    px_level0: float
    samples: int

    @property
    def sample_level0(self) -> float:
        """Distance of samples [px, level 0]."""
        return self.px_level0 / self.samples


def raster_of(
    spec: StitchSpec,
    *,
    width: int,
    height: int,
    slide_mpp: float | None,
    source_px_level0: float,
    default_px_level0: float,
) -> StitchRaster:
    """Lay the result's pixels over a slide.

    Parameters
    ----------
    spec
        What is asked for.
    width, height
        Of the slide [px, level 0].
    slide_mpp
        Physical size of a level-0 pixel [µm/px], None where it isn't known.
    source_px_level0
        Side of the smallest square of which the source says one thing [px, level 0]: a map's pixel, or a tile.
    default_px_level0
        Side of a pixel where none is asked for [px, level 0].

    Raises
    ------
    InputError
        A size in µm is asked for, and the slide's isn't known.
    """
    px = default_px_level0 if spec.px_level0 is None else spec.px_level0
    if spec.mpp is not None:
        if slide_mpp is None:
            raise InputError("the slide's pixel size isn't known: give --px instead of --mpp")
        px = spec.mpp / slide_mpp
    return StitchRaster(
        n_rows=max(1, math.ceil(height / px - _ROUNDING)),
        n_cols=max(1, math.ceil(width / px - _ROUNDING)),
        px_level0=px,
        samples=min(max(1, math.ceil(px / source_px_level0 - _FINER)), _MOST_SAMPLES),
    )
