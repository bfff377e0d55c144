"""What a run of the stream is: the frozen settings that are the same for all its slides and blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dataflow.discover import SlideSource
from dataflow.stain import StainSpec
from dataflow.tile_model import TileModelFactory
from dataflow.tissue import TissueSpec
from store_schema.names import DEFAULT_BLOCK_TILES, FEATURES
from store_schema.specs import GridSpec


@dataclass(frozen=True)
class IndexSpec:
    """How slides become grids.

    Attributes
    ----------
    grid
        The tiling asked for; its ``tissue`` mapping is ``tissue.to_json()``.
    tissue
        How tissue is found.
    qc_dir
        Folder on the workers' file system that gets one QC picture a slide, or None.
    block_tiles
        Tiles per block of the grids that are made.
    overwrite
        Replace a grid of the same name that was made with other settings.
    """

    grid: GridSpec
    tissue: TissueSpec
    qc_dir: str | None = None
    block_tiles: int = DEFAULT_BLOCK_TILES
    overwrite: bool = False


@dataclass(frozen=True)
class ModelSlides:
    """The slides that a model was trained with, by their ids.

    Attributes
    ----------
    train, val
        Those that it learned from, and those that chose its epoch.
    """

    train: frozenset[str]
    val: frozenset[str]

    def split_of(self, slide_id: str) -> Literal["train", "val", ""]:
        """Return which of them a slide is among; empty of one that the model never met."""
        if slide_id in self.train:
            return "train"
        return "val" if slide_id in self.val else ""


@dataclass(frozen=True)
class EncodeSpec:
    """How tiles become arrays.

    Attributes
    ----------
    name
        Name of the group that is written, e.g. the encoder's.
    model
        Factory of the tile model.
    stain
        Stain normalization before the model.
    kind
        ``features`` or ``scores``: under which container the group goes.
    verify
        Whether the checksums of stored blocks are checked before they count as done.
    overwrite
        Replace a group of the same name that was made with other settings.
    model_slides
        What the model was trained with, kept beside each slide's arrays; None where it isn't known.
    """

    name: str
    model: TileModelFactory
    stain: StainSpec
    kind: str = FEATURES
    verify: bool = True
    overwrite: bool = False
    model_slides: ModelSlides | None = None


@dataclass(frozen=True)
class StreamSpec:
    """One run: index, encode, or both.

    Attributes
    ----------
    store_url
        Local path or fsspec URL, as the workers see it.
    grid_name
        The grid that is written or read.
    index, encode
        The two halves; None leaves one out.
    """

    store_url: str
    grid_name: str
    index: IndexSpec | None
    encode: EncodeSpec | None


@dataclass(frozen=True)
class BlockTask:
    """One block of one slide.

    Attributes
    ----------
    source
        The slide.
    block
        Index of the block in the grid.
    stamp
        Digest of slide, grid, settings and group: what workers cache is keyed by it, so that a long-lived worker never
        serves what has been replaced since.
    """

    source: SlideSource
    block: int
    stamp: str
