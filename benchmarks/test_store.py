"""Writing blocks; reading a large bag as a view, as a bag, into a buffer; asking for some of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from benchmarks.bag_store import bag_store
from benchmarks.conftest import Timed
from store_schema.store import Store, open_store
from store_schema.validate import validate


@dataclass(frozen=True)
class LargeBag:
    """A stored bag and what is in it."""

    store: Store
    values: npt.NDArray[np.float16]

    @property
    def size(self) -> tuple[int, int]:
        """Tiles and bytes."""
        return len(self.values), self.values.nbytes


@pytest.fixture(scope="module")
def bag(full: bool, tmp_path_factory: pytest.TempPathFactory) -> LargeBag:
    """Return a bag of 50,000 x 1,024, or of 3,000 x 64."""
    path = tmp_path_factory.mktemp("bag") / "bag.zarr"
    n_tiles, n_features = (50_000, 1_024) if full else (3_000, 64)
    _, values = bag_store(path, n_tiles, n_features)
    return LargeBag(open_store(path), values)


def test_write_blocks(timed: Timed, bag: LargeBag, tmp_path: Path) -> None:
    store, _ = bag_store(tmp_path / "written.zarr", len(bag.values), bag.values.shape[1])
    grid = store["bag"].grids[0]
    group = store["bag"].block_group(grid, "features", "random")

    def write() -> int:
        return sum(
            group.write_block(block, {"features": bag.values[group.block_slice(block)]})
            for block in range(group.n_blocks)
        )

    assert timed(write, *bag.size) > bag.values.nbytes
    assert validate(tmp_path / "written.zarr") == []


def test_view(timed: Timed, bag: LargeBag) -> None:
    view = bag.store["bag"].tiles()["features"]
    np.testing.assert_array_equal(timed(view.to_numpy, *bag.size), bag.values)


def test_bag(timed: Timed, bag: LargeBag) -> None:
    stored = bag.store.bags()[0]
    np.testing.assert_array_equal(timed(stored.load, *bag.size), bag.values)


def test_bag_into_a_buffer(timed: Timed, bag: LargeBag) -> None:
    stored = bag.store.bags()[0]
    buffer = np.empty_like(bag.values)
    np.testing.assert_array_equal(timed(lambda: stored.load(out=buffer), *bag.size), bag.values)


def test_query_a_box(timed: Timed, bag: LargeBag) -> None:
    tiles = bag.store["bag"].tiles()
    middle = len(bag.values) // 2
    box = (middle - 50, 0, middle + 50, 1)

    def query() -> npt.NDArray[np.float16]:
        return np.asarray(tiles.tiles.in_bbox(*box)["features"])

    found = timed(query, 100)
    np.testing.assert_array_equal(found, bag.values[middle - 50 : middle + 50])


def test_query_a_tile(timed: Timed, bag: LargeBag) -> None:
    tiles = bag.store["bag"].tiles()
    x = len(bag.values) // 3

    def query() -> npt.NDArray[np.float16]:
        return np.asarray(tiles.sel(x=x, y=0)["features"])

    found = timed(query, 1)
    np.testing.assert_array_equal(found, bag.values[x])


def test_open_a_dataset(timed: Timed, bag: LargeBag) -> None:
    def open_dataset() -> xr.Dataset:
        return open_store(bag.store.url)["bag"].tiles()

    tiles = timed(open_dataset, len(bag.values))
    assert tiles.sizes["tile"] == len(bag.values)
