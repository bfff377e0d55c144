"""Heatmaps: what a score says, drawn over the slide, with all that is needed to read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import rankdata

from dataflow.ground import Ground
from dataflow.picture_parts import (
    FRAME,
    INK,
    draw_scale_bar,
    font,
    outline_layer,
    resampling,
    shortened,
)
from store_schema.errors import InputError
from store_schema.near_names import near
from store_schema.specs import TileTable

Colour = tuple[int, int, int]

LONG_SIDE_PX: Final = 1000
_MARGIN_PX: Final = 20
_TITLE_PX: Final = 26
_TEXT_PX: Final = 17
_HEADER_PX: Final = 108
_FOOTER_PX: Final = 74
_BAR_WIDTH_PX: Final = 22
_BAR_ROOM_PX: Final = 130
_BAR_MAX_PX: Final = 700
_MIN_BAR_PX: Final = 160
_BLANK: Final = 244  # grey of the ground where there is no slide to show
_TICKS: Final = 5


@dataclass(frozen=True)
class HeatmapStyle:
    """How scores become colours.

    Attributes
    ----------
    cmap
        A matplotlib colour map. The default, viridis, is perceptually uniform (equal steps of score look equal, in
        grey print and to the colour-blind as well) and, unlike magma and its kin, holds no pink that could be taken
        for eosin.
    alpha
        Opacity of the overlay, 0 to 1.
    percentile
        Colour by the tile's rank within the slide (0 to 100, ties averaged) instead of by its value: shows the order
        where a few tiles have nearly all of the attention, but makes a slide without any finding look as hot as others.
    limits
        Values of the colour bar's ends; None takes what the score may range over, where it says so, else what it
        does on this slide.
    """

    cmap: str = "viridis"
    alpha: float = 0.6
    percentile: bool = False
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        known = list(matplotlib.colormaps)
        if self.cmap not in known:
            raise InputError(
                f"there is no colour map {self.cmap!r} in matplotlib: {near(self.cmap, known)}"
            )
        if not 0 <= self.alpha <= 1:
            raise InputError(f"the opacity {self.alpha:g} isn't between 0 and 1")
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise InputError(
                f"the colour bar can't go from {self.limits[0]:g} to {self.limits[1]:g}: low before high"
            )


@dataclass(frozen=True)
class TileScores:
    """One number a tile.

    Attributes
    ----------
    table
        The tiles.
    tile_level0
        Side of the square that a tile covers [px, level 0].
    values
        float (tile,); NaN where there is none.
    label
        What the number is, with its unit; stands at the colour bar.
    valid_min, valid_max
        Ends of what it may range over, None where it has none.
    """

    table: TileTable
    tile_level0: int
    values: npt.NDArray[np.floating]
    label: str
    valid_min: float | None = None
    valid_max: float | None = None


@dataclass(frozen=True)
class Outline:
    """A region drawn as a line.

    Attributes
    ----------
    mask
        uint8 (y, x), 0 is outside; begins at the slide's origin.
    px_level0
        Side of its pixels [px, level 0] as (x, y).
    colour, label
        As in the legend.
    """

    mask: npt.NDArray[np.uint8]
    px_level0: tuple[float, float]
    colour: Colour
    label: str


def heatmap_picture(
    title: str,
    lines: Sequence[str],
    ground: Ground,
    scores: TileScores,
    outlines: Sequence[Outline] = (),
    style: HeatmapStyle = HeatmapStyle(),
) -> Image.Image:
    """Draw the slide and, beside it, the scores over the same view, with colour bar, scale bar and legend.

    Below the overlay the slide is grey, so that every hue is the score's; structure stays visible as light and dark.
    Where tiles overlap, each point has the mean of the tiles that cover it.

    Parameters
    ----------
    title
        Slide id.
    lines
        Up to two lines of text below the title: prediction and numbers.
    ground
        The slide; without a thumbnail only the overlay is drawn, on blank ground.
    scores
        What to draw.
    outlines
        Tissue, truth …
    style
        Colours.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    scale = LONG_SIDE_PX / max(ground.width, ground.height)  # picture px per level-0 px
    size = max(1, round(ground.width * scale)), max(1, round(ground.height * scale))
    values, limits, label = _scaled(scores, style)
    slide = _slide_view(ground, size, scale)
    overlay = _overlay(slide, _mean_of_tiles(scores, values, size, scale), limits, style)
    for outline in outlines:
        layer = _outline_of(outline, size, scale)
        slide.paste(outline.colour, (0, 0), layer)
        overlay.paste(outline.colour, (0, 0), layer)

    views = [overlay] if ground.thumbnail is None else [slide, overlay]
    width, height = size
    view_height = max(height, _MIN_BAR_PX)
    canvas_width = len(views) * (width + _MARGIN_PX) + _MARGIN_PX + _BAR_ROOM_PX
    canvas = Image.new("RGB", (canvas_width, view_height + _HEADER_PX + _FOOTER_PX), "white")
    draw = ImageDraw.Draw(canvas)
    type_ = font(_TEXT_PX)
    x = _MARGIN_PX
    for view in views:
        canvas.paste(view, (x, _HEADER_PX))
        frame = (x - 1, _HEADER_PX - 1, x + width, _HEADER_PX + height)
        draw.rectangle(frame, outline=FRAME)
        x += width + _MARGIN_PX
    _colour_bar(canvas, draw, type_, x, min(view_height, _BAR_MAX_PX), limits, style)
    room = canvas_width - 2 * _MARGIN_PX
    large = font(_TITLE_PX)
    draw.text((_MARGIN_PX, 10), shortened(draw, title, large, room), INK, large)
    for y, line in zip((48, 74), lines, strict=False):
        draw.text((_MARGIN_PX, y), shortened(draw, line, type_, room), INK, type_)
    _footer(draw, type_, _HEADER_PX + view_height, room, width, ground, scale, label, outlines)
    return canvas


