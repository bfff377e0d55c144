"""Colour bars of heatmaps: the colours as they look over white glass, with numbers."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataflow.heat_colours import HeatmapStyle, colours_of
from dataflow.picture_parts import FRAME, INK

BAR_WIDTH_PX: Final = 22
"""The shorter side of a bar."""

_TICKS: Final = 5
_TICK_PX: Final = 5


def draw_colour_bar(
    canvas: Image.Image,
    type_: ImageFont.FreeTypeFont,
    x: int,
    y: int,
    length_px: int,
    limits: tuple[float, float],
    style: HeatmapStyle,
    *,
    upright: bool = True,
    beyond: tuple[bool, bool] = (False, False),
) -> None:
    """Draw a colour bar with its numbers.

    Parameters
    ----------
    canvas, type_
        Where, and in which type.
    x, y
        Top-left corner [px].
    length_px
        The longer side.
    limits
        What its ends stand for.
    style
        Colour map and opacity.
    upright
        Greatest on top and numbers on the right, else greatest on the right and numbers below.
    beyond
        Whether values lie below and above the ends, which have the colours of the ends.
    """
    draw = ImageDraw.Draw(canvas)
    low, high = limits
    ramp = colours_of(np.linspace(low, high, length_px), limits, style.cmap)
    over_white = np.rint(style.alpha * ramp + (1 - style.alpha) * 255).astype(np.uint8)
    if upright:
        bar = Image.fromarray(over_white[::-1, None]).resize((BAR_WIDTH_PX, length_px))
    else:
        bar = Image.fromarray(over_white[None]).resize((length_px, BAR_WIDTH_PX))
    canvas.paste(bar, (x, y))
    draw.rectangle((x - 1, y - 1, x + bar.width, y + bar.height), outline=FRAME)
    for share in np.linspace(0, 1, _TICKS):
        text = _tick(low + share * (high - low), high - low)
        if (beyond[0] and share == 0) or (beyond[1] and share == 1):
            text = f"{'≤' if share == 0 else '≥'} {text}"
        along = round(share * (length_px - 1))
        if upright:
            right, at = x + BAR_WIDTH_PX, y + length_px - 1 - along
            draw.line((right, at, right + _TICK_PX, at), fill=INK)
            draw.text((right + _TICK_PX + 4, at), text, INK, type_, anchor="lm")
        else:
            below, at = y + BAR_WIDTH_PX, x + along
            draw.line((at, below, at, below + _TICK_PX), fill=INK)
            draw.text((at, below + _TICK_PX + 4), text, INK, type_, anchor="mt")


def _tick(value: float, span: float) -> str:
    """Spell a number with as many digits as tell the ticks apart."""
    if abs(value) < span * 1e-9:
        return "0"
    if span < 1e-3 or max(abs(value), span) >= 1e5:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(span)))}f}"
