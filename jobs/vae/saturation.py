"""Which tiles have colour enough to be tissue."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_BLUR_PX: Final = 8


def has_colour(tiles: npt.NDArray[np.uint8], min_saturation: float) -> npt.NDArray[np.bool_]:
    """Tell which tiles are saturated enough somewhere, in the way of PatchCamelyon's patch selection.

    There, slides are converted to HSV and blurred, and a patch whose greatest saturation is below 0.07 is left out
    (github.com/basveeling/pcam, "Patch selection"; the blur isn't said). Here the blur is the mean of
    squares of 8 px. It is the unnormalized tile that is judged, so that the same tiles are
    kept with and without stain normalization.

    Parameters
    ----------
    tiles
        uint8 (tile, y, x, rgb), sides divisible by 8.
    min_saturation
        0 to 1; 0 keeps all.

    Returns
    -------
    array
        bool (tile,).
    """
    n, height, width, _ = tiles.shape
    red, green, blue = (tiles[..., channel] for channel in range(3))
    greatest = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    # HSV: 1 - least / greatest, and 0 where all is black
    saturation = 1 - least / np.maximum(greatest, 1, dtype=np.float32)
    saturation[greatest == 0] = 0
    squares = saturation.reshape(n, height // _BLUR_PX, _BLUR_PX, width // _BLUR_PX, _BLUR_PX)
    enough: npt.NDArray[np.bool_] = squares.mean(axis=(2, 4)).max(axis=(1, 2)) >= min_saturation
    return enough
