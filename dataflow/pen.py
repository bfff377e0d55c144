"""Finding pen and marker on a thumbnail without taking stained tissue for ink.

Rules on hue, saturation and darkness at about 8 µm a pixel. They are strict, because to lose
tissue is worse than to keep ink. H&E lies at hues of 240° to 350° (haematoxylin blue-violet to
eosin pink), haemosiderin and melanin at 10° to 45°. So green is always ink; blue must be strong
and on the cyan side of haematoxylin; red must be purer than blood; black and grey must be dark and
colourless, while dark pigment keeps some brown.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_GREEN: Final = (75.0, 185.0)
_GREEN_SATURATION: Final = 0.15
_BLUE: Final = (185.0, 238.0)
_BLUE_SATURATION: Final = 0.5
_RED: Final = (352.0, 12.0)
_RED_SATURATION: Final = 0.85
_DARK: Final = 100  # largest channel of black ink, 0 to 255
_COLOURLESS: Final = 24  # largest minus smallest channel

_FRINGE_PX: Final = 4  # a stroke's edge is half ink, half glass, and fails the strict rules
_FRINGE_SATURATION: Final = 0.07


def hue_saturation(
    rgb: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """HSV hue and saturation.

    Parameters
    ----------
    rgb
        uint8 (y, x, rgb).

    Returns
    -------
    tuple of array
        float32 (y, x): hue [degrees], 0 to 360, and saturation, 0 to 1; black has saturation 0.
    """
    red, green, blue = (rgb[..., channel].astype(np.float32) for channel in range(3))
    largest = np.maximum(np.maximum(red, green), blue)
    chroma = largest - np.minimum(np.minimum(red, green), blue)
    safe = np.maximum(chroma, 1.0)
    sector = np.where(
        largest == red,
        (green - blue) / safe,
        np.where(largest == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    hue = ((sector * 60.0) % 360.0).astype(np.float32)
    saturation = (chroma / np.maximum(largest, 1.0)).astype(np.float32)
    return hue, saturation


def pen_mask(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Find ink on a thumbnail.

    Parameters
    ----------
    rgb
        uint8 (y, x, rgb), about 8 µm a pixel.

    Returns
    -------
    array
        bool (y, x), where there is ink.
    """
    hue, saturation = hue_saturation(rgb)
    largest = rgb.max(axis=2)
    chroma = largest - rgb.min(axis=2)
    black = (largest < _DARK) & (chroma < _COLOURLESS)
    ink: npt.NDArray[np.bool_] = _despeckle(black)
    for (low, high), strong in (
        (_GREEN, _GREEN_SATURATION),
        (_BLUE, _BLUE_SATURATION),
        (_RED, _RED_SATURATION),
    ):
        of_hue = (hue >= low) & (hue <= high) if low < high else (hue >= low) | (hue <= high)
        stroke = _despeckle(of_hue & (saturation >= strong))
        if stroke.any():
            near = ndimage.binary_dilation(stroke, iterations=_FRINGE_PX)
            ink |= stroke | (near & of_hue & (saturation >= _FRINGE_SATURATION))
    return ink


def _despeckle(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Drop what is thinner than a stroke: single pixels are pigment, dust or compression."""
    if not mask.any():
        return mask
    opened: npt.NDArray[np.bool_] = ndimage.binary_opening(mask, np.ones((2, 2), dtype=bool))
    return opened
