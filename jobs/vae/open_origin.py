"""From the options to the tiles that a training takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jobs.evaluation.truth import Truth, open_truth
from jobs.find_slides import only_grid
from jobs.mil.splits import Split
from jobs.run_config import absolute_url
from jobs.training.tile_scale import MPP_TOLERANCE, TileScale
from jobs.vae.chosen_slides import ChosenSlides, choose_slides
from jobs.vae.config import OriginSettings
from jobs.vae.image_tiles import ImageTiles
from jobs.vae.pcam_tiles import PcamTiles
from jobs.vae.store_tiles import StoreTiles, all_normal
from jobs.vae.tile_origin import TileOrigin
from store_schema import names
from store_schema.errors import InputError
from store_schema.slide_view import SlideView
from store_schema.store import open_store

_ONE_OF: Final = "--store, --pcam and --images"


@dataclass(frozen=True)
class OpenedOrigin:
    """Tiles, and how they are split where a file says it."""

    tiles: TileOrigin
    split: Split | None = None

    @property
    def knows_slides(self) -> bool:
        """Whether tiles come slide by slide."""
        return isinstance(self.tiles, StoreTiles)

    def describe(self) -> Mapping[str, Any]:
        """Return what decides tiles and split, as JSON."""
        split = None
        if self.split is not None:
            split = {"train": list(self.split.train), "val": list(self.split.val)}
        return {**self.tiles.describe(), "split": split}


def open_origin(settings: OriginSettings, *, labelled: bool) -> OpenedOrigin:
    """Open what the options name, and check it.

    Parameters
    ----------
    settings
        The options.
    labelled
        Whether tumour tiles are wanted as well, and known as such; otherwise normal ones alone.

    Raises
    ------
    SlidestreamError
        There is nothing such, it can't be read, or options contradict.
    """
    given = [settings.store, settings.pcam, settings.images]
    if sum(each is not None for each in given) != 1:
        raise InputError(f"Give one of {_ONE_OF}: where the tiles come from.")
    if settings.store is not None:
        return _of_store(settings, settings.store, labelled=labelled)
    foreign = {
        "--grid": settings.grid, "--slides": settings.slides, "--labels": settings.labels,
        "--normal": settings.normal, "--splits": settings.splits, "--truth": settings.truth,
    }  # fmt: skip
    _refuse(foreign, "a --store")
    if settings.pcam is not None:
        _refuse({"--mpp": settings.mpp}, "--images")
        images, labels = map(Path, settings.pcam)
        meta = None if settings.pcam_meta is None else Path(settings.pcam_meta)
        return OpenedOrigin(PcamTiles.of(images, labels, meta, only_normal=not labelled))
    _refuse({"--pcam-meta": settings.pcam_meta}, "--pcam")
    if labelled:
        raise InputError(
            "A classifier needs tiles with labels, which --images hasn't: give --store or --pcam."
        )
    assert settings.images is not None
    return OpenedOrigin(ImageTiles.of(Path(settings.images), settings.mpp))


def check_scale(tiles: TileOrigin, wanted: TileScale, *, allow_other: bool, made_for: str) -> None:
    """Refuse tiles of another side or pixel size than a model is for.

    Parameters
    ----------
    tiles
        What there is.
    wanted
        What the model is for.
    allow_other
        Take others.
    made_for
        The model, for the sentence.

    Raises
    ------
    InputError
        They differ.
    """
    found = TileScale(tiles.tile_px, tiles.mpp)
    if allow_other or wanted.fits(found):
        return
    raise InputError(
        f"There are {found}, and {made_for} is for {wanted} (to within {MPP_TOLERANCE:.0%}): take such tiles "
        f"({wanted.making}), or add --allow-other-grid."
    )


def _of_store(settings: OriginSettings, url: str, *, labelled: bool) -> OpenedOrigin:
    _refuse({"--pcam-meta": settings.pcam_meta}, "--pcam")
    _refuse({"--mpp": settings.mpp}, "--images")
    store = open_store(absolute_url(url))
    grid = only_grid(absolute_url(url), settings.grid)
    chosen = choose_slides(
        store,
        grid,
        slide_ids=settings.slides,
        labels=_path(settings.labels),
        normal=settings.normal,
        splits=_path(settings.splits),
        only_normal=not labelled,
    )
    if not labelled:
        tiles = StoreTiles.of(store, grid, chosen.patients, all_normal, chosen.notes)
    elif settings.truth is None:
        raise InputError(
            "A classifier needs to know tumour tiles: give --truth (masks, annotations, or a table of tile labels)."
        )
    else:
        labeller = _TruthLabeller(
            open_truth(Path(settings.truth)), chosen, settings.labels, settings.positive_from
        )
        tiles = StoreTiles.of(store, grid, chosen.patients, labeller, chosen.notes)
    split = None if chosen.split is None else chosen.split.take(tiles.parts)
    return OpenedOrigin(tiles, split)


@dataclass(frozen=True)
class _TruthLabeller:
    """Labels tiles by truth; a slide without any is negative where its label says that it is normal."""

    truth: Truth
    chosen: ChosenSlides
    labels: str | None
    positive_from: float

    def __call__(self, slide: SlideView, grid: str) -> npt.NDArray[np.int8] | None:
        attrs = slide.grid_attrs(grid)
        found = self.truth.tiles(
            slide.record,
            slide.tile_table(grid),
            int(attrs[names.GEOMETRY]["tile_level0"]),
            self.positive_from,
        )
        if found is not None:
            return found.astype(np.int8)
        # without labels "normal" is only what was named, which says nothing here
        normal = self.labels is not None and slide.slide_id in self.chosen.normal
        return all_normal(slide, grid) if normal else None


def _refuse(options: Mapping[str, object], goes_with: str) -> None:
    for name, value in options.items():
        if value not in (None, (), ""):
            raise InputError(f"{name} goes with {goes_with}: leave it out.")


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
