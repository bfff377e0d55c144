"""Pictures of judged tiles: as scanned, the truth, and what was said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dataflow.picture_parts import FRAME, INK, draw_scale_bar, font, save_png
from dataflow.slide import open_slide
from dataflow.stored_plan import stored_plan
from dataflow.tile_reader import TileReader
from jobs.evaluation.pictures import Picture
from jobs.evaluation.result_tables import shown
from jobs.export.mask_classes import class_colour
from jobs.heat_regions import MASK_COLOUR
from jobs.pbip.class_truth import GridTiles, SlideClasses
from jobs.pbip.evaluation import PbipEvaluation
from jobs.pbip.judged_slide import Classes, JudgedSlide
from jobs.pbip.segmented_mask import SegmentedMask
from jobs.training.stored_slides import slide_source
from store_schema.errors import SlidestreamError

FOLDER: Final = "prediction_samples"

_AROUND: Final = 3  # tiles across: a tile, and as much on each side
_VIEW_PX: Final = 288
_GAP_PX: Final = 12
_MARGIN_PX: Final = 16
_HEAD_PX: Final = 64
_FOOT_PX: Final = 58
_TINT: Final = 0.45
_UNKNOWN: Final = (120, 120, 120)


@dataclass(frozen=True, eq=False)
class Sample:
    """A square of a slide.

    Attributes
    ----------
    pixels
        uint8 (y, x, rgb).
    truth, predicted
        uint8 (y, x), classes by index on the same pixels; what is beyond is none.
    um_per_px
        Of these pixels; None where that isn't known.
    n_tiles
        Tiles across; the one that is judged is in the middle.
    """

    pixels: npt.NDArray[np.uint8]
    truth: Classes
    predicted: Classes
    um_per_px: float | None
    n_tiles: int


Sampler: TypeAlias = Callable[[JudgedSlide, int], Sample]
"""Takes a slide and the position of a tile in its grid."""


def mask_sample(mask: SegmentedMask, known: SlideClasses, tile: int) -> Sample:
    """Read a tile with what is around it, on the pixels that tiles have.

    Raises
    ------
    SlideError
        The slide's file has gone, or can't be read.
    """
    tiles = known.tiles
    side = tiles.tile_level0
    x, y = (int(at[tile]) - side * (_AROUND // 2) for at in (tiles.table.x, tiles.table.y))
    pixels = read_square(tiles, x, y, _AROUND)
    step = side * _AROUND / len(pixels)
    columns, rows = (corner + (np.arange(len(pixels)) + 0.5) * step for corner in (x, y))
    left, top = mask.raster.origin_level0
    said = _nearest(
        mask.read(),
        (columns - left) / mask.raster.px_level0,
        (rows - top) / mask.raster.px_level0,
        len(mask.class_names),
    )
    mpp = tiles.slide.record.mpp
    return Sample(
        pixels, known.at(columns, rows), said, None if mpp is None else step * mpp, _AROUND
    )


def read_square(tiles: GridTiles, x: int, y: int, n: int) -> npt.NDArray[np.uint8]:
    """Read n by n squares of a tile's size as one picture, uint8 (y, x, rgb); white beyond the slide.

    Parameters
    ----------
    tiles
        Of the slide; the pixels are those that its tiles have.
    x, y
        Top-left corner [px, level 0].
    n
        Squares along a side.
    """
    source = slide_source(tiles.slide)
    reader = open_slide(source.path, source.mpp)
    try:
        plan = stored_plan(reader.info, tiles.slide, tiles.grid)
        down, along = (index.ravel() for index in np.indices((n, n)))
        parts = np.empty((n * n, plan.tile_px, plan.tile_px, 3), np.uint8)
        at_x, at_y = (
            (corner + steps * tiles.tile_level0).astype(np.int32)
            for corner, steps in ((x, along), (y, down))
        )
        TileReader(reader, plan, at_x, at_y).read(0, n * n, parts)
    finally:
        reader.close()
    side = n * plan.tile_px
    whole: npt.NDArray[np.uint8] = (
        parts.reshape(n, n, plan.tile_px, plan.tile_px, 3).swapaxes(1, 2).reshape(side, side, 3)
    )
    return whole


def _nearest(
    values: Classes, columns: npt.NDArray[np.floating], rows: npt.NDArray[np.floating], beyond: int
) -> Classes:
    found = np.full((len(rows), len(columns)), beyond, np.uint8)
    j, i = np.floor(columns).astype(np.intp), np.floor(rows).astype(np.intp)
    inside_x, inside_y = (j >= 0) & (j < values.shape[1]), (i >= 0) & (i < values.shape[0])
    found[np.ix_(inside_y, inside_x)] = values[np.ix_(i[inside_y], j[inside_x])]
    return found


def telling_tiles(found: PbipEvaluation, n: int) -> list[tuple[JudgedSlide, int, float]]:
    """Return slide, tile and mean IoU of its classes, of up to n tiles from the best to the worst.

    They are spread evenly over the order of all that hold, or were said to hold, more than the background.
    """
    ranked = []
    for slide in found.slides:
        for tile, confusion in enumerate(slide.of_tiles):
            more = np.delete(confusion.counts, found.background, axis=0).sum()
            more += np.delete(confusion.counts, (found.background, -1), axis=1).sum()
            value = confusion.macro("iou")
            if more and value is not None:
                ranked.append((slide, tile, value))
    ranked.sort(key=lambda each: (-each[2], each[0].slide_id, each[1]))
    places = np.unique(np.linspace(0, len(ranked) - 1, min(n, len(ranked))).round().astype(int))
    return [ranked[place] for place in places]


def draw_samples(found: PbipEvaluation, sample: Sampler, n: int, out: Path) -> list[Picture]:
    """Draw tiles into ``prediction_samples/``; one whose slide can't be read is told of in its place.

    ``sample_1.png`` shows all three pictures of the first tile, ``sample_1_input.png``, ``sample_1_gt.png`` and
    ``sample_1_pred.png`` one each.

    Raises
    ------
    InputError
        A picture can't be written.
    """
    pictures = []
    for number, (slide, tile, value) in enumerate(telling_tiles(found, n), start=1):
        x, y = int(slide.tiles.table.x[tile]), int(slide.tiles.table.y[tile])
        title = f"{slide.slide_id}, tile {tile} at ({x}, {y}): mean IoU {shown(value)}"
        try:
            read = sample(slide, tile)
        except SlidestreamError as error:
            if error.fatal:
                raise
            pictures.append(Picture(title, None, str(error)))
            continue
        views = sample_views(read, found.background, len(found.class_names))
        stem = out / FOLDER / f"sample_{number}"
        for kind, view in zip(("input", "gt", "pred"), views, strict=True):
            save_png(view, stem.with_name(f"{stem.name}_{kind}.png"), "sample picture")
        path = stem.with_suffix(".png")
        save_png(_panel(title, read, views, found), path, "sample picture")
        pictures.append(Picture(title, path, ""))
    return pictures


def sample_views(sample: Sample, background: int, n_classes: int) -> list[Image.Image]:
    """Return the square as scanned, with its true classes, and with those said; the background has no colour."""
    views = [sample.pixels]
    for classes in (sample.truth, sample.predicted):
        colours = np.full((256, 3), _UNKNOWN, np.float64)
        colours[:n_classes] = [_colour(k, n_classes) for k in range(n_classes)]
        tint = np.where(classes == background, 0.0, _TINT)[..., None]
        mixed = (1 - tint) * sample.pixels + tint * colours[classes]
        views.append(np.rint(mixed).astype(np.uint8))
    size = (_VIEW_PX, _VIEW_PX)
    return [Image.fromarray(view).resize(size, Image.Resampling.LANCZOS) for view in views]


def _panel(
    title: str, sample: Sample, views: list[Image.Image], found: PbipEvaluation
) -> Image.Image:
    step = _VIEW_PX + _GAP_PX
    size = 2 * _MARGIN_PX + 3 * step - _GAP_PX, _HEAD_PX + _VIEW_PX + _FOOT_PX
    canvas = Image.new("RGB", size, "white")
    draw, type_, small = ImageDraw.Draw(canvas), font(16), font(14)
    draw.text((_MARGIN_PX, 10), title, INK, type_)
    said = "told what the truth holds (LEAKY)" if found.published else "said"
    for i, (view, name) in enumerate(zip(views, ("as scanned", "truth", said), strict=True)):
        x = _MARGIN_PX + i * step
        draw.text((x, _HEAD_PX - 22), name, INK, small)
        canvas.paste(view, (x, _HEAD_PX))
        draw.rectangle((x - 1, _HEAD_PX - 1, x + _VIEW_PX, _HEAD_PX + _VIEW_PX), outline=FRAME)
        if sample.n_tiles > 1:
            near, far = (_VIEW_PX * at / sample.n_tiles for at in (1, 2))
            draw.rectangle((x + near, _HEAD_PX + near, x + far, _HEAD_PX + far), outline=INK)
    x, y = _MARGIN_PX, _HEAD_PX + _VIEW_PX + 18
    if sample.um_per_px is not None:
        um_per_px = sample.um_per_px * len(sample.pixels) / _VIEW_PX
        x = draw_scale_bar(draw, small, x, y, _VIEW_PX, um_per_px) + 30
    n = len(found.class_names)
    legend = [(_colour(k, n), found.class_names[k]) for k in range(n) if k != found.background]
    for colour, name in [*legend, (_UNKNOWN, "nothing known or said")]:
        draw.rectangle((x, y + 2, x + 13, y + 15), fill=colour)
        draw.text((x + 20, y), name, INK, small)
        x += 44 + int(draw.textlength(name, small))
    return canvas


def _colour(k: int, n_classes: int) -> tuple[int, int, int]:
    """Return the colour of a class: of two, that of the regions of heatmaps."""
    return MASK_COLOUR if n_classes == 2 else class_colour(k)