def _scaled(
    scores: TileScores, style: HeatmapStyle
) -> tuple[npt.NDArray[np.float64], tuple[float, float], str]:
    """Return the values to colour, the ends of the colour bar, and its label."""
    values = scores.values.astype(np.float64)
    known = np.isfinite(values)
    if style.percentile:
        ranks = np.full(values.shape, np.nan)
        ranks[known] = rank_percentile(values[known])
        return ranks, style.limits or (0.0, 100.0), f"{scores.label}, as percentile of the slide"
    if style.limits is not None:
        return values, style.limits, scores.label
    low, high = scores.valid_min, scores.valid_max
    if low is None:
        low = float(values[known].min()) if known.any() else 0.0
    if high is None:
        high = float(values[known].max()) if known.any() else low
    # a constant score has a colour, too
    return values, (low, high if high > low else low + (abs(low) or 1.0)), scores.label


def rank_percentile(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the rank of each value among all, 0 (least) to 100 (greatest); ties share the mean of their ranks.

    Parameters
    ----------
    values
        float (n,), finite. A single value has rank 50: it is neither.
    """
    if values.size < 2:
        return np.full(values.shape, 50.0)
    ranks: npt.NDArray[np.float64] = (rankdata(values) - 1) * (100.0 / (values.size - 1))
    return ranks


def _slide_view(ground: Ground, size: tuple[int, int], scale: float) -> Image.Image:
    if ground.thumbnail is None:
        return Image.new("RGB", size, (_BLANK,) * 3)
    # the part of the last row and column that lies beyond the slide is cut off
    box = (0.0, 0.0, ground.width / ground.px_level0, ground.height / ground.px_level0)
    rows, columns = ground.thumbnail.shape[:2]
    box = (0.0, 0.0, min(box[2], columns), min(box[3], rows))
    factor = scale * ground.px_level0
    return Image.fromarray(ground.thumbnail).resize(size, resampling(factor), box=box)


def _mean_of_tiles(
    scores: TileScores, values: npt.NDArray[np.float64], size: tuple[int, int], scale: float
) -> npt.NDArray[np.float64]:
    """Return float64 (y, x): at each picture pixel the mean of the tiles that cover it, NaN where there is none."""
    width, height = size
    known = np.isfinite(values)
    left, top = scores.table.x[known] * scale, scores.table.y[known] * scale
    side = scores.tile_level0 * scale
    x0, x1 = _pixels(left, left + side, width)
    y0, y1 = _pixels(top, top + side, height)
    sums, counts = (np.zeros((height + 1, width + 1)) for _ in range(2))
    # corners of boxes, summed twice: the cost doesn't grow with the tiles' size
    for rows, columns, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        np.add.at(sums, (rows, columns), sign * values[known])
        np.add.at(counts, (rows, columns), sign)
    sums, counts = (
        layer.cumsum(axis=0).cumsum(axis=1)[:height, :width] for layer in (sums, counts)
    )
    return np.where(counts > 0.5, sums / np.maximum(counts, 1.0), np.nan)


def _pixels(
    low: npt.NDArray[np.floating], high: npt.NDArray[np.floating], size: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the pixel intervals of tiles, at least a pixel each, cut to the picture."""
    first = np.clip(np.rint(low).astype(np.intp), 0, size - 1)
    return first, np.clip(np.rint(high).astype(np.intp), first + 1, size)


def _overlay(
    slide: Image.Image,
    values: npt.NDArray[np.float64],
    limits: tuple[float, float],
    style: HeatmapStyle,
) -> Image.Image:
    """Blend colours over the slide: grey below them, as it is elsewhere."""
    low, high = limits
    known = np.isfinite(values)
    colours = matplotlib.colormaps[style.cmap](np.clip((values[known] - low) / (high - low), 0, 1))
    pixels = np.asarray(slide).copy()
    grey = np.asarray(slide.convert("L"))[known][:, None]
    blended = style.alpha * colours[:, :3] * 255 + (1 - style.alpha) * grey
    pixels[known] = np.rint(blended).astype(np.uint8)
    return Image.fromarray(pixels)


def _outline_of(outline: Outline, size: tuple[int, int], scale: float) -> Image.Image:
    rows, columns = outline.mask.shape
    px_x, px_y = outline.px_level0
    own = max(1, round(columns * px_x * scale)), max(1, round(rows * px_y * scale))
    layer = Image.new("L", size, 0)
    layer.paste(outline_layer(outline.mask, own), (0, 0))
    return layer


def _colour_bar(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    type_: ImageFont.FreeTypeFont,
    x: int,
    height: int,
    limits: tuple[float, float],
    style: HeatmapStyle,
) -> None:
    """Draw the colours as they look over white glass, greatest on top, with numbers."""
    ramp: npt.NDArray[Any] = matplotlib.colormaps[style.cmap](np.linspace(1, 0, height))[:, None]
    over_white = style.alpha * ramp[..., :3] * 255 + (1 - style.alpha) * 255
    bar = Image.fromarray(np.rint(over_white).astype(np.uint8)).resize((_BAR_WIDTH_PX, height))
    top = _HEADER_PX
    canvas.paste(bar, (x, top))
    draw.rectangle((x - 1, top - 1, x + _BAR_WIDTH_PX, top + height), outline=FRAME)
    low, high = limits
    for share in np.linspace(0, 1, _TICKS):
        y = top + round((1 - share) * (height - 1))
        draw.line((x + _BAR_WIDTH_PX, y, x + _BAR_WIDTH_PX + 5, y), fill=INK)
        text = _tick(low + share * (high - low), high - low)
        draw.text((x + _BAR_WIDTH_PX + 9, y), text, INK, type_, anchor="lm")


def _tick(value: float, span: float) -> str:
    """Spell a number with as many digits as tell the ticks apart."""
    if abs(value) < span * 1e-9:
        return "0"
    if span < 1e-3 or max(abs(value), span) >= 1e5:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(span)))}f}"


def _footer(
    draw: ImageDraw.ImageDraw,
    type_: ImageFont.FreeTypeFont,
    top: int,
    room: int,
    width: int,
    ground: Ground,
    scale: float,
    label: str,
    outlines: Sequence[Outline],
) -> None:
    y, x = top + 14, _MARGIN_PX
    if ground.mpp is None:
        draw.text((x, y), "size unknown", INK, type_)
        x += 160
    else:
        x = draw_scale_bar(draw, type_, x, y, width, ground.mpp / scale) + 40
    for outline in outlines:
        draw.rectangle((x, y + 2, x + 16, y + 18), outline=outline.colour, width=2)
        draw.text((x + 26, y), outline.label, INK, type_)
        x += 66 + math.ceil(draw.textlength(outline.label, type_))
    colour = f"colour: {label}"
    if ground.thumbnail is None:
        colour += f"    NO SLIDE BELOW: {ground.note or 'it was not read'}"
    draw.text((_MARGIN_PX, y + 28), shortened(draw, colour, type_, room), INK, type_)
