"""A per-tile array of a store as what stitching reads: values of any tiles, through a small bounded cache of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from dataflow.keyed_cache import KeyedCache
from dataflow.stitch_axis import TileAxis
from dataflow.stitch_combine import Floats
from store_schema import names
from store_schema.blocks import BlockGroup
from store_schema.chunks import Array
from store_schema.errors import InputError, NotInStoreError
from store_schema.near_names import near
from store_schema.specs import ArraySpec, TileTable
from store_schema.store import open_store

CACHE_BYTES: Final = 256 * 2**20
_MOST_LAYERS: Final = (
    64  # tiles that need more are no lattice: imported ones, shifted piece by piece
)
_MOST_PLACES: Final = 2**25

# after ``tile``: one number, one a class, a map, a map a class
_SCALAR_DIMS: Final = ((), (names.CLASS,))
_KNOWN_DIMS: Final = (
    *_SCALAR_DIMS,
    *(
        (*of_class, *of_map)
        for of_class in ((), (names.CLASS,))
        # stores of earlier days have maps (tile, y, x)
        for of_map in ((names.MAP_Y, names.MAP_X), (names.Y, names.X))
    ),
)


@dataclass(frozen=True)
class TileArray:
    """The address of a per-tile array; small, hashable and picklable.

    Attributes
    ----------
    store_url, slide_id, grid, kind, run, array
        Where it is.
    grid_made_by, made_by
        Fingerprints of grid and group, so that what is cached of another making is not taken for it.
    """

    store_url: str
    slide_id: str
    grid: str
    kind: str
    run: str
    array: str
    grid_made_by: str
    made_by: str

    @property
    def tiles(self) -> StitchTiles:
        """The tiles, opened once in a process."""
        return _opened.get(self, lambda: _open(self))


@dataclass(frozen=True)
class TileLattice:
    """Tiles at the crossings of few distinct corners.

    Attributes
    ----------
    x, y
        Along the axes.
    tile_at
        int32 (y place, x place), number of the tile, -1 where there is none.
    """

    x: TileAxis
    y: TileAxis
    tile_at: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class StitchTiles:
    """Tiles of one slide and the array of theirs that is stitched.

    Attributes
    ----------
    group, array
        What is read.
    table
        Where the tiles are.
    tile_level0
        Side of the square that a tile covers [px, level 0].
    """

    group: BlockGroup
    array: str
    table: TileTable
    tile_level0: int

    @property
    def spec(self) -> ArraySpec:
        """What the array is declared as."""
        return self.group.arrays[self.array]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """As stored."""
        return np.dtype(self.spec.dtype)

    @property
    def by_class(self) -> bool:
        """Whether the array has a dimension ``class``."""
        return names.CLASS in self.spec.dims

    @property
    def n_classes(self) -> int:
        """Number of classes, 1 where there are none."""
        return self.spec.shape[0] if self.by_class else 1

    @property
    def map_px(self) -> tuple[int, int]:
        """Rows and columns of a tile's map; (1, 1) of scalars."""
        if self.spec.dims[1:] in _SCALAR_DIMS:
            return 1, 1
        rows, columns = self.spec.shape[-2:]
        return rows, columns

    @property
    def has_labels(self) -> bool:
        """Whether values are labels or counts: integers without classes."""
        return self.dtype.kind in "iub" and not self.by_class

    @property
    def float_dtype(self) -> type[np.floating]:
        """What to calculate with: float32, and float64 where that would lose integers."""
        exact = self.dtype.kind == "f" or self.dtype.itemsize <= 2
        return np.float32 if exact else np.float64

    @cached_property
    def lattice(self) -> TileLattice | None:
        """The tiles as a lattice; None where they are none."""
        x, x_place = np.unique(self.table.x.astype(np.int64), return_inverse=True)
        y, y_place = np.unique(self.table.y.astype(np.int64), return_inverse=True)
        axes = TileAxis(x, self.tile_level0), TileAxis(y, self.tile_level0)
        if len(x) * len(y) > _MOST_PLACES or axes[0].n_layers * axes[1].n_layers > _MOST_LAYERS:
            return None
        tile_at = np.full((len(y), len(x)), -1, np.int32)
        tile_at[y_place, x_place] = np.arange(len(self.table))
        if np.count_nonzero(tile_at >= 0) < len(self.table):
            return None  # several tiles in one place
        return TileLattice(*axes, tile_at)

    @property
    def most_layers(self) -> int:
        """How many tiles a point may be in, at the most, as far as the lattice says; 1 without one."""
        return 1 if self.lattice is None else self.lattice.x.n_layers * self.lattice.y.n_layers

    def values(self, tiles: npt.NDArray[np.integer]) -> Floats:
        """Read tiles.

        Parameters
        ----------
        tiles
            Ascending numbers (n,).

        Returns
        -------
        ndarray
            float (class, n + 1, y, x); the last tile is all NaN.
        """
        shape = (self.n_classes, len(tiles) + 1, *self.map_px)
        values: Floats = np.empty(shape, self.float_dtype)
        values[:, -1] = np.nan
        step = self.group.block_tiles
        starts = np.searchsorted(tiles, np.arange(self.group.n_blocks + 1) * step)
        for block in np.flatnonzero(np.diff(starts)):
            start, stop = starts[block], starts[block + 1]
            part = self._block(int(block))[tiles[start:stop] - block * step]
            values[:, start:stop] = np.moveaxis(part.reshape(-1, *shape[:1], *shape[2:]), 0, 1)
        return values

    def _block(self, block: int) -> Array:
        return self._blocks.get(block, lambda: self.group.read_array(self.array, block))

    @cached_property
    def _blocks(self) -> KeyedCache[Array]:
        return KeyedCache(max(1, CACHE_BYTES // self.group.layouts[self.array].raw_bytes))


_opened: KeyedCache[StitchTiles] = KeyedCache(2)


def _open(address: TileArray) -> StitchTiles:
    slide = open_store(address.store_url)[address.slide_id]
    group = slide.block_group(address.grid, address.kind, address.run)
    if address.array not in group.arrays:
        raise NotInStoreError(
            f"{group.path} has no array {address.array!r}: {near(address.array, list(group.arrays))}"
        )
    spec = group.arrays[address.array]
    if spec.dims[1:] not in _KNOWN_DIMS or 0 in spec.shape:
        dims = ", ".join(spec.dims)
        raise InputError(
            f"{group.path}/{address.array} has the dimensions ({dims}): what is stitched has (tile), (tile, class), "
            "(tile, map_y, map_x) or (tile, class, map_y, map_x)"
        )
    geometry = slide.grid_attrs(address.grid)[names.GEOMETRY]
    return StitchTiles(
        group, address.array, slide.tile_table(address.grid), int(geometry["tile_level0"])
    )
