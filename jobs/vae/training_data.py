"""The two sides of a training on tiles, prepared, and counted as they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dataflow.stain import StainSpec
from jobs.run_directory import RunDirectory
from jobs.training.progress import StepProgress
from jobs.vae.config import TrainingSettings
from jobs.vae.open_origin import OpenedOrigin
from jobs.vae.prepare_tiles import prepared_tiles
from jobs.vae.prepared_tiles import PreparedTiles, TileSubset
from jobs.vae.tile_split import split_tiles
from store_schema.errors import InputError


@dataclass(frozen=True)
class CountedTiles(TileSubset):
    """Tiles that tell how many of them are read.

    Attributes
    ----------
    tell
        Takes the number of tiles of each read.
    """

    tell: Callable[[int], None] = lambda _: None

    def read(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Read tiles, in any order: uint8 (n, y, x, rgb)."""
        self.tell(len(indices))
        return super().read(indices)


@dataclass(frozen=True)
class TrainingData:
    """What a training learns from.

    Attributes
    ----------
    tiles
        All that were prepared.
    train, val
        Its two sides.
    counts
        For the metrics: tiles read, left out, kept, by stain method, and of each side; how they were split.
    knows_slides
        Whether the tiles' parts are slides of a store.
    """

    tiles: PreparedTiles
    train: TileSubset
    val: TileSubset
    counts: dict[str, Any]
    knows_slides: bool

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint says of its tiles; slides only where they are known."""
        return {
            "tiles": self.counts,
            "digest": self.tiles.digest,
            "train_slides": self.train.part_names() if self.knows_slides else [],
            "val_slides": self.val.part_names() if self.knows_slides else [],
        }

    def counted(self, tell: Callable[[int], None]) -> TrainingData:
        """Return the same, whose training tiles tell how many of them are read."""
        return replace(self, train=CountedTiles(self.train.tiles, self.train.rows, tell))


def load_training_data(
    origin: OpenedOrigin,
    settings: TrainingSettings,
    stain: StainSpec,
    run: RunDirectory,
    progress: StepProgress,
) -> TrainingData:
    """Prepare tiles, or find them prepared, and split them.

    Raises
    ------
    SlidestreamError
        Tiles can't be read or written, or there are too few.
    """
    tiles = origin.tiles
    if tiles.n_tiles < 2:
        raise InputError(
            f"There is {tiles.n_tiles} tile to learn from, and some are needed to train and others to validate: "
            "give more slides or tiles."
        )
    progress.begin("preparing tiles", tiles.n_tiles)
    prepared = prepared_tiles(
        tiles, stain, settings.min_saturation, run.path, run.logger, progress.at
    )
    split = split_tiles(
        prepared,
        origin.split,
        settings.val_fraction,
        settings.fit.seed,
        parts_are_slides=origin.knows_slides,
    )
    notes = list(tiles.notes)
    if split.by == "tile" and any(prepared.groups):
        notes.append(
            "all tiles are of one slide or patient: training and validation tiles are neighbours"
        )
    for note in notes:
        run.logger.warning("%s", note)
        progress.note(f"note: {note}")
    train, val = TileSubset(prepared, split.train), TileSubset(prepared, split.val)
    counts = {
        **prepared.counts,
        "train": len(train),
        "val": len(val),
        "split_by": split.by,
        "train_tumour": int(train.labels.sum()),
        "val_tumour": int(val.labels.sum()),
        "notes": notes,
    }
    return TrainingData(prepared, train, val, counts, origin.knows_slides)
