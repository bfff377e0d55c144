"""Bags of a store's features, one a slide or one a patient, for training and scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from jobs.mil.finite import first_not_finite
from jobs.mil.labels import LabelTable, Targets, targets_of
from store_schema import names
from store_schema.bags import Bag
from store_schema.errors import IncompleteError, InputError
from store_schema.labels import SEPARATOR, some
from store_schema.specs import fingerprint
from store_schema.store import open_store

BagLevel: TypeAlias = Literal["slide", "patient"]


@dataclass(frozen=True)
class BagPart:
    """The part of a bag that comes from one slide.

    Attributes
    ----------
    bag
        The slide's bag: where its features are.
    start
        Position in the whole bag of the part's first tile.
    tile_index
        int64 (tile,), the part's tiles as positions along ``tile`` of the slide's grid.
    """

    bag: Bag
    start: int
    tile_index: npt.NDArray[np.int64]

    @property
    def slide_id(self) -> str:
        """The slide."""
        return self.bag.slide_id

    @property
    def span(self) -> slice:
        """The part's positions in the whole bag."""
        return slice(self.start, self.start + self.tile_index.size)


@dataclass(frozen=True)
class StoreBags:
    """Bags of a store, as :class:`models.bag_source.BagSource`. Picklable; features are read when a bag is loaded.

    Attributes
    ----------
    ids
        Slide or patient of each bag.
    targets
        int64 (bag,) classes, or float32 (bag, class) of a multi-label task.
    groups
        Patient of each bag.
    slides
        The slides of each bag, one where a slide is the bag; their tiles follow one another.
    """

    ids: tuple[str, ...]
    targets: Targets
    groups: tuple[str, ...]
    slides: tuple[tuple[Bag, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 (bag,), number of tiles."""
        return np.array([sum(map(len, bags)) for bags in self.slides], dtype=np.int64)

    @property
    def n_features(self) -> int:
        """Width of a tile's features."""
        return _width(self.slides[0][0])

    def parts(self, index: int) -> tuple[BagPart, ...]:
        """Return which tiles of which slides a bag's positions are."""
        bags = self.slides[index]
        starts = np.cumsum([0, *map(len, bags)]).tolist()
        return tuple(
            BagPart(bag, start, np.arange(len(bag)) if bag.tiles is None else bag.tiles)
            for bag, start in zip(bags, starts, strict=False)
        )

    def load(
        self, index: int, tiles: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.floating]:
        """Read a bag, or some tiles of it; only the blocks that hold them.

        Returns
        -------
        ndarray
            float16 or float32 (tile, feature), as stored.

        Raises
        ------
        InputError
            If a feature is NaN or infinite; names slide and tile.
        IncompleteError, DamagedBlockError
            If a block has gone since the source was made, or fails its checksum.
        """
        parts = [
            _read(part.bag)
            if tiles is None
            else _read(_some_of(part, tiles[(tiles >= part.start) & (tiles < part.span.stop)]))
            for part in self.parts(index)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class StoreCohort:
    """Labelled slides of a store whose features can be had.

    Attributes
    ----------
    table
        Their labels.
    slides
        Slide id → bag, of exactly the slides of ``table``.
    grid, features
        Where the features are.
    without_features
        Labelled slides that the store doesn't have, or has no such features of.
    without_labels
        Slides of the store that have no label.
    empty
        Labelled slides without a single tile: they are left out.
    """

    table: LabelTable
    slides: Mapping[str, Bag]
    grid: str
    features: str
    without_features: tuple[str, ...] = ()
    without_labels: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()

    @property
    def features_fingerprint(self) -> str | None:
        """Digest of what made the features, whatever the slide; None where that is not the same on all slides."""
        found = {made_by_fingerprint(bag) for bag in self.slides.values()}
        return found.pop() if len(found) == 1 else None

    def notes(self) -> list[str]:
        """Return what was left out, in sentences."""
        counted = (
            (self.without_features, "slides have a label but no features"),
            (self.without_labels, "slides of the store have no label"),
            (self.empty, "slides have no tiles and are left out"),
        )
        notes = [f"{len(ids)} {what}: {some(ids)}" for ids, what in counted if ids]
        notes += self.partial_notes()
        if self.table.merged:
            notes.append(f"{self.table.merged} lines of the labels repeat others")
        return notes

    def partial_notes(self) -> list[str]:
        """Return which slides have part of their features only, in at most one sentence."""
        found = [_how_far(bag) for bag in self.slides.values() if bag.partial]
        return [f"{len(found)} slides have part of their features only: {some(found)}"] * bool(
            found
        )

    def bags(self, slide_ids: Sequence[str], level: BagLevel = "slide") -> StoreBags:
        """Return the bags of some slides, in their order.

        Parameters
        ----------
        slide_ids
            Slides; those that the cohort doesn't have are left out.
        level
            Whether each slide is a bag, or all the slides of a patient among them. A patient has all classes of
            a multi-label task that a slide has; of two classes the positive one if any slide has it.

        Raises
        ------
        InputError
            If no slide is left, or slides of a patient differ in label where there are more than two classes.
        """
        kept = [slide_id for slide_id in slide_ids if slide_id in self.slides]
        if not kept:
            raise InputError(
                f"none of the {len(slide_ids)} slides ({some(slide_ids)}) has features"
            )
        table, of_bag = self.table, dict[str, list[str]]()
        for slide_id in kept:
            patient = table.patient_ids[table.rows[slide_id]]
            of_bag.setdefault(slide_id if level == "slide" else patient, []).append(slide_id)
        labels = [self._label(bag_id, members) for bag_id, members in of_bag.items()]
        return StoreBags(
            tuple(of_bag),
            targets_of(labels, len(table.class_names), table.task),
            tuple(table.patient_ids[table.rows[members[0]]] for members in of_bag.values()),
            tuple(tuple(self.slides[member] for member in members) for members in of_bag.values()),
        )

    def _label(self, bag_id: str, members: Sequence[str]) -> tuple[int, ...]:
        table = self.table
        found = {table.labels[table.rows[member]] for member in members}
        every = tuple(sorted({c for classes in found for c in classes}))
        if table.task == "multilabel" or len(found) == 1:
            return every
        if len(table.class_names) == 2:
            return every[-1:]
        named = [SEPARATOR.join(table.class_names[c] for c in classes) for classes in sorted(found)]
        raise InputError(
            f"patient {bag_id} has slides of the classes {some(named)}: a bag has one, so train on slides"
        )


def made_by_fingerprint(bag: Bag) -> str:
    """Return a digest of what made a slide's features, the slide itself left out."""
    own = {"slide", names.GRID_MADE_BY}
    made_by = bag.group.attrs[names.PROVENANCE]
    return fingerprint({key: value for key, value in made_by.items() if key not in own})


def open_cohort(
    store_url: str,
    table: LabelTable,
    *,
    features: str | None = None,
    grid: str | None = None,
    selection: str | None = None,
    allow_incomplete: bool = False,
) -> StoreCohort:
    """Find the features of labelled slides.

    Parameters
    ----------
    store_url
        The store.
    table
        The labels.
    features, grid
        Which features; None takes the only ones of the store.
    selection
        Take the tiles of this selection only.
    allow_incomplete
        Take slides whose features are not complete, with the tiles that they have.

    Raises
    ------
    IncompleteError
        If slides' features aren't complete, unless that is allowed; says which and how far they are.
    NotInStoreError, InputError
        If there are no such features, on any slide or on any labelled one, or they differ in width.
    """
    store = open_store(store_url)
    if set(store.slides).isdisjoint(table.slide_ids):
        raise InputError(_strangers(store_url, table, store.slides))
    bags = store.bags(
        features,
        grid,
        labels=dict.fromkeys(table.slide_ids, ""),
        selection=selection,
        allow_incomplete=True,  # told apart below: without any features is no reason to stop
    )
    partial = [bag for bag in bags if bag.partial]
    if partial and not allow_incomplete:
        raise IncompleteError(
            f"{len(partial)} of {len(table)} labelled slides have incomplete features: "
            f"{some([_how_far(bag) for bag in partial])}; run the encoding again to complete them, or pass "
            "--allow-incomplete to take what is there"
        )
    full = {bag.slide_id: bag for bag in bags if len(bag)}
    if not full:
        raise InputError(
            f"none of the {len(bags)} labelled slides with features in {store_url} has a tile: index them with less "
            "--min-tissue, or label others"
            if bags
            else _strangers(store_url, table, bags.unlabelled)
        )
    _check_widths(list(full.values()))
    some_bag = next(iter(full.values()))
    return StoreCohort(
        table.take(full),
        full,
        some_bag.grid,
        some_bag.group.path.rpartition("/")[2],
        bags.absent,
        bags.unlabelled,
        tuple(bag.slide_id for bag in bags if not len(bag)),
    )


def _strangers(store_url: str, table: LabelTable, others: Sequence[str]) -> str:
    return (
        f"no labelled slide has features in {store_url}: the table names {some(table.slide_ids) or 'none'}, "
        f"the store has others ({some(others) or 'none'}); write slide ids as the store does"
    )


def _check_widths(bags: Sequence[Bag]) -> None:
    first = bags[0]
    for bag in bags:
        if _width(bag) != _width(first):
            raise InputError(
                f"{bag.group.path} has {_width(bag)} features a tile and {first.group.path} {_width(first)}: "
                "encode both slides with the same encoder"
            )


def _width(bag: Bag) -> int:
    return int(next(iter(bag.group.arrays.values())).shape[0])


def _how_far(bag: Bag) -> str:
    done, total = bag.group.done()
    return f"{bag.slide_id} ({done}/{total} blocks)"


def _some_of(part: BagPart, positions: npt.NDArray[np.int64]) -> Bag:
    return replace(part.bag, tiles=part.tile_index[positions - part.start])


def _read(bag: Bag) -> npt.NDArray[np.floating]:
    features = cast("npt.NDArray[np.floating]", bag.load())
    row = first_not_finite(features)
    if row is not None:
        tile = row if bag.tiles is None else int(bag.tiles[row])
        raise InputError(
            f"features of slide {bag.slide_id} ({bag.group.path}) are not finite at tile {tile}: encode the slide "
            "again with --overwrite, or leave it out of the labels"
        )
    return features
