"""Contact sheets: the heatmaps of a cohort side by side, all in the same colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from dataflow.colour_bar import BAR_WIDTH_PX, draw_colour_bar
from dataflow.ground import Ground
from dataflow.heat_colours import HeatmapStyle, scaled
from dataflow.heat_layers import Colour, HeatLayer, Outline
from dataflow.heat_views import draw_outlines, score_view, slide_view, view_size
from dataflow.picture_parts import FRAME, INK, font, shortened, wrapped

VIEW_PX: Final = 240
"""Longer side of a slide on the sheet."""

PAGE_CELLS: Final = 60
_MAX_COLUMNS: Final = 10
_MIN_COLUMNS: Final = 4  # room for the heading
_GAP_PX: Final = 14
_MARGIN_PX: Final = 20
_CAPTION_PX: Final = 40
_HEADER_PX: Final = 112  # with one line of text
_LINE_PX: Final = 21
_TITLE_PX: Final = 24
_TEXT_PX: Final = 16
_SMALL_PX: Final = 14
_BAR_PX: Final = 420
_NUMBER_PX: Final = 32  # room for the halves of the numbers at the bar's ends


@dataclass(frozen=True)
class Cell:
    """One slide of a sheet.

    Attributes
    ----------
    title
        Slide id.
    caption
        A few words: numbers.
    view
        RGB, :data:`VIEW_PX` at its longer side; or that wide, and higher.
    beyond
        Whether it has values below and above the ends of the colour bar.
    """

    title: str
    caption: str
    view: Image.Image
    beyond: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class SheetHead:
    """What stands above all cells of a page.

    Attributes
    ----------
    title
        What the sheet shows.
    label
        What the colours mean.
    limits
        Ends of the colour bar.
    style
        Colours.
    legend
        (colour, label) of the outlines.
    """

    title: str
    label: str
    limits: tuple[float, float]
    style: HeatmapStyle
    legend: Sequence[tuple[Colour, str]] = ()


def sheet_cell(
    title: str,
    caption: str,
    ground: Ground,
    scores: HeatLayer,
    outlines: Sequence[Outline],
    style: HeatmapStyle,
) -> Cell:
    """Draw one slide for a sheet: the scores over it, small.

    Parameters
    ----------
    title, caption
        Slide id and numbers.
    ground, scores, outlines
        As of :func:`dataflow.heatmap.heatmap_picture`.
    style
        Colours, with the limits that all cells share.
    """
    _, px_per_level0 = view_size(ground, VIEW_PX)
    scale = scaled(scores.values, scores.valid, scores.label, style)
    view = score_view(slide_view(ground, VIEW_PX), scores, scale, style, px_per_level0)
    draw_outlines(view, outlines, px_per_level0, 1)
    return Cell(title, caption, view, scale.beyond)


def contact_pages(
    head: SheetHead, cells: Sequence[Cell], unit: str = "slide"
) -> Iterator[Image.Image]:
    """Lay cells out on pages of up to :data:`PAGE_CELLS`, in the given order.

    Parameters
    ----------
    head
        What stands above them, on each page.
    cells
        At least one.
    unit
        What each of them shows.

    Yields
    ------
    PIL.Image.Image
        RGB.
    """
    n_pages = math.ceil(len(cells) / PAGE_CELLS)
    for page in range(n_pages):
        shown = cells[page * PAGE_CELLS : (page + 1) * PAGE_CELLS]
        count = f"{len(cells)} {unit}{'s' * (len(cells) != 1)}"
        yield _page(
            head, shown, count if n_pages == 1 else f"{count}, page {page + 1} of {n_pages}"
        )


def _page(head: SheetHead, cells: Sequence[Cell], count: str) -> Image.Image:
    # as wide as screens are: about 8 to 5
    columns = min(_MAX_COLUMNS, max(_MIN_COLUMNS, math.ceil(math.sqrt(len(cells) * 1.6))))
    # wide strips, e.g. of several sections, leave no empty rows below them
    view_height = max(cell.view.height for cell in cells)
    step_x, step_y = VIEW_PX + _GAP_PX, view_height + _CAPTION_PX + _GAP_PX
    rows = math.ceil(len(cells) / columns)
    width = 2 * _MARGIN_PX + columns * step_x - _GAP_PX
    bar_x = width - _MARGIN_PX - _BAR_PX - _NUMBER_PX
    lines = _colour_lines(head, bar_x - 2 * _MARGIN_PX - _NUMBER_PX)
    header_px = _HEADER_PX + _LINE_PX * (len(lines) - 1)
    canvas = Image.new("RGB", (width, header_px + rows * step_y + _MARGIN_PX), "white")
    below, above = (any(ends) for ends in zip(*(cell.beyond for cell in cells), strict=True))
    _draw_head(canvas, head, count, lines, bar_x, (below, above))
    draw = ImageDraw.Draw(canvas)
    type_, small = font(_TEXT_PX), font(_SMALL_PX)
    for i, cell in enumerate(cells):
        x = _MARGIN_PX + (i % columns) * step_x
        y = header_px + (i // columns) * step_y
        left = x + (VIEW_PX - cell.view.width) // 2
        top = y + (view_height - cell.view.height) // 2
        canvas.paste(cell.view, (left, top))
        frame = (left - 1, top - 1, left + cell.view.width, top + cell.view.height)
        draw.rectangle(frame, outline=FRAME)
        text_y = y + view_height + 3
        draw.text((x, text_y), shortened(draw, cell.title, type_, VIEW_PX), INK, type_)
        draw.text((x, text_y + 19), shortened(draw, cell.caption, small, VIEW_PX), INK, small)
    return canvas


def _colour_lines(head: SheetHead, room_px: int) -> list[str]:
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return wrapped(draw, f"colour, the same on all slides: {head.label}", font(_TEXT_PX), room_px)


def _draw_head(
    canvas: Image.Image,
    head: SheetHead,
    count: str,
    lines: Sequence[str],
    bar_x: int,
    beyond: tuple[bool, bool],
) -> None:
    draw = ImageDraw.Draw(canvas)
    large, type_ = font(_TITLE_PX), font(_TEXT_PX)
    room = bar_x - 2 * _MARGIN_PX
    title = shortened(draw, f"{head.title}    {count}", large, room)
    draw.text((_MARGIN_PX, 12), title, INK, large)
    for i, line in enumerate(lines):
        draw.text((_MARGIN_PX, 46 + i * _LINE_PX), line, INK, type_)
    x, y = _MARGIN_PX, 52 + len(lines) * _LINE_PX
    for colour, label in head.legend:
        draw.rectangle((x, y + 1, x + 15, y + 16), outline=colour, width=3)
        draw.text((x + 23, y), label, INK, type_)
        x += 56 + math.ceil(draw.textlength(label, type_))
    y = 22
    draw_colour_bar(
        canvas, type_, bar_x, y, _BAR_PX, head.limits, head.style, upright=False, beyond=beyond
    )
    assert y + BAR_WIDTH_PX < _HEADER_PX
