"""The two sides of a training on image-level labels: which slides, which tiles, what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from dataflow.stain import StainSpec
from jobs.evaluation.truth import open_truth
from jobs.mil.labels import LabelTable
from jobs.mil.splits import read_splits
from jobs.pbip.train_config import WeakTilesSettings
from jobs.pbip.train_labels import SlideLabels, TileLabeller, TruthLabels
from jobs.pbip.train_masks import StoredMasks, read_masks
from jobs.pbip.weak_tiles import Indices, LabelledSlide, StoreWeakTiles
from jobs.training.stored_slides import check_files, common_scale
from jobs.training.tile_scale import TileScale
from store_schema.errors import InputError
from store_schema.labels import some
from store_schema.slide_view import SlideView
from store_schema.store import Store

# a map's finest stride: pixels of masks that are finer would say nothing
_MASK_STRIDE: Final = 4


@dataclass(frozen=True, eq=False)
class WeakData:
    """What a training learns from, and is judged by.

    Attributes
    ----------
    train, val
        Its two sides.
    val_masks
        Of the validation tiles; None where no truth knows pixels.
    class_names
        Of the labels.
    scale
        Of the tiles.
    notes
        What was left out, and what should be known.
    """

    train: StoreWeakTiles
    val: StoreWeakTiles
    val_masks: StoredMasks | None
    class_names: tuple[str, ...]
    scale: TileScale
    notes: tuple[str, ...]

    def counts(self) -> dict[str, Any]:
        """Return slides and tiles of both sides, and how many tiles hold each class."""
        return {
            side: {
                "slides": len(tiles.slides),
                "tiles": len(tiles),
                "holding": dict(
                    zip(self.class_names, tiles.labels.sum(0, dtype=int).tolist(), strict=True)
                ),
            }
            for side, tiles in (("train", self.train), ("val", self.val))
        }

    def floor(self) -> dict[str, float]:
        """Return the IoU of each class where every validation pixel is taken for it; empty without masks."""
        return {} if self.val_masks is None else self.val_masks.floor(self.class_names)


def open_weak_data(
    store: Store,
    grid: str,
    table: LabelTable,
    settings: WeakTilesSettings,
    stain: StainSpec,
    seed: int,
) -> WeakData:
    """Choose slides and tiles, and look at every file.

    Parameters
    ----------
    store, grid
        Where the tiles are.
    table
        Labels of slides; its classes are those of tiles.
    settings
        Splits, truth, how many validation tiles.
    stain
        What tiles are normalized by.
    seed
        Of the choice of validation tiles.

    Raises
    ------
    InputError
        A split names no slide that has the grid, a class has no training tiles, grids of slides differ, files can't
        be read, or a truth can't be read or doesn't fit its slide.
    """
    split = read_splits(settings.splits, table)
    notes: list[str] = []
    train_ids = _with_grid(store, grid, split.train, "train", settings.splits, notes)
    val_ids = _with_grid(store, grid, split.val, "val", settings.splits, notes)
    every = [*train_ids, *val_ids]
    check_files(store, every)
    scale = TileScale(*common_scale(store, grid, every))
    by_tile = _truth_labels(settings.tile_labels, table, settings)
    judge = by_tile if settings.truth is None else _truth_labels(settings.truth, table, settings)
    by_slide = SlideLabels(table)
    train = _labelled(store, grid, train_ids, by_tile or by_slide, "training", notes)
    _check_classes(train, table, "tiles" if by_tile else "slides")
    # judged by what is true, where that is known, also if it was trained by less
    val = _labelled(store, grid, val_ids, judge or by_slide, "validation", notes)
    val = [_sample(slide, settings.val_tiles, seed) for slide in val]
    val_tiles = StoreWeakTiles(grid, val, stain)
    masks = None
    if judge is not None:
        masks = read_masks(val_tiles, judge, max(1, scale.tile_px // _MASK_STRIDE))
        if masks is None:
            notes.append("no masks of validation slides are there: IoU is not known")
    return WeakData(
        StoreWeakTiles(grid, train, stain),
        val_tiles,
        masks,
        table.class_names,
        scale,
        tuple(notes),
    )


def _with_grid(
    store: Store, grid: str, wanted: Sequence[str], part: str, splits: str, notes: list[str]
) -> list[str]:
    there = set(store.slides)
    found = [i for i in wanted if i in there and grid in store[i].grids]
    lost = [i for i in wanted if i not in set(found)]
    stored = [i for i in wanted if i in there]
    if stored and not found:
        grids = sorted({name for i in stored for name in store[i].grids})
        raise InputError(
            f"No slide of the column {part} of {splits} has the grid {grid} in {store.url}: "
            + (f"there is {some(grids)}; name one with --grid." if grids else "there is none yet.")
        )
    if not found:
        raise InputError(
            f"The column {part} of {splits} names no slide that has the grid {grid} in {store.url}"
            + (f" ({some(lost)} have not)" if lost else "")
            + ": slide ids of splits and store must be the same."
        )
    if lost:
        notes.append(
            f"{len(lost)} slides of {part} without the grid {grid} were left out ({some(lost)})"
        )
    return found


def _truth_labels(
    truth: str | None, table: LabelTable, settings: WeakTilesSettings
) -> TruthLabels | None:
    if truth is None:
        return None
    return TruthLabels(open_truth(Path(truth)), table, settings.positive_from)


def _labelled(
    store: Store,
    grid: str,
    slide_ids: Sequence[str],
    labeller: TileLabeller,
    side: str,
    notes: list[str],
) -> list[LabelledSlide]:
    """Return the tiles that hold something; what is left out is noted."""
    found, unknown, without = [], [], 0
    for slide_id in slide_ids:
        slide = store[slide_id]
        labels = labeller(slide, grid)
        if labels is None:
            unknown.append(slide_id)
            continue
        tiles = np.flatnonzero(labels.any(1)).astype(np.int64)
        without += len(labels) - len(tiles)
        if len(tiles):
            found.append(LabelledSlide(slide, tiles, labels[tiles]))
    if unknown:
        notes.append(f"{len(unknown)} {side} slides without truth were left out ({some(unknown)})")
    if without:
        notes.append(f"{without:,} {side} tiles that hold no class were left out")
    if not found:
        raise InputError(
            f"None of the {len(slide_ids)} {side} slides ({some(slide_ids)}) has tiles of which a class is known: "
            "look at labels, truth and grid."
        )
    return found


def _check_classes(train: Sequence[LabelledSlide], table: LabelTable, what: str) -> None:
    held = np.sum([slide.labels.sum(0, dtype=np.int64) for slide in train], 0)
    for name, count in zip(table.class_names, held.tolist(), strict=True):
        if not count:
            source = "is labelled so" if what == "slides" else "has a tile of it by the truth"
            raise InputError(
                f"The class {name} has no training tiles: none of the {len(train)} training slides {source}; add "
                "slides of it to labels and splits, or make a bank without it (`pbip prototypes --class-order`)."
            )


def _sample(slide: LabelledSlide, most: int, seed: int) -> LabelledSlide:
    """Choose tiles by the seed and the slide's content: the same whatever other slides there are."""
    if len(slide.tiles) <= most:
        return slide
    generator = np.random.default_rng([seed, _number(slide.slide)])
    rows: Indices = np.sort(generator.choice(len(slide.tiles), size=most, replace=False))
    return LabelledSlide(slide.slide, slide.tiles[rows], slide.labels[rows])


def _number(slide: SlideView) -> int:
    return int(slide.record.fingerprint, 16)
