"""CIE Lab of sRGB under D65: the constants of both ways of computing it, with those of scikit-image."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from dataflow.optical_density import INTENSITY, TRANSPARENT_OD

RGB_TO_XYZ: Final[npt.NDArray[np.float64]] = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
) / np.array([[0.95047], [1.0], [1.08883]])
"""Linear sRGB to X, Y, Z, of which white has (1, 1, 1)."""

XYZ_TO_RGB: Final = np.linalg.inv(RGB_TO_XYZ).astype(np.float64)

F_TO_LAB: Final[npt.NDArray[np.float64]] = np.array(
    [[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]]
)
"""Compressed X, Y, Z to L + 16, a, b."""

LAB_TO_F: Final = np.linalg.inv(F_TO_LAB).astype(np.float64)

L_ZERO: Final = 16.0

GAMMA_KNEE, LINEAR_KNEE, GAMMA_SLOPE = 0.04045, 0.0031308, 12.92
"""sRGB is linear below: of the coded value, of the intensity; and by how much."""

XYZ_KNEE, F_KNEE, F_SLOPE, F_ZERO = 0.008856, 0.2068966, 7.787, 16.0 / 116.0
"""f is linear below: of X, Y, Z, of f; and how: ``F_SLOPE * x + F_ZERO``."""

CLEAR: Final = INTENSITY * math.exp(-TRANSPARENT_OD)
"""Grey level from which a channel counts as transparent: colour transfer fades out from here to INTENSITY."""
