"""The views of a heatmap at any size: the slide, and the scores over it, with outlines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from dataflow.ground import Ground
from dataflow.heat_colours import HeatmapStyle, Scale, colours_of
from dataflow.heat_layers import Colour, Floats, HeatLayer, Outline, sampled
from dataflow.picture_parts import resampling
from dataflow.raster_pooling import pooled

BLANK: Final = 244
"""Grey of the ground where there is no slide to show."""

_SQUARE: Final = np.ones((3, 3), bool)
_WHITE: Final = (255, 255, 255)


def view_size(ground: Ground, long_side_px: int) -> tuple[tuple[int, int], float]:
    """Return the (width, height) of a view [px], and its picture pixels per level-0 pixel."""
    scale = long_side_px / max(ground.width, ground.height)
    return (max(1, round(ground.width * scale)), max(1, round(ground.height * scale))), scale


def slide_view(ground: Ground, long_side_px: int) -> Image.Image:
    """Return the slide, or blank ground where it can't be read."""
    size, scale = view_size(ground, long_side_px)
    if ground.thumbnail is None:
        return Image.new("RGB", size, (BLANK,) * 3)
    # the part of the last row and column that lies beyond the slide is cut off
    box = (0.0, 0.0, ground.width / ground.px_level0, ground.height / ground.px_level0)
    rows, columns = ground.thumbnail.shape[:2]
    box = (0.0, 0.0, min(box[2], columns), min(box[3], rows))
    factor = scale * ground.px_level0
    return Image.fromarray(ground.thumbnail).resize(size, resampling(factor), box=box)


def score_view(
    slide: Image.Image, layer: HeatLayer, scale: Scale, style: HeatmapStyle, px_per_level0: float
) -> Image.Image:
    """Return the scores over the slide; below the overlay the slide is grey, so that every hue is the score's.

    Parameters
    ----------
    slide
        As of :func:`slide_view`.
    layer, scale
        What to draw where, and the values as they are coloured.
    style
        Colour map and opacity.
    px_per_level0
        Picture pixels per level-0 pixel.
    """
    values: Floats = layer.drawn(scale.values, slide.size, px_per_level0)
    known = np.isfinite(values)
    colours = colours_of(values[known], scale.limits, style.cmap)
    pixels = np.asarray(slide).copy()
    grey = np.asarray(slide.convert("L"))[known][:, None]
    pixels[known] = np.rint(style.alpha * colours + (1 - style.alpha) * grey).astype(np.uint8)
    return Image.fromarray(pixels)


def draw_outlines(
    view: Image.Image, outlines: Sequence[Outline], px_per_level0: float, line_px: int
) -> None:
    """Draw regions as lines along their borders, into a view, the first one first.

    A cased line has a white one beside it, so that it can be told from what is below, dark or bright.
    """
    for outline in outlines:
        # whatever is inside of a picture pixel makes it inside: small regions are what is looked for
        pool = max(1, math.floor(1 / (px_per_level0 * max(outline.px_level0))))
        mask = pooled(outline.mask, pool, "max")
        px_x, px_y = outline.px_level0
        px = px_x * pool, px_y * pool
        inside = sampled(mask, 0, px, outline.origin_level0, view.size, px_per_level0) > 0
        if outline.beyond:
            inside = ndimage.binary_dilation(inside, _SQUARE, iterations=line_px)
        edge = inside & ~ndimage.binary_erosion(inside, _SQUARE, iterations=line_px)
        if outline.cased:
            grown = ndimage.binary_dilation(edge, _SQUARE)
            _paint(view, grown & (~inside if outline.beyond else inside), _WHITE)
        _paint(view, edge, outline.colour)


def _paint(view: Image.Image, where: npt.NDArray[np.bool_], colour: Colour) -> None:
    view.paste(colour, (0, 0), Image.fromarray((where * np.uint8(255)).astype(np.uint8)))
