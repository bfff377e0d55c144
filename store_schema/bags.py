"""Bags: the tiles' features slide by slide, read when a bag is loaded. What slide models train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from store_schema import names
from store_schema.blocks import BlockGroup
from store_schema.chunks import Array, read_blocks
from store_schema.errors import IncompleteError, InputError, NotInStoreError
from store_schema.inventory import LIST_THREADS
from store_schema.labels import Label, Labels, read_labels
from store_schema.near_names import near
from store_schema.specs import TileTable

if TYPE_CHECKING:
    from store_schema.slide_view import SlideView
    from store_schema.store import Store


@dataclass(frozen=True)
class Bag:
    """One slide's tiles. Picklable; nothing is read before it is asked for.

    Attributes
    ----------
    slide, grid, group
        Where the features are.
    label
        The slide's label, None where no labels were given.
    tiles
        Positions (ascending or, of a selection, best first) along ``tile``; None takes all.
    partial
        Whether blocks of the features are missing, whose tiles the bag goes without.
    """

    slide: SlideView
    grid: str
    group: BlockGroup
    label: Label | None = None
    tiles: npt.NDArray[np.int64] | None = None
    partial: bool = False

    def __len__(self) -> int:
        return self.group.n_tiles if self.tiles is None else int(self.tiles.size)

    def __repr__(self) -> str:
        return f"<Bag {self.slide_id}: {len(self)} tiles, label {self.label!r}>"

    @property
    def slide_id(self) -> str:
        """The slide."""
        return self.slide.slide_id

    @property
    def x(self) -> npt.NDArray[np.int32]:
        """int32 (tile,), left edges [px, level 0]."""
        return self._table.x if self.tiles is None else self._table.x[self.tiles]

    @property
    def y(self) -> npt.NDArray[np.int32]:
        """int32 (tile,), top edges [px, level 0]."""
        return self._table.y if self.tiles is None else self._table.y[self.tiles]

    @cached_property
    def _table(self) -> TileTable:
        return self.slide.tile_table(self.grid)

    def load(self, array: str | None = None, *, out: Array | None = None) -> Array:
        """Read the features.

        Parameters
        ----------
        array
            Another array of the group; None takes the main one.
        out
            Read into this array, (tile, feature) and contiguous, and return it. Going through a cohort with one
            buffer is faster than with fresh memory for each bag.

        Returns
        -------
        ndarray
            (tile, feature) as stored, one row a tile of the bag.

        Raises
        ------
        IncompleteError, DamagedBlockError
            If a block has gone since the bag was made, or fails its checksum.
        """
        name = array if array is not None else next(iter(self.group.arrays))
        path, layout = f"{self.group.path}/{name}", self.group.layouts[name]
        if self.tiles is None:
            return read_blocks(self.group.objects, path, layout, out=out)
        step = self.group.block_tiles
        blocks = np.unique(self.tiles // step)
        values = read_blocks(self.group.objects, path, layout, blocks.tolist())
        rows = np.searchsorted(blocks, self.tiles // step) * step + self.tiles % step
        return values.take(rows, axis=0, out=out)


class Bags(Sequence[Bag]):
    """Bags of a cohort, in the order of their slide ids.

    Parameters
    ----------
    bags
        The bags.
    absent
        Slides that have a label (or are in the store), but no bag.
    unlabelled
        Slides of the store left out because they have no label.
    """

    def __init__(
        self, bags: Sequence[Bag], absent: Sequence[str], unlabelled: Sequence[str]
    ) -> None:
        self._bags = tuple(bags)
        self.absent = tuple(absent)
        self.unlabelled = tuple(unlabelled)

    def __repr__(self) -> str:
        tiles = sum(len(bag) for bag in self._bags)
        return f"<{len(self)} bags, {tiles:,} tiles; {len(self.absent)} absent, {len(self.unlabelled)} without label>"

    def __len__(self) -> int:
        return len(self._bags)

    def __iter__(self) -> Iterator[Bag]:
        return iter(self._bags)

    @overload
    def __getitem__(self, index: int) -> Bag: ...

    @overload
    def __getitem__(self, index: slice) -> Bags: ...

    def __getitem__(self, index: int | slice) -> Bag | Bags:
        if isinstance(index, slice):
            return Bags(self._bags[index], self.absent, self.unlabelled)
        return self._bags[index]

    @property
    def slide_ids(self) -> list[str]:
        """The slides, in order."""
        return [bag.slide_id for bag in self._bags]


def make_bags(
    store: Store,
    features: str | None,
    grid: str | None,
    *,
    labels: Labels | None,
    selection: str | None,
    allow_incomplete: bool,
) -> Bags:
    """Return the bags of a store; see :meth:`store_schema.store.Store.bags`."""
    known = store.slides
    by_slide = None if labels is None else read_labels(labels)
    wanted = known if by_slide is None else [slide_id for slide_id in known if slide_id in by_slide]
    slides = [store[slide_id] for slide_id in wanted]
    with ThreadPoolExecutor(LIST_THREADS) as pool:
        grid = (
            grid if grid is not None else _only(pool.map(lambda s: s.grids, slides), store, "grid")
        )
        runs = list(pool.map(lambda s: s.runs(grid, names.FEATURES), slides))
        if wanted and not any(runs):
            _check_grid(
                store,
                grid,
                {name for found in pool.map(lambda s: s.grids, slides) for name in found},
            )
        if features is None:
            features = _only(iter(runs), store, "feature set")
        elif wanted and not any(features in found for found in runs):
            every = {name for found in runs for name in found}
            raise NotInStoreError(
                f"{store.url} has no features {features!r} on {grid}: {near(features, sorted(every))}"
            )
        groups = list(pool.map(lambda s: _group(s, grid, features), slides))
        progress = list(pool.map(lambda g: (0, 0) if g is None else g.done(), groups))
    bags, lacking = [], []
    for slide, group, (done, total) in zip(slides, groups, progress, strict=True):
        if group is None or done < total:
            lacking.append(
                f"{slide.slide_id} ({done}/{total} blocks)" if group else f"{slide.slide_id} (none)"
            )
        if group is not None and (done == total or allow_incomplete):
            label = None if by_slide is None else by_slide[slide.slide_id]
            partial = done < total
            bags.append(
                Bag(
                    slide,
                    grid,
                    group,
                    label,
                    _tiles(slide, grid, group, selection, partial),
                    partial,
                )
            )
    if lacking and not allow_incomplete:
        shown = ", ".join(lacking[:3]) + (" …" if len(lacking) > 3 else "")
        raise IncompleteError(
            f"{len(lacking)} of {len(slides)} slides lack features {features} on {grid}: {shown}; "
            "run the same command again to complete them, or pass allow_incomplete=True to go without"
        )
    have = {bag.slide_id for bag in bags}
    absent = sorted({*(by_slide or ()), *wanted} - have)
    return Bags(bags, absent, [] if by_slide is None else [s for s in known if s not in by_slide])


def _only(known_by_slide: Iterator[list[str]], store: Store, what: str) -> str:
    known = sorted({name for known_names in known_by_slide for name in known_names})
    if not known:
        raise NotInStoreError(f"{store.url} has no {what} yet: `slidestream run` makes one")
    if len(known) > 1:
        raise InputError(f"{store.url} has more than one {what} ({', '.join(known)}): name one")
    return known[0]


def _check_grid(store: Store, grid: str, known: set[str]) -> None:
    if grid not in known:
        raise NotInStoreError(f"{store.url} has no grid {grid!r}: {near(grid, sorted(known))}")


def _group(slide: SlideView, grid: str, features: str) -> BlockGroup | None:
    try:
        return slide.block_group(grid, names.FEATURES, features)
    except NotInStoreError:
        return None


def _tiles(
    slide: SlideView, grid: str, group: BlockGroup, selection: str | None, partial: bool
) -> npt.NDArray[np.int64] | None:
    """Return the positions of a bag's tiles: selected, and of blocks that are there."""
    if selection is None and not partial:
        return None
    every = (
        np.arange(group.n_tiles)
        if selection is None
        else slide.selection(grid, selection)[0].astype(np.int64)
    )
    if not partial:
        return every
    gone = group.missing_blocks(verify=False)
    return every[~np.isin(every // group.block_tiles, gone)]
