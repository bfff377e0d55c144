"""The regions of a heatmap, as outlines and in numbers: tissue, a mask of the store, the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dataflow.heat_layers import Outline
from dataflow.picture_parts import INK
from jobs.evaluation.tile_truth import TruthMask
from jobs.evaluation.truth import Truth
from jobs.heat_sources import HeatSource
from jobs.mask_region import region_of
from jobs.mask_tiles import mask_of_tiles
from jobs.raster_reader import RasterChoice, SlideRaster, read_raster
from jobs.run_places import grid_with
from jobs.same_scores import check_same_scores
from models.metrics import roc_auc
from models.overlap import Overlap
from store_schema import names
from store_schema.specs import TileTable

MASK_COLOUR: Final = (255, 95, 0)
TRUTH_COLOUR: Final = (235, 0, 130)  # magenta: neither in viridis nor in the tissue's outline
TISSUE: Final = "tissue"
_POSITIVE_FROM: Final = 0.5
_EIGHT: Final = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Regions:
    """What is outlined on a slide.

    Attributes
    ----------
    outlines
        Those that are drawn last come last.
    line
        A sentence of numbers; empty where there is nothing to say.
    caption
        The most telling of them, in a few words; may be empty.
    note
        What was asked for and isn't there, or an empty string.
    """

    outlines: tuple[Outline, ...]
    line: str = ""
    caption: str = ""
    note: str = ""


def find_regions(
    source: HeatSource, mask: RasterChoice | None, truth: Truth | None, view_px: int
) -> Regions:
    """Read the regions of a slide.

    Parameters
    ----------
    source
        What is drawn of the slide.
    mask
        A mask of the store to outline; a slide that hasn't got it gets a note.
    truth
        What is true; a slide of which it says nothing gets a note.
    view_px
        Longer side of the largest view; finer masks are pooled.

    Raises
    ------
    IncompleteError, DamagedBlockError, InputError
        The mask isn't whole, isn't a mask or not of these scores, or the truth of this slide can't be read.
    """
    slide = source.slide
    table = slide.tile_table(source.grid)
    tile_level0 = int(slide.grid_attrs(source.grid)[names.GEOMETRY]["tile_level0"])
    outlines, parts, notes = _tissue(source, view_px), [], []
    flagged: npt.NDArray[np.bool_] | None = None
    if mask is not None:
        if grid_with(slide, names.MASKS, mask.name, mask.grid) is None:
            notes.append(f"no mask {mask.name}")
            parts.append(f"mask {mask.name}:  there is none")
        else:
            raster = read_raster(slide, mask)
            if source.score is not None:
                check_same_scores(raster, slide, source.grid, source.score.run)
            raster = region_of(raster, source.class_name)
            flagged = mask_of_tiles(raster, source.grid, table, tile_level0) > 0
            outline, text = _mask(raster, view_px)
            outlines.append(outline)
            parts.append(f"{text}, {int(flagged.sum()):,} of {len(table):,} tiles")
    positive: npt.NDArray[np.bool_] | None = None
    if truth is not None:
        positive = truth.tiles(slide.record, table, tile_level0, _POSITIVE_FROM)
        if positive is None:
            notes.append("no truth")
            parts.append("truth:  none is known")
        else:
            known = truth.mask(slide.record)
            outline = _of_truth(known) if known is not None else _of_tiles(source, table, positive)
            outlines.append(outline)
            parts.append(f"truth:  {int(positive.sum()):,} tiles")
    words = []
    if flagged is not None and positive is not None:
        overlap = Overlap.of(flagged, positive)
        if overlap.iou is not None:
            parts.append(f"IoU {overlap.iou:.2f}, Dice {overlap.dice:.2f} by tiles")
            words.append(f"IoU {overlap.iou:.2f}")
    elif flagged is not None:
        words.append(f"{int(flagged.sum()):,} of {len(table):,} tiles flagged")
    auc = None if positive is None else _auc(source, positive)
    if auc is not None:
        parts.append(f"AUC {auc:.2f} by tiles")
        words.append(f"AUC {auc:.2f}")
    return Regions(tuple(outlines), ";    ".join(parts), ", ".join(words), ", ".join(notes))


def _tissue(source: HeatSource, view_px: int) -> list[Outline]:
    """Return the outline of the mask that the grid was laid by, none where the grid has no mask."""
    slide, grid = source.slide, source.grid
    if names.TISSUE_RUN not in slide.runs(grid, names.MASKS):
        return []
    raster = read_raster(slide, RasterChoice(names.TISSUE_RUN, names.MASK, grid=grid))
    return [_outline(raster, view_px, INK, TISSUE)]


def _outline(
    raster: SlideRaster, view_px: int, colour: tuple[int, int, int], label: str
) -> Outline:
    record = raster.slide.record
    values, px = raster.read(max(record.width, record.height) / view_px, "max")
    return Outline((values > 0).astype(np.uint8), (px, px), colour, label, raster.origin_level0)


def _mask(raster: SlideRaster, view_px: int) -> tuple[Outline, str]:
    """Return the outline of a mask, and how much it covers; regions are counted as they are drawn, 8-connected."""
    name = f"mask {raster.name}" + (f" for {raster.class_name}" if raster.class_name else "")
    outline = _outline(raster, view_px, MASK_COLOUR, name)
    outline = replace(outline, cased=True)
    _, n_regions = ndimage.label(outline.mask, structure=_EIGHT)
    text = f"{name}:  {n_regions:,} region{'s' * (n_regions != 1)}"
    mpp = raster.slide.record.mpp
    if mpp is not None:
        n_px = sum(int(np.count_nonzero(band)) for band in raster.bands())
        text += f", {n_px * (raster.px_level0 * mpp / 1000) ** 2:.3g} mm²"
    return outline, text


def _of_truth(truth: TruthMask) -> Outline:
    mask = truth.mask.astype(np.uint8)
    return Outline(mask, truth.px_level0, TRUTH_COLOUR, "truth", beyond=True, cased=True)


def _of_tiles(source: HeatSource, table: TileTable, positive: npt.NDArray[np.bool_]) -> Outline:
    """Return the outline of positive tiles on their lattice, where the truth is of tiles alone."""
    geometry = source.slide.grid_attrs(source.grid)[names.GEOMETRY]
    mask = np.zeros((int(geometry["n_rows"]), int(geometry["n_cols"])), np.uint8)
    mask[table.row[positive], table.col[positive]] = 1
    stride = float(geometry["stride_level0"])
    return Outline(mask, (stride, stride), TRUTH_COLOUR, "truth of tiles", beyond=True, cased=True)


def _auc(source: HeatSource, positive: npt.NDArray[np.bool_]) -> float | None:
    if source.score is None:
        return None
    known = np.isfinite(source.score.values)
    kept, true = source.score.values[known], positive[known]
    return roc_auc(kept, true) if true.any() and not true.all() else None
