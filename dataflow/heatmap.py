"""Heatmaps: what a score says, drawn over the slide, with all that is needed to read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw

from dataflow.colour_bar import draw_colour_bar
from dataflow.ground import Ground
from dataflow.heat_colours import DEFAULT_STYLE, HeatmapStyle, scaled
from dataflow.heat_layers import HeatLayer, Outline
from dataflow.heat_views import draw_outlines, score_view, slide_view, view_size
from dataflow.picture_parts import FRAME, INK, OUTLINE_PX, draw_scale_bar, font, shortened

LONG_SIDE_PX: Final = 1000
"""Of a view."""

_MARGIN_PX: Final = 20
_TITLE_PX: Final = 26
_TEXT_PX: Final = 17
_HEADER_PX: Final = 108  # with two lines of text
_LINE_PX: Final = 26
_FOOTER_PX: Final = 74
_BAR_ROOM_PX: Final = 130
_BAR_MAX_PX: Final = 700
_MIN_BAR_PX: Final = 160


def heatmap_picture(
    title: str,
    lines: Sequence[str],
    ground: Ground,
    scores: HeatLayer,
    outlines: Sequence[Outline] = (),
    style: HeatmapStyle = DEFAULT_STYLE,
) -> Image.Image:
    """Draw the slide and, beside it, the scores over the same view, with colour bar, scale bar and legend.

    Parameters
    ----------
    title
        Slide id.
    lines
        Text below the title: prediction and numbers.
    ground
        The slide; without a thumbnail only the overlay is drawn, on blank ground.
    scores
        What to draw.
    outlines
        Tissue, mask, truth … later ones are drawn over earlier ones.
    style
        Colours.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    (width, height), px_per_level0 = view_size(ground, LONG_SIDE_PX)
    scale = scaled(scores.values, scores.valid, scores.label, style)
    slide = slide_view(ground, LONG_SIDE_PX)
    overlay = score_view(slide, scores, scale, style, px_per_level0)
    for view in (slide, overlay):
        draw_outlines(view, outlines, px_per_level0, OUTLINE_PX)

    views = [overlay] if ground.thumbnail is None else [slide, overlay]
    top = _HEADER_PX + _LINE_PX * max(0, len(lines) - 2)
    view_height = max(height, _MIN_BAR_PX)
    canvas_width = len(views) * (width + _MARGIN_PX) + _MARGIN_PX + _BAR_ROOM_PX
    canvas = Image.new("RGB", (canvas_width, top + view_height + _FOOTER_PX), "white")
    draw = ImageDraw.Draw(canvas)
    type_ = font(_TEXT_PX)
    x = _MARGIN_PX
    for view in views:
        canvas.paste(view, (x, top))
        draw.rectangle((x - 1, top - 1, x + width, top + height), outline=FRAME)
        x += width + _MARGIN_PX
    bar_px = min(view_height, _BAR_MAX_PX)
    draw_colour_bar(canvas, type_, x, top, bar_px, scale.limits, style, beyond=scale.beyond)
    room = canvas_width - 2 * _MARGIN_PX
    large = font(_TITLE_PX)
    draw.text((_MARGIN_PX, 10), shortened(draw, title, large, room), INK, large)
    for i, line in enumerate(lines):
        text = shortened(draw, line, type_, room)
        draw.text((_MARGIN_PX, 48 + i * _LINE_PX), text, INK, type_)

    y = top + view_height + 14
    if ground.mpp is None:
        draw.text((_MARGIN_PX, y), "size unknown", INK, type_)
        x = _MARGIN_PX + 160
    else:
        um_per_px = ground.mpp / px_per_level0
        x = draw_scale_bar(draw, type_, _MARGIN_PX, y, width, um_per_px) + 40
    for outline in outlines:
        draw.rectangle((x, y + 2, x + 16, y + 18), outline=outline.colour, width=3)
        draw.text((x + 26, y), outline.label, INK, type_)
        x += 66 + math.ceil(draw.textlength(outline.label, type_))
    colour = f"colour: {scale.label}"
    if ground.thumbnail is None:
        colour += f"    NO SLIDE BELOW: {ground.note or 'it was not read'}"
    draw.text((_MARGIN_PX, y + 28), shortened(draw, colour, type_, room), INK, type_)
    return canvas
