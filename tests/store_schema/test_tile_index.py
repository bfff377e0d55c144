"""Selection by coordinate is held against looking at every tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from store_schema.errors import InputError
from store_schema.tile_index import TileIndex

Corners = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


def dataset(corners: Corners) -> xr.Dataset:
    x, y = corners
    ds = xr.Dataset(
        {"n": ("tile", np.arange(x.size))}, {"x": ("tile", x, {"units": "px"}), "y": ("tile", y)}
    )
    return ds.set_xindex(["x", "y"], TileIndex)


@st.composite
def corners(draw: st.DrawFn) -> Corners:
    place = st.tuples(st.integers(0, 300_000), st.integers(0, 300_000))
    places = draw(st.lists(place, min_size=1, max_size=30, unique=True))
    array = np.array(places, dtype=np.int32)
    return array[:, 0], array[:, 1]


@settings(max_examples=50, deadline=None)
@given(corners(), st.data())
def test_exact(tiles: Corners, data: st.DataObject) -> None:
    ds = dataset(tiles)
    which = data.draw(st.integers(0, tiles[0].size - 1))
    found = ds.sel(x=tiles[0][which], y=tiles[1][which])
    assert found.n == which
    assert found.x == tiles[0][which]
    order = data.draw(st.permutations(range(tiles[0].size)))
    several = ds.sel(x=tiles[0][order], y=tiles[1][order])
    np.testing.assert_array_equal(several.n.values, order)
    np.testing.assert_array_equal(several.x.values, tiles[0][order])


@settings(max_examples=50, deadline=None)
@given(corners(), st.integers(-1000, 301_000), st.integers(-1000, 301_000))
def test_nearest(tiles: Corners, x: int, y: int) -> None:
    ds = dataset(tiles)
    distance = np.hypot(tiles[0].astype(float) - x, tiles[1].astype(float) - y)
    found = ds.sel(x=x, y=y, method="nearest")
    assert distance[int(found.n)] == pytest.approx(distance.min())
    assert ds.sel(x=x, y=y, method="nearest", tolerance=float(distance.min()) + 1e-3).n == found.n
    if distance.min() > 1:
        with pytest.raises(KeyError, match="more than the tolerance"):
            ds.sel(x=x, y=y, method="nearest", tolerance=float(distance.min()) - 0.5)


@pytest.fixture
def three() -> xr.Dataset:
    return dataset((np.array([0, 64, 0], np.int32), np.array([0, 0, 64], np.int32)))


def test_no_such_tile(three: xr.Dataset) -> None:
    for x, y in ((1, 0), (64, 64), (0.5, 0), (-64, 0), (0, float("nan"))):
        with pytest.raises(KeyError, match="no tile has its corner at"):
            three.sel(x=x, y=y)


@pytest.mark.parametrize(
    "query",
    [
        {"x": 0},
        {"y": 0},
        {"x": 0, "y": 0, "method": "pad"},
        {"x": 0, "y": 0, "tolerance": 3},
        {"x": slice(0, 9), "y": slice(0, 9)},
        {"x": [[0]], "y": [[0]]},
    ],
)
def test_what_makes_no_sense(three: xr.Dataset, query: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        three.sel(**query)


def test_pointwise_along_own_dimensions(three: xr.Dataset) -> None:
    x = xr.DataArray([[0, 64], [0, 0]], dims=("a", "b"))
    y = xr.DataArray([[0, 0], [64, 0]], dims=("a", "b"))
    found = three.sel(x=x, y=y)
    assert found.n.dims == ("a", "b")
    np.testing.assert_array_equal(found.n.values, [[0, 1], [2, 0]])
    along = three.sel(x=xr.DataArray([0, 64], dims="query"), y=0)
    assert along.n.dims == ("query",)
    assert along.sel(x=64, y=0).n == 1


def test_the_index_follows_selections(three: xr.Dataset) -> None:
    assert three.isel(tile=[2, 1]).sel(x=64, y=0).n == 1
    assert three.isel(tile=slice(1, None)).sel(x=0, y=64).n == 2
    assert three.isel(tile=three.n != 1).sel(x=0, y=64).n == 2
    with pytest.raises(KeyError):
        three.isel(tile=[2, 1]).sel(x=0, y=0)
    assert "x" not in three.isel(tile=1).xindexes
    assert three.rename(tile="patch").sel(x=64, y=0).n == 1
    assert three.isel(tile=[0]).x.attrs == {"units": "px"}
    assert three.sortby("n", ascending=False).sel(x=0, y=64).n == 2


def test_two_slides_together(three: xr.Dataset) -> None:
    both = xr.concat([three, three.assign(n=three.n + 10)], dim="tile")
    with pytest.raises(KeyError, match="2 tiles have their corner"):
        both.sel(x=0, y=0)
    assert both.isel(tile=slice(3, None)).sel(x=0, y=0).n == 10


def test_alignment(three: xr.Dataset) -> None:
    assert (three + three).n.values.tolist() == [0, 2, 4]
    assert three.identical(three.copy(deep=True))
