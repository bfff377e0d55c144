"""The QC picture: what was taken for tissue, and which tiles were laid on it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from dataflow.tissue import TissueMask
from store_schema.errors import InputError
from store_schema.specs import GridGeometry, TileTable

_LONG_SIDE_PX: Final = 1400
_MARGIN_PX: Final = 20
_HEADER_PX: Final = 82
_FOOTER_PX: Final = 54
_MIN_WIDTH_PX: Final = 640
_TITLE_PX: Final = 26
_TEXT_PX: Final = 17

_INK: Final = (30, 30, 30)
_OUTLINE: Final = (0, 135, 60)  # green: no H&E tissue has it
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
    picture = qc_picture(slide_id, tissue, geometry, table, mpp)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="PNG", compress_level=1)  # 3x as fast
    except OSError as error:
        raise InputError(f"the QC picture {path} can't be written: {error}") from error


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
    view = Image.fromarray(tissue.thumbnail).resize((width, height), _resampling(scale))
    per_level0 = scale / tissue.px_level0
    view.paste(_TILE, (0, 0), _tile_layer(view.size, table, geometry, per_level0))
    view.paste(_OUTLINE, (0, 0), _outline_layer(tissue.mask, view.size))

    canvas_width = max(width, _MIN_WIDTH_PX) + 2 * _MARGIN_PX
    canvas = Image.new("RGB", (canvas_width, height + _HEADER_PX + _FOOTER_PX), "white")
    canvas.paste(view, (_MARGIN_PX, _HEADER_PX))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle(
        (_MARGIN_PX - 1, _HEADER_PX - 1, _MARGIN_PX + width, _HEADER_PX + height),
        outline=(190, 190, 190),
    )
    room = canvas_width - 2 * _MARGIN_PX
    title, text = _font(_TITLE_PX), _font(_TEXT_PX)
    draw.text((_MARGIN_PX, 10), _shortened(draw, slide_id, title, room), _INK, title)
    counts = _counts(tissue, geometry, table, mpp)
    draw.text((_MARGIN_PX, 48), _shortened(draw, counts, text, room), _INK, text)
    _footer(draw, text, width, height, None if mpp is None else mpp / per_level0)
    return canvas


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans as matplotlib ships it: Pillow's own font has no µ, and few alphabets."""
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size_px)


def _resampling(scale: float) -> Image.Resampling:
    return Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX


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


def _outline_layer(mask: npt.NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Opacity of the tissue's outline, 2 px wide, drawn inside."""
    scaled = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)).astype(bool)
    edge = scaled & ~ndimage.binary_erosion(scaled, iterations=2)
    return Image.fromarray((edge * np.uint8(255)).astype(np.uint8))


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
    font: ImageFont.FreeTypeFont,
    width: int,
    height: int,
    um_per_px: float | None,
) -> None:
    y = _HEADER_PX + height + 14
    x = _MARGIN_PX
    if um_per_px is None:
        draw.text((x, y), "size unknown", _INK, font)
        x += 160
    else:
        length_um = _round_length(width * um_per_px / 5.0)
        length_px = round(length_um / um_per_px)
        draw.rectangle((x, y + 6, x + length_px, y + 13), fill=_INK)
        label = f"{length_um:g} µm" if length_um < 1000 else f"{length_um / 1000:g} mm"
        draw.text((x + length_px + 10, y), label, _INK, font)
        x += length_px + 10 + math.ceil(draw.textlength(label, font)) + 40
    for colour, label in ((_OUTLINE, "tissue"), (_TILE, "tile")):
        draw.rectangle((x, y + 2, x + 16, y + 18), outline=colour, width=2)
        draw.text((x + 26, y), label, _INK, font)
        x += 110


def _round_length(length_um: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(length_um))
    return next(step * power for step in (5.0, 2.0, 1.0) if step * power <= length_um * (1 + 1e-9))


def _shortened(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont,
    room_px: int,
) -> str:
    if draw.textlength(text, font) <= room_px:
        return text
    while len(text) > 1 and draw.textlength(text + "…", font) > room_px:
        text = text[:-1]
    return text + "…"
