"""Slides judged as the public PBIP protocol judges tiles: their maps are told which classes the truth of each has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from jobs.evaluation.model_split import ModelSplit
from jobs.pbip.class_truth import SlideClasses
from jobs.pbip.judged_slide import JudgedSlide
from jobs.pbip.sample_pictures import Sample, read_square
from jobs.pbip.segment_settings import PbipSegmentSettings
from jobs.pbip.weak_tiles import LabelledSlide, StoreWeakTiles
from jobs.training.stains import checkpoint_stain
from jobs.training.tile_checkpoint import model_slides
from models.confusion import Confusion
from models.pbip_checkpoint import load_pbip
from models.pbip_published import published_prediction
from store_schema import names
from store_schema.errors import InputError
from store_schema.specs import GridSpec

if TYPE_CHECKING:
    from dataflow.stain import StainSpec
    from dataflow.stream_spec import ModelSlides
    from models.pbip import Pbip

_BATCH: Final = 32


@dataclass(frozen=True, eq=False)
class PublishedProtocol:
    """A network, judged so.

    Attributes
    ----------
    settings
        Of the network: what refuses grids of other tiles than it was trained on.
    model
        In eval mode, on the CPU.
    stain
        What its tiles are normalized by.
    slides
        That it was trained with, where it says so.
    """

    settings: PbipSegmentSettings
    model: Pbip
    stain: StainSpec
    slides: ModelSlides | None

    @classmethod
    def of(cls, checkpoint: str) -> PublishedProtocol:
        """Load a network; ModelError if it can't be."""
        model, description = load_pbip(Path(checkpoint))
        settings = PbipSegmentSettings((checkpoint,), "published")
        return cls(
            settings, model, checkpoint_stain(description, checkpoint), model_slides(description)
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the network."""
        return self.model.config.class_names

    def judge(self, known: SlideClasses) -> JudgedSlide:
        """Count the pixels of a slide's tiles; where tiles overlap they count as often.

        Raises
        ------
        InputError
            The tiles are of another size than the network's, or only tiles are known of the slide.
        SlideError
            The slide can't be read.
        """
        tiles = known.tiles
        self.settings.grid_check()(GridSpec(**tiles.slide.grid_attrs(tiles.grid)[names.SPEC]))
        if not known.knows_pixels:
            raise InputError(
                f"of slide {tiles.slide.slide_id} only tiles are known: --protocol published needs masks or annotations"
            )
        n_classes = len(self.class_names)
        numbers = range(len(tiles.table))
        truth = self._truth(known, numbers)
        labels = self._labels(truth)
        source = self._tiles(known, labels, numbers)
        of_tiles = []
        for start in range(0, len(truth), _BATCH):
            indices = np.arange(start, min(start + _BATCH, len(truth)))
            said = self._said(source.read(indices), labels[indices])
            of_tiles += [Confusion.of(truth[i], said[i - start], n_classes) for i in indices]
        return JudgedSlide(
            tiles,
            Confusion.sum(of_tiles),
            tuple(of_tiles),
            True,
            self._model_split(tiles.slide.slide_id),
            tuple(known.notes),
        )

    def require_classes(self, class_names: tuple[str, ...]) -> None:
        """Raise InputError unless the network has these classes in this order."""
        if self.class_names != class_names:
            raise InputError(
                f"{self.settings.checkpoints[0]} has the classes {', '.join(self.class_names)}, and the masks "
                f"{', '.join(class_names)}: give the run that they were made by"
            )

    def sample(self, known: SlideClasses, tile: int) -> Sample:
        """Return one tile, as it was judged, for a picture."""
        tiles = known.tiles
        truth = self._truth(known, [tile])
        labels = self._labels(truth)
        mpp, side = tiles.slide.record.mpp, self.model.config.tile_px
        x, y = int(tiles.table.x[tile]), int(tiles.table.y[tile])
        return Sample(
            read_square(tiles, x, y, 1),
            truth[0],
            self._said(self._tiles(known, labels, [tile]).read(np.zeros(1, np.int64)), labels)[0],
            None if mpp is None else tiles.tile_level0 / side * mpp,
            1,
        )

    def _tiles(
        self, known: SlideClasses, labels: npt.NDArray[np.int8], numbers: Sequence[int]
    ) -> StoreWeakTiles:
        slide = LabelledSlide(known.tiles.slide, np.array(numbers, np.int64), labels)
        return StoreWeakTiles(known.tiles.grid, [slide], self.stain)

    def _labels(self, truth: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
        """Return which classes tiles hold, int8 (tile, class)."""
        held = [(truth == k).any((1, 2)) for k in range(len(self.class_names))]
        return np.stack(held, 1).astype(np.int8)

    def _truth(self, known: SlideClasses, numbers: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Return the classes of tiles' pixels, uint8 (tile, y, x)."""
        tiles, side = known.tiles, self.model.config.tile_px
        centres = (np.arange(side) + 0.5) * (tiles.tile_level0 / side)
        truth = np.empty((len(numbers), side, side), np.uint8)
        for i, number in enumerate(numbers):
            truth[i] = known.at(tiles.table.x[number] + centres, tiles.table.y[number] + centres)
        return truth

    def _said(
        self, tiles: npt.NDArray[np.uint8], labels: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.uint8]:
        import torch

        with torch.inference_mode():
            told = torch.from_numpy(labels).float()
            side = self.model.config.tile_px
            maps = published_prediction(self.model, torch.from_numpy(tiles), told, side)
        return maps.argmax(1).numpy().astype(np.uint8)

    def _model_split(self, slide_id: str) -> ModelSplit | None:
        return None if self.slides is None else self.slides.split_of(slide_id)
