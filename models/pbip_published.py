"""Maps as the public PBIP protocol makes them for its tables: stretched tile by tile, and told which classes are there.

Not for slides: the labels are derived from the truth that the maps are then judged by, so that no class can be found
where it isn't. What is found without being told is ``models.pbip.confidence``. Source: ``utils/validate.py`` of the
authors' repository (facts alone).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from models.pbip import (
    FUSION,
    Merge,
    Pbip,
    PbipConfig,
    PbipOutput,
    class_maps,
    resized,
    sum_weighted,
)

# Each as it is and mirrored left to right.
_BRIGHTNESS: Final = (0.9, 1.0, 1.1)
_BACKGROUND_POWER: Final = 10


def published_cam(
    output: PbipOutput, config: PbipConfig, labels: Tensor, size_px: int, how: Merge = "softmax"
) -> Tensor:
    """Return the fused maps of the public protocol, float (n, class, size_px, size_px) in 0 to 1.

    Each map is cut at 0 and stretched from its least value to its largest, so that every class that ``labels`` let
    through has a pixel of 1; then resized and fused, 0.3, 0.3 and 0.4 of the scales at strides 8, 16 and 32.

    Parameters
    ----------
    output, config
        Of the network.
    labels
        float (n, class): 1 where the tile holds the class by the truth, else 0.
    size_px
        Side of the maps [px].
    how
        See ``merge_subclasses``; the default is what the authors call max.
    """
    parts = []
    for weight, maps in zip(FUSION, class_maps(output.maps, config, how), strict=True):
        if weight:
            positive = maps.relu()
            least, most = positive.amin((2, 3), keepdim=True), positive.amax((2, 3), keepdim=True)
            stretched = (positive - least) / (most - least + 1e-6)
            parts.append((weight, resized(stretched * labels[:, :, None, None], size_px)))
    return sum_weighted(parts)


def published_prediction(
    model: Pbip, tiles: Tensor, labels: Tensor, size_px: int, how: Merge = "softmax"
) -> Tensor:
    """Return ``published_cam`` averaged over a tile and its mirror image, each at three brightnesses.

    Parameters
    ----------
    model
        In eval mode.
    tiles
        uint8 (n, y, x, rgb) on its device.
    labels, size_px, how
        See ``published_cam``. The class of a pixel is the largest of the result; pixels that the truth calls
        background are left out of the mean IoU.
    """
    x = model.normalize(tiles)
    seen = []
    for mirrored in (False, True):
        view = x.flip(3) if mirrored else x
        for factor in _BRIGHTNESS:
            maps = published_cam(model(factor * view), model.config, labels, size_px, how)
            seen.append(maps.flip(3) if mirrored else maps)
    return torch.stack(seen).mean(0)


def published_background(cam: Tensor) -> Tensor:
    """Return the background's map, (1 - the largest class)^10, float (n, y, x), of ``published_cam``.

    Where it exceeds all classes a pixel counts as background, in the pseudo-masks that a second network learns from.
    """
    return (1 - cam.amax(1)) ** _BACKGROUND_POWER
