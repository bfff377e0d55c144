"""Stores are read without our code: zarr and xarray as they come."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import zarr

from store_schema.finalize import finalize
from store_schema.store import Store, open_store
from store_schema.validate import validate
from tests.store_schema.samples import (
    DIM,
    GRID,
    MASK,
    add_features,
    add_slide,
    claim_features,
    table,
)

# xarray itself warns where it has to look for consolidated metadata in vain; False or `store finalize` is the answer


def check_tree(tree: xr.DataTree, features: np.ndarray) -> None:
    grid = tree[f"s1/{GRID}"]
    assert isinstance(grid, xr.DataTree)
    assert set(grid.coords) == {"x", "y", "row", "col"}
    np.testing.assert_array_equal(grid["x"].values, table(20).x)
    assert grid["tissue"].dtype == np.float32
    np.testing.assert_array_equal(tree[f"s1/{GRID}/features/enc/features"].values, features)
    flags = tree[f"s1/{GRID}/features/enc/stain_method"]
    assert flags.dtype == np.uint8
    assert flags.attrs["flag_meanings"] == "none macenko"
    np.testing.assert_array_equal(tree[f"s1/{GRID}/masks/tissue/mask"].values, MASK)
    assert tree[f"empty/{GRID}/features/enc/features"].shape == (0, DIM)
    assert tree["s1"].attrs["slidestream"]["vendor"] == "aperio"


@pytest.fixture
def features(store: Store) -> np.ndarray:
    claim_features(add_slide(store, "empty", 0))
    return add_features(add_slide(store))["features"]


@pytest.mark.parametrize("finished", [False, True])
def test_open_datatree(store: Store, features: np.ndarray, finished: bool) -> None:
    if finished:
        finalize(store)
        with xr.open_datatree(store.url, engine="zarr") as tree:
            check_tree(tree, features)
    with xr.open_datatree(store.url, engine="zarr", consolidated=False) as tree:
        check_tree(tree, features)


@pytest.mark.parametrize("finished", [False, True])
def test_open_zarr(store: Store, features: np.ndarray, finished: bool) -> None:
    if finished:
        finalize(store)
    consolidated = None if finished else False
    ds = xr.open_zarr(store.url, group=f"s1/{GRID}/features/enc", consolidated=consolidated)
    assert ds.features.chunks == ((8, 8, 4), (DIM,))
    np.testing.assert_array_equal(ds.features.values, features)
    grid = xr.open_zarr(store.url, group=f"s1/{GRID}", consolidated=consolidated)
    assert set(grid.coords) == {"x", "y", "row", "col"}
    empty = xr.open_zarr(store.url, group=f"empty/{GRID}/features/enc", consolidated=consolidated)
    assert empty.features.values.shape == (0, DIM)


def test_finalized_metadata_is_that_of_the_nodes(store: Store, features: np.ndarray) -> None:
    assert finalize(store) > 20
    with (
        xr.open_datatree(store.url, engine="zarr") as quick,
        xr.open_datatree(store.url, engine="zarr", consolidated=False) as full,
    ):
        xr.testing.assert_identical(quick, full)
    assert validate(store) == []
    before = store.objects.get("zarr.json")
    finalize(store)
    assert store.objects.get("zarr.json") == before


def test_what_is_added_after_finalizing_is_seen(store: Store, features: np.ndarray) -> None:
    finalize(store)
    add_features(add_slide(open_store(store.url, mode="r+"), "later"))
    group = zarr.open_group(store.url, mode="r")
    assert set(group.group_keys()) == {"s1", "empty", "later"}
    finalize(store)
    add_features(store["s1"], "another")
    assert f"s1/{GRID}/features/another" in zarr.open_group(store.url, mode="r")


def test_without_our_code(local_store: Store) -> None:
    add_features(add_slide(local_store))
    code = f"""
import sys, warnings
warnings.simplefilter("error")
import xarray as xr
tree = xr.open_datatree({local_store.url!r}, engine="zarr", consolidated=False)
assert tree["s1/{GRID}/features/enc/features"].load().shape == (20, {DIM})
assert not [name for name in sys.modules if name.startswith("store_schema")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
