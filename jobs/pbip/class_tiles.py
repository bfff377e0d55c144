"""Which tiles stand for a class: a seeded sample of some slides, by the slides' labels or by the truth of tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from jobs.evaluation.truth import Truth
from jobs.mil.labels import LabelTable, negative_class
from store_schema import names
from store_schema.errors import InputError
from store_schema.labels import some
from store_schema.slide_view import SlideView
from store_schema.store import Store

Tiles = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SampleSpec:
    """How many, and which.

    Attributes
    ----------
    slides_per_class, tiles_per_slide
        At the most.
    seed
        Of the choice.
    positive_from
        Where there is truth: tiles of the positive class have more of their area positive than this, tiles of the
        other have nothing positive. Those between belong to neither.
    """

    slides_per_class: int = 5
    tiles_per_slide: int = 1000
    seed: int = 0
    positive_from: float = 0.5


@dataclass(frozen=True, eq=False)
class ClassTiles:
    """The tiles of one class.

    Attributes
    ----------
    class_name
        The class.
    tiles
        Slide id → positions in its grid, int64 (tile,), ascending; slides are sorted.
    """

    class_name: str
    tiles: Mapping[str, Tiles] = field(repr=False)

    @property
    def n_tiles(self) -> int:
        """Tiles of all slides."""
        return sum(map(len, self.tiles.values()))


def sample_class_tiles(
    store: Store,
    grid: str,
    table: LabelTable,
    slide_ids: Sequence[str],
    spec: SampleSpec,
    truth: Truth | None = None,
) -> list[ClassTiles]:
    """Sample the tiles of every class.

    Parameters
    ----------
    store, grid
        Where the tiles are.
    table
        The slides' labels; its class order is that of the result.
    slide_ids
        Slides to choose from, all of them labelled and with that grid.
    spec
        How many, and which.
    truth
        What is true of tiles, of two classes: then slides of any label give tiles to the class that these belong to.
        Positive tiles are of the second class, unless only that one's name says "nothing found" (normal, benign …).
        Slides of which nothing is known give tiles to the other class if they are labelled so, else none.

    Raises
    ------
    InputError
        A class has no tiles, or there is truth and not two classes.
    """
    if truth is not None and len(table.class_names) != 2:
        raise InputError(
            f"the truth of tiles tells two classes, and there are {len(table.class_names)} "
            f"({some(table.class_names, 8)}): leave --truth out, or give labels of two classes"
        )
    owned = _Owned(store, grid, table, truth, spec.positive_from)
    return [
        _sample(owned, number, name, sorted(slide_ids), spec)
        for number, name in enumerate(table.class_names)
    ]


class _Owned:
    """Tells which tiles of a slide belong to which class; reads the truth of a slide once."""

    def __init__(
        self, store: Store, grid: str, table: LabelTable, truth: Truth | None, positive_from: float
    ) -> None:
        self._store, self._grid, self._table = store, grid, table
        self._truth, self._positive_from = truth, positive_from
        self._negative = negative_class(table.class_names)
        self._known: dict[str, tuple[Tiles, Tiles] | None] = {}

    def label(self, slide_id: str) -> int:
        return self._table.labels[self._table.rows[slide_id]][0]

    def tiles(self, slide_id: str, class_index: int) -> Tiles:
        """Return the positions of the tiles of a slide that belong to a class."""
        slide = self._store[slide_id]
        whole = np.arange(slide.grid_attrs(self._grid)[names.N_TILES], dtype=np.int64)
        nothing = whole[:0]
        if self._truth is None:
            return whole if self.label(slide_id) == class_index else nothing
        if slide_id not in self._known:
            self._known[slide_id] = self._by_truth(slide, self._truth)
        known = self._known[slide_id]
        if known is not None:
            return known[class_index != self._negative]
        return whole if self.label(slide_id) == class_index == self._negative else nothing

    def _by_truth(self, slide: SlideView, truth: Truth) -> tuple[Tiles, Tiles] | None:
        """Return the negative tiles and the positive ones."""
        record, table = slide.record, slide.tile_table(self._grid)
        side = int(slide.grid_attrs(self._grid)[names.GEOMETRY]["tile_level0"])
        positive = truth.tiles(record, table, side, self._positive_from)
        touched = truth.tiles(record, table, side, 0.0)
        if positive is None or touched is None:
            return None
        return np.flatnonzero(~(touched | positive)), np.flatnonzero(positive)


def _sample(
    owned: _Owned, class_index: int, name: str, slide_ids: Sequence[str], spec: SampleSpec
) -> ClassTiles:
    found: dict[str, Tiles] = {}
    for slide_id in _shuffled(slide_ids, spec.seed, class_index):
        tiles = owned.tiles(slide_id, class_index)
        if not tiles.size:
            continue
        generator = _generator(spec.seed, class_index, slide_id)
        count = min(spec.tiles_per_slide, len(tiles))
        found[slide_id] = np.sort(generator.choice(tiles, size=count, replace=False))
        if len(found) == spec.slides_per_class:
            break
    if not found:
        labelled = sum(owned.label(slide_id) == class_index for slide_id in slide_ids)
        raise InputError(
            f"the class {name} has no tiles: {labelled} of the {len(slide_ids)} slides to choose from are labelled so, "
            "and none gives it tiles; add slides of it to the labels and to the column train of the splits, or leave "
            "it out of --class-order"
        )
    return ClassTiles(name, dict(sorted(found.items())))


def _shuffled(slide_ids: Sequence[str], seed: int, class_index: int) -> Iterator[str]:
    for position in np.random.default_rng([seed, class_index]).permutation(len(slide_ids)):
        yield slide_ids[position]


def _generator(seed: int, class_index: int, slide_id: str) -> np.random.Generator:
    """Return a generator of the slide's own: its tiles don't depend on which other slides there are."""
    digest = hashlib.blake2b(slide_id.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, class_index, int.from_bytes(digest, "big")])
