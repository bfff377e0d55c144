"""The contact sheet of a bank: a row a prototype, with the tiles that are nearest to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dataflow.picture_parts import FRAME, INK, draw_scale_bar, font, save_png, shortened
from store_schema import names
from store_schema.prototypes import NO_EXEMPLAR, PrototypeBank
from store_schema.store import Store

Pixels = npt.NDArray[np.uint8]

_TILE_PX: Final = 128
_GAP_PX: Final = 8
_CAPTION_PX: Final = 36
_MARGIN_PX: Final = 20
_LABEL_PX: Final = 236
_HEADER_PX: Final = 92
_STRIP_PX: Final = 8
_ROW_GAP_PX: Final = 10
_TITLE_PX: Final = 24
_TEXT_PX: Final = 16
_SMALL_PX: Final = 12
_QUIET: Final = (110, 110, 110)
# told apart by people of any colour vision: Okabe and Ito, "Color Universal Design", 2008
_CLASS_COLOURS: Final = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
)  # fmt: skip


def draw_sheet(store: Store, bank: PrototypeBank, path: Path) -> None:
    """Draw a bank and write it as PNG.

    Parameters
    ----------
    store
        That the bank is of; its slides must be readable.
    bank
        What to draw.
    path
        Where to.

    Raises
    ------
    SlideError
        A slide's file has gone, is another one, or can't be read.
    InputError
        The picture can't be written.
    """
    save_png(sheet_picture(store, bank, exemplar_pixels(store, bank)), path, "contact sheet")


def exemplar_pixels(store: Store, bank: PrototypeBank) -> dict[tuple[int, int], Pixels]:
    """Read the tiles that are nearest to the prototypes, as scanned.

    Returns
    -------
    dict
        (position in the bank's slides, position in the grid) → uint8 (y, x, rgb).
    """
    places = np.stack([bank.exemplar_slide.ravel(), bank.exemplar_tile.ravel()], axis=1)
    pixels: dict[tuple[int, int], Pixels] = {}
    for number, slide_id in enumerate(bank.slides):
        tiles = np.unique(places[places[:, 0] == number, 1])
        if tiles.size:
            dataset = store[slide_id].tiles(str(bank.grid["name"]), features=False, scores=False)
            read = dataset.isel({names.TILE: tiles}).tiles.pixels().values
            pixels |= {(number, int(t)): p for t, p in zip(tiles, read, strict=True)}
    return pixels


def sheet_picture(
    store: Store, bank: PrototypeBank, pixels: Mapping[tuple[int, int], Pixels]
) -> Image.Image:
    """Lay out the sheet.

    Parameters
    ----------
    store, bank
        What is shown.
    pixels
        As of :func:`exemplar_pixels`.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    n_rows, n_columns = bank.exemplar_tile.shape
    step_x, step_y = _TILE_PX + _GAP_PX, _TILE_PX + _CAPTION_PX + _ROW_GAP_PX
    size = (
        2 * _MARGIN_PX + _LABEL_PX + n_columns * step_x - _GAP_PX,
        _HEADER_PX + n_rows * step_y + _MARGIN_PX,
    )
    canvas = Image.new("RGB", (max(size[0], 760), size[1]), "white")
    draw = ImageDraw.Draw(canvas)
    _draw_head(draw, bank, canvas.width)
    for row in range(n_rows):
        y = _HEADER_PX + row * step_y
        _draw_label(draw, bank, row, y)
        for column in range(n_columns):
            if bank.exemplar_tile[row, column] == NO_EXEMPLAR:
                continue
            place = int(bank.exemplar_slide[row, column]), int(bank.exemplar_tile[row, column])
            x = _MARGIN_PX + _LABEL_PX + column * step_x
            tile = Image.fromarray(pixels[place])
            canvas.paste(tile.resize((_TILE_PX, _TILE_PX), Image.Resampling.LANCZOS), (x, y))
            draw.rectangle((x - 1, y - 1, x + _TILE_PX, y + _TILE_PX), outline=FRAME)
            small = font(_SMALL_PX)
            similarity = f"{bank.exemplar_similarity[row, column]:.3f}"
            draw.text((x, y + _TILE_PX + 2), similarity, INK, small)
            slide_id = shortened(draw, bank.slides[place[0]], small, _TILE_PX)
            draw.text((x, y + _TILE_PX + 17), slide_id, _QUIET, small)
    return canvas


def _draw_head(draw: ImageDraw.ImageDraw, bank: PrototypeBank, width: int) -> None:
    spec = bank.grid["spec"]
    large, type_ = font(_TITLE_PX), font(_TEXT_PX)
    room = width - 2 * _MARGIN_PX
    named = "Prototypes" if bank.name.lower() == "prototypes" else f"Prototypes {bank.name}"
    title = f"{named}: {', '.join(bank.class_names)}"
    draw.text((_MARGIN_PX, 12), shortened(draw, title, large, room), INK, large)
    stain = bank.stain["method"]
    said = (
        f"{bank.encoder['encoder']}, grid {bank.grid['name']}, "
        f"{'no stain normalization' if stain == 'none' else f'stain {stain}'}; "
        "nearest tiles first, as scanned, with their cosine"
    )
    bar_px = 220 if spec["mpp"] else 0
    draw.text((_MARGIN_PX, 48), shortened(draw, said, type_, room - bar_px), INK, type_)
    if spec["mpp"]:
        um_per_px = spec["mpp"] * spec["tile_px"] / _TILE_PX
        # as wide as a view of five tiles would have it: a bar of about one tile
        draw_scale_bar(draw, type_, width - _MARGIN_PX - bar_px + 20, 48, 5 * _TILE_PX, um_per_px)


def _draw_label(draw: ImageDraw.ImageDraw, bank: PrototypeBank, row: int, y: int) -> None:
    number = int(bank.class_index[row])
    first, n = bank.offsets[number], bank.k_list[number]
    of_class = int(bank.cluster_size[first : first + n].sum())
    size = int(bank.cluster_size[row])
    shown = bank.exemplar_slide[row][bank.exemplar_tile[row] != NO_EXEMPLAR]
    colour = _CLASS_COLOURS[number % len(_CLASS_COLOURS)]
    draw.rectangle((_MARGIN_PX, y, _MARGIN_PX + _STRIP_PX - 1, y + _TILE_PX), fill=colour)
    x, large, small = _MARGIN_PX + _STRIP_PX + 12, font(_TEXT_PX + 2), font(_SMALL_PX + 1)
    room = _LABEL_PX - _STRIP_PX - 24
    draw.text((x, y), shortened(draw, bank.class_names[number], large, room), colour, large)
    lines = (
        f"prototype {row - first + 1} of {n}",
        f"{size:,} tiles, {math.floor(100 * size / of_class + 0.5)} % of the class",
        f"nearest {len(shown)} of {len(set(shown.tolist()))} slide{'s' * (len(set(shown.tolist())) != 1)}",
    )
    for i, line in enumerate(lines):
        draw.text((x, y + 30 + 21 * i), line, INK if i == 0 else _QUIET, small)
