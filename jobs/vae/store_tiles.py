"""Tiles of slides that are in a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from dataflow.slide_stain import fit_stored_slide
from dataflow.stain import StainBasis, StainSpec
from jobs.training.stored_slides import check_files, common_scale, slide_source
from jobs.vae.tile_origin import RawTiles
from store_schema import names
from store_schema.errors import InputError
from store_schema.labels import some
from store_schema.slide_view import SlideView
from store_schema.store import Store

_BATCH: Final = 1024


class TileLabeller(Protocol):
    """Says what the tiles of a slide are."""

    def __call__(self, slide: SlideView, grid: str) -> npt.NDArray[np.int8] | None:
        """Return int8 (tile,), 0 is normal and 1 is tumour; None where nothing is known of the slide."""
        ...


def all_normal(slide: SlideView, grid: str) -> npt.NDArray[np.int8]:
    """Label every tile of a slide 0."""
    return np.zeros(slide.grid_attrs(grid)[names.N_TILES], np.int8)


@dataclass(frozen=True)
class StoreTiles:
    """The tiles of some slides.

    Attributes
    ----------
    store, grid
        Where they are.
    patients
        Slide id → what must stay on one side of a split: its patient, or itself; in the order of reading.
    labels
        Slide id → int8 (tile,).
    tile_px, mpp
        Side [px] and pixel size [µm/px] of the tiles.
    notes
        What was left out.
    """

    store: Store
    grid: str
    patients: Mapping[str, str]
    labels: Mapping[str, npt.NDArray[np.int8]] = field(repr=False, compare=False)
    tile_px: int
    mpp: float | None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        store: Store,
        grid: str,
        patients: Mapping[str, str],
        labeller: TileLabeller,
        notes: Sequence[str] = (),
    ) -> StoreTiles:
        """Choose slides, and look at every file.

        Raises
        ------
        InputError
            No slide has tiles, grids differ, or files can't be read; the slides are named.
        """
        labels: dict[str, npt.NDArray[np.int8]] = {}
        unknown, empty = [], []
        for slide_id in patients:
            found = labeller(store[slide_id], grid)
            if found is None:
                unknown.append(slide_id)
            elif not found.size:
                empty.append(slide_id)
            else:
                labels[slide_id] = found
        told = [
            f"{len(slides)} slides {why} were left out ({some(slides)})"
            for slides, why in ((unknown, "of which nothing is known"), (empty, "without tiles"))
            if slides
        ]
        if not labels:
            raise InputError(
                f"None of the {len(patients)} slides has tiles to learn from"
                + (f": {'; '.join(told)}." if told else ".")
            )
        check_files(store, list(labels))
        tile_px, mpp = common_scale(store, grid, list(labels))
        kept = {slide_id: patients[slide_id] for slide_id in labels}
        return cls(store, grid, kept, labels, tile_px, mpp, (*notes, *told))

    @property
    def n_tiles(self) -> int:
        """How many tiles will be read."""
        return sum(map(len, self.labels.values()))

    @property
    def parts(self) -> tuple[str, ...]:
        """Slide ids."""
        return tuple(self.patients)

    def describe(self) -> Mapping[str, Any]:
        """Return the grid, and of each slide the fingerprint of its content and of its grid, and its tumour tiles."""
        slides = {
            slide_id: {
                "slide": self.store[slide_id].record.fingerprint,
                "grid": self.store[slide_id].grid_attrs(self.grid)[names.FINGERPRINT],
                "patient": patient,
                "tumour_tiles": int(self.labels[slide_id].sum()),
            }
            for slide_id, patient in self.patients.items()
        }
        return {"kind": "store", "grid": self.grid, "slides": slides}

    def basis(self, part: str, stain: StainSpec) -> StainBasis | None:
        """Return the slide's basis, as the stream fits it; None where each tile is fitted by itself."""
        if not stain.needs_basis:
            return None
        slide = self.store[part]
        return fit_stored_slide(slide, self.grid, stain, slide_source(slide))

    def read(self, part: str) -> Iterator[RawTiles]:
        """Yield a slide's tiles in stored order."""
        pixels = self.store[part].tiles(self.grid, features=False, scores=False).tiles.pixels()
        labels = self.labels[part]
        for start in range(0, len(labels), _BATCH):
            index = np.arange(start, min(start + _BATCH, len(labels)), dtype=np.int64)
            yield RawTiles(
                pixels[index[0] : index[-1] + 1].values,
                index,
                labels[index],
                [self.patients[part]] * len(index),
            )
