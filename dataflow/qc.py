"""The QC picture: what was taken for tissue, and which tiles were laid on it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataflow.picture_parts import (
    FRAME,
    INK,
    OUTLINE,
    draw_scale_bar,
    font,
    outline_layer,
    resampling,
    save_png,
    shortened,
)
from dataflow.tissue import TissueMask
from store_schema.specs import GridGeometry, TileTable

_LONG_SIDE_PX: Final = 1400
_MARGIN_PX: Final = 20
_HEADER_PX: Final = 82
_FOOTER_PX: Final = 54
_MIN_WIDTH_PX: Final = 640
_TITLE_PX: Final = 26
_TEXT_PX: Final = 17

_TILE: Final = (20, 70, 200)
_OUTLINE_ALPHA: Final = 150
_FILL_ALPHA: Final = 40
_MIN_SQUARE_PX: Final = 8.0  # smaller tiles are shown as a tint: outlines would hide the tissue
_WIDE_LINE_FROM_PX: Final = 40.0


def save_qc_picture(
    path: Path,
    slide_id: str,
    tissue: TissueMask,
    geometry: GridGeometry,
    table: TileTable,
    mpp: float | None,
) -> None:
    """Draw the QC picture and write it as PNG; folders are made as needed.

    Parameters
    ----------
    path
        Where to.
    slide_id, tissue, geometry, table, mpp
        As for :func:`qc_picture`.

    Raises
    ------
    InputError
        The file can't be written.
    """
    save_png(qc_picture(slide_id, tissue, geometry, table, mpp), path, "QC picture")


def qc_picture(
    slide_id: str,
    tissue: TissueMask,
    geometry: GridGeometry,
    table: TileTable,
    mpp: float | None,
) -> Image.Image:
    """Draw thumbnail, tissue outline and tiles, with a title, counts and a scale bar.

    Parameters
    ----------
    slide_id
        The title.
    tissue
        Mask and thumbnail.
    geometry, table
        The tiles.
    mpp
        Size of a level-0 pixel [µm/px]; without it there is no scale bar, and no areas.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    rows, columns = tissue.mask.shape
    scale = _LONG_SIDE_PX / max(rows, columns)  # picture px per mask px
    width, height = max(1, round(columns * scale)), max(1, round(rows * scale))
    view = Image.fromarray(tissue.thumbnail).resize((width, height), resampling(scale))
    per_level0 = scale / tissue.px_level0
    view.paste(_TILE, (0, 0), _tile_layer(view.size, table, geometry, per_level0))
    view.paste(OUTLINE, (0, 0), outline_layer(tissue.mask, view.size))

    canvas_width = max(width, _MIN_WIDTH_PX) + 2 * _MARGIN_PX
    canvas = Image.new("RGB", (canvas_width, height + _HEADER_PX + _FOOTER_PX), "white")
    canvas.paste(view, (_MARGIN_PX, _HEADER_PX))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle(
        (_MARGIN_PX - 1, _HEADER_PX - 1, _MARGIN_PX + width, _HEADER_PX + height),
        outline=FRAME,
    )
    room = canvas_width - 2 * _MARGIN_PX
    title, text = font(_TITLE_PX), font(_TEXT_PX)
    draw.text((_MARGIN_PX, 10), shortened(draw, slide_id, title, room), INK, title)
    counts = _counts(tissue, geometry, table, mpp)
    draw.text((_MARGIN_PX, 48), shortened(draw, counts, text, room), INK, text)
    _footer(draw, text, width, height, None if mpp is None else mpp / per_level0)
    return canvas


def _tile_layer(
    size: tuple[int, int], table: TileTable, geometry: GridGeometry, per_level0: float
) -> Image.Image:
    """Opacity (0 to 255) of the tiles' colour."""
    layer = Image.new("L", size, 0)
    draw = ImageDraw.Draw(layer)
    side = geometry.tile_level0 * per_level0
    squares = side >= _MIN_SQUARE_PX
    line_px = 2 if side >= _WIDE_LINE_FROM_PX else 1
    left, top = table.x * per_level0, table.y * per_level0
    boxes = np.stack([left, top, left + side, top + side], axis=1).round().astype(int)
    for x0, y0, x1, y1 in boxes.tolist():
        if squares:
            draw.rectangle((x0, y0, x1, y1), outline=_OUTLINE_ALPHA, width=line_px)
        else:
            draw.rectangle((x0, y0, x1, y1), fill=_FILL_ALPHA)
    return layer


def _counts(tissue: TissueMask, geometry: GridGeometry, table: TileTable, mpp: float | None) -> str:
    side = f"{geometry.tile_level0} px at level 0"
    share = f"{tissue.mask.mean():.1%} of the slide"
    if mpp is not None:
        side = f"{geometry.tile_level0 * mpp:.0f} µm, {side}"
        area_mm2 = int(tissue.mask.sum()) * (tissue.px_level0 * mpp / 1000.0) ** 2
        share = f"{area_mm2:.3g} mm², {share}"
    plural = "tile" if len(table) == 1 else "tiles"
    lattice = geometry.n_rows * geometry.n_cols
    return f"{len(table):,} {plural} of {lattice:,} (each {side})    tissue: {share}"


def _footer(
    draw: ImageDraw.ImageDraw,
    type_: ImageFont.FreeTypeFont,
    width: int,
    height: int,
    um_per_px: float | None,
) -> None:
    y = _HEADER_PX + height + 14
    x = _MARGIN_PX
    if um_per_px is None:
        draw.text((x, y), "size unknown", INK, type_)
        x += 160
    else:
        x = draw_scale_bar(draw, type_, x, y, width, um_per_px) + 40
    for colour, label in ((OUTLINE, "tissue"), (_TILE, "tile")):
        draw.rectangle((x, y + 2, x + 16, y + 18), outline=colour, width=2)
        draw.text((x + 26, y), label, INK, type_)
        x += 110
