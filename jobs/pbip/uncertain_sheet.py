"""The contact sheet of uncertain tiles: each as scanned, and below it what the segmentation made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataflow.contact_sheet import VIEW_PX, Cell, SheetHead, contact_pages
from dataflow.heat_colours import HeatmapStyle, colours_of
from dataflow.picture_parts import save_png
from jobs.pbip.segment import background_class
from jobs.pbip.uncertain import DISAGREEMENT, ENTROPY, By, UncertainTile
from jobs.score_reader import CLASS_NAMES
from store_schema import names
from store_schema.errors import InputError, SlidestreamError
from store_schema.store import Store

_GAP_PX: Final = 4
_STYLE: Final = HeatmapStyle(limits=(0.0, 1.0))
_RANKED: Final = {
    "both": "mean percentile of entropy and disagreement",
    ENTROPY: "entropy [nat]",
    DISAGREEMENT: "disagreement [nat]",
}


@dataclass(frozen=True)
class DrawnSheet:
    """The pages, and slide id → why its tiles aren't on them."""

    paths: list[Path]
    problems: Mapping[str, str]


def draw_uncertain(
    store: Store,
    tiles: Sequence[UncertainTile],
    by: By,
    background: str | None,
    stem: Path,
    *,
    overwrite: bool,
) -> DrawnSheet:
    """Draw tiles in the order of their ranks, as ``<stem>.png`` or, page by page, ``<stem>_1.png`` and so on.

    Parameters
    ----------
    store
        That the tiles are of; slides must be readable.
    tiles
        At least one.
    by
        What they were ranked by.
    background
        Class whose confidence isn't shown; see :func:`jobs.pbip.segment.background_class`.
    stem
        Path without its suffix.
    overwrite
        Replace pictures that are there.

    Raises
    ------
    InputError
        A picture is there already, or can't be written; or there is no such class.
    """
    cells, problems = dict[int, Cell](), dict[str, str]()
    labels = set[str]()
    for slide_id in dict.fromkeys(tile.slide_id for tile in tiles):
        members = [tile for tile in tiles if tile.slide_id == slide_id]
        try:
            pixels = _pixels(store, members)
            maps, class_names = _maps(members)
        except SlidestreamError as error:
            if error.fatal:
                raise
            problems[slide_id] = str(error)
            continue
        hidden = background_class(class_names, background)
        for tile, image, confidence in zip(members, pixels, maps, strict=True):
            others = [k for k in range(len(class_names)) if k != hidden]
            shown = max(others, key=lambda k: float(confidence[k].mean()))
            labels.add(class_names[shown])
            cells[tile.rank] = Cell(
                f"{tile.rank}  {slide_id}",
                # of two classes the title says it; below a tile it would read as what the tile is
                _caption(tile, class_names[shown] if len(others) > 1 else None),
                _view(image, confidence[shown]),
            )
    if not cells:
        return DrawnSheet([], problems)
    of = f" for {labels.pop()}" if len(labels) == 1 else " of the class below each tile"
    head = SheetHead(
        title=f"Uncertain tiles by {_RANKED[by]}",
        label=f"confidence{of}; above it the tile as scanned",
        limits=(0.0, 1.0),
        style=_STYLE,
    )
    pages = list(contact_pages(head, [cells[rank] for rank in sorted(cells)], "tile"))
    paths = [
        stem.with_name(f"{stem.name}{f'_{i}' if len(pages) > 1 else ''}.png")
        for i in range(1, len(pages) + 1)
    ]
    for path, page in zip(paths, pages, strict=True):
        if path.exists() and not overwrite:
            raise InputError(f"{path} is there already: give --overwrite, or another --out")
        save_png(page, path, "contact sheet")
    return DrawnSheet(paths, problems)


def _caption(tile: UncertainTile, class_name: str | None) -> str:
    numbers = tile.columns.numbers
    entropy, apart = (float(numbers[name][tile.tile]) for name in (ENTROPY, DISAGREEMENT))
    of_map = "" if class_name is None else f", map of {class_name}"
    return f"H {entropy:.3f}, D {apart:.3f}{of_map}"


def _pixels(store: Store, tiles: Sequence[UncertainTile]) -> npt.NDArray[np.uint8]:
    """Read tiles of one slide as scanned, uint8 (n, y, x, rgb)."""
    dataset = store[tiles[0].slide_id].tiles(tiles[0].columns.grid, features=False, scores=False)
    order = np.array([tile.tile for tile in tiles])
    ascending, back = np.unique(order, return_inverse=True)
    read: npt.NDArray[np.uint8] = dataset.isel({names.TILE: ascending}).tiles.pixels().values
    return read[back]


def _maps(tiles: Sequence[UncertainTile]) -> tuple[list[npt.NDArray[np.float32]], tuple[str, ...]]:
    """Read the confidence of tiles of one slide, float32 (class, y, x) each, and the classes."""
    columns = tiles[0].columns
    group = columns.slide.block_group(columns.grid, names.SCORES, columns.run)
    found = dict[int, npt.NDArray[np.float32]]()
    wanted = {tile.tile for tile in tiles}
    for block in range(group.n_blocks):
        span = group.block_slice(block)
        here = [number for number in wanted if span.start <= number < span.stop]
        if here:
            values = group.read_array(names.CONFIDENCE, block)
            found |= {number: values[number - span.start].astype(np.float32) for number in here}
    classes = group.arrays[names.CONFIDENCE].attrs[CLASS_NAMES]
    return [found[tile.tile] for tile in tiles], tuple(str(name) for name in classes)


def _view(tile: npt.NDArray[np.uint8], confidence: npt.NDArray[np.float32]) -> Image.Image:
    size = (VIEW_PX, VIEW_PX)
    image = Image.fromarray(tile).resize(size, Image.Resampling.LANCZOS)
    colours = np.rint(colours_of(confidence, (0.0, 1.0), _STYLE.cmap)).astype(np.uint8)
    over = Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)
    view = Image.new("RGB", (VIEW_PX, 2 * VIEW_PX + _GAP_PX), "white")
    view.paste(image, (0, 0))
    view.paste(Image.blend(image, over, _STYLE.alpha), (0, VIEW_PX + _GAP_PX))
    return view
