"""Slide-sized arrays chunk by chunk: nothing where there is nothing, nothing half done, nothing lost unseen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from store_schema import names
from store_schema.errors import (
    DamagedBlockError,
    DamagedMetadataError,
    IncompleteError,
    InvalidNameError,
    SettingsConflictError,
)
from store_schema.group_attributes import with_digest
from store_schema.leftovers import leftovers
from store_schema.raster_group import RasterGroup
from store_schema.specs import GridGeometry, GridSpec, RasterSpec, SlideRecord, TileTable
from store_schema.store import SlideView, Store
from store_schema.validate import validate

SPEC = GridSpec(tile_px=32, mpp=0.5, stride_px=32)
GRID = SPEC.name
PATH = f"s1/{GRID}/masks/stitched"
MADE_BY = {"mode": "mean"}
SHAPE = (1500, 2100)  # 2 x 3 chunks
ARRAYS = {
    "probability": RasterSpec(
        ("class", "y", "x"), (2, *SHAPE), "float32", 4.0, attrs={"units": "1"}
    ),
    "mask": RasterSpec(("y", "x"), SHAPE, "uint8", 4.0),
}


def add_slide(store: Store) -> SlideView:
    slide = store.add_slide(
        SlideRecord("s1", "/slides/s1.svs", "c0ffee", "aperio", 8400, 6000, 0.25, "properties")
    )
    nothing = np.zeros(0, np.int32)
    table = TileTable(nothing, nothing, nothing, nothing, np.zeros(0, np.float32))
    slide.create_grid(SPEC, GridGeometry(64, 64.0, 93, 131), table, {"grid": 1})
    return slide


@pytest.fixture
def slide(store: Store) -> SlideView:
    return add_slide(store)


def claim(slide: SlideView, **changes: Any) -> RasterGroup:
    return slide.create_raster_group(
        GRID, "stitched", ARRAYS, {**MADE_BY, **changes}, extra={"asked": "by a test"}
    )


@pytest.fixture
def values() -> dict[str, npt.NDArray[Any]]:
    """Something in the chunks (0, 0, 1), (1, 0, 1), (1, 1, 2) of the one, and (0, 1) of the other."""
    probability = np.full((2, *SHAPE), np.nan, np.float32)
    probability[:, 500, 1100:1200] = np.linspace(0, 1, 100)
    probability[1, 1400, 2099] = 0.0  # a value, where nothing is NaN
    mask = np.zeros(SHAPE, np.uint8)
    mask[500, 1100:1200] = 1
    return {"probability": probability, "mask": mask}


def fill(group: RasterGroup, values: dict[str, npt.NDArray[Any]]) -> None:
    for array, data in values.items():
        group.write_array(array, data)
    group.finish()


def chunks_of(store: Store) -> set[str]:
    keys = store.objects.sizes(PATH)
    return {key.removeprefix(f"{PATH}/") for key in keys if "/c/" in key}


def test_only_what_holds_something_is_stored(
    store: Store, slide: SlideView, values: dict[str, npt.NDArray[Any]]
) -> None:
    group = claim(slide)
    assert not group.complete
    with pytest.raises(IncompleteError):
        slide.raster(GRID, "stitched")
    assert {v.code for v in validate(store)} == {"incomplete"}
    assert not leftovers(store, 0)

    fill(group, values)

    expected = {"probability/c/0/0/1", "probability/c/1/0/1", "probability/c/1/1/2", "mask/c/0/1"}
    assert chunks_of(store) == expected
    ds = slide.raster(GRID, "stitched")
    assert ds.probability.chunks == ((1, 1), (1024, 476), (1024, 1024, 52))
    np.testing.assert_array_equal(ds.x.values[:2], [2.0, 6.0])
    for array, data in values.items():
        np.testing.assert_array_equal(ds[array].values, data)
    assert slide.run_attrs(GRID, names.MASKS, "stitched")[names.EXTRA] == {"asked": "by a test"}
    assert validate(store) == []
    assert not leftovers(store, 0)


def test_plain_xarray_reads_it(local_store: Store, values: dict[str, npt.NDArray[Any]]) -> None:
    fill(claim(add_slide(local_store)), values)
    with xr.open_zarr(local_store.url, group=PATH, consolidated=False) as ds:
        for array, data in values.items():
            np.testing.assert_array_equal(ds[array].values, data)


def test_a_chunk_that_became_empty_goes_away(
    store: Store, slide: SlideView, values: dict[str, npt.NDArray[Any]]
) -> None:
    group = claim(slide)
    fill(group, values)
    assert group.write("mask", (0, 1), np.zeros((1024, 1024), np.uint8)) == 0
    assert "mask/c/0/1" not in chunks_of(store)


def test_wrong_values_are_refused(slide: SlideView) -> None:
    group = claim(slide)
    with pytest.raises(ValueError, match=r"takes uint8 \(476, 52\) for chunk \(1, 2\)"):
        group.write("mask", (1, 2), np.zeros((1024, 1024), np.uint8))
    with pytest.raises(ValueError, match="takes uint8"):
        group.write("mask", (1, 2), np.zeros((476, 52), np.float32))
    with pytest.raises(ValueError, match="has shape"):
        group.write_array("mask", np.zeros((3, 3), np.uint8))


def test_arrays_lie_on_one_raster(slide: SlideView) -> None:
    arrays = {**ARRAYS, "coarse": RasterSpec(("y", "x"), (3, 3), "uint8", 1000.0)}
    with pytest.raises(ValueError, match="lie on one raster"):
        slide.create_raster_group(GRID, "other", arrays, MADE_BY)


def test_the_same_again_and_other_settings(
    store: Store, slide: SlideView, values: dict[str, npt.NDArray[Any]]
) -> None:
    fill(claim(slide), values)
    before = store.objects.sizes(PATH)
    again = claim(slide)
    assert again.is_sound()
    assert again.to_do("mask", again.chunk_indices("mask")) == []
    assert store.objects.sizes(PATH) == before
    with pytest.raises(SettingsConflictError, match="mode: stored 'mean', asked 'max'"):
        claim(slide, mode="max")
    other = slide.create_raster_group(
        GRID, "stitched", ARRAYS, {**MADE_BY, "mode": "max"}, overwrite=True
    )
    assert not other.complete
    assert not chunks_of(store)


def test_what_is_to_do(store: Store, slide: SlideView, values: dict[str, npt.NDArray[Any]]) -> None:
    group = claim(slide)
    wanted = [(0, 0), (0, 1)]
    assert group.to_do("mask", wanted) == wanted
    group.write("mask", (0, 1), values["mask"][:1024, 1024:2048])
    assert group.to_do("mask", wanted) == [(0, 0)], "begun: what is absent may be empty or missing"
    fill(group, values)
    done = claim(slide)
    assert done.to_do("mask", wanted) == [], "complete: what is absent is empty"
    key = f"{PATH}/mask/c/0/1"
    store.objects.put(key, (store.objects.get(key) or b"")[:-5])
    assert not done.is_sound()
    assert done.to_do("mask", wanted) == [(0, 1)]
    assert done.to_do("mask", wanted, verify=False) == []
    store.objects.delete(key)
    assert not done.is_sound()
    assert done.to_do("mask", wanted) == wanted, "lost, or empty: nobody knows which"


def test_damage_is_found_and_never_read(
    store: Store, slide: SlideView, values: dict[str, npt.NDArray[Any]]
) -> None:
    fill(claim(slide), values)
    key = f"{PATH}/probability/c/1/1/2"
    data = store.objects.get(key) or b""
    store.objects.put(key, data[:20] + bytes([data[20] ^ 1]) + data[21:])
    assert [(v.code, v.path) for v in validate(store)] == [("damaged-block", key)]
    with pytest.raises(DamagedBlockError):
        slide.raster(GRID, "stitched").probability.load()

    store.objects.delete(key)
    assert [(v.code, v.path) for v in validate(store)] == [("missing-block", f"{PATH}/probability")]
    with pytest.raises(DamagedBlockError, match="has 2 of its 3 chunks"):
        slide.raster(GRID, "stitched")

    store.objects.put(f"{PATH}/mask/c/7/0", b"")
    assert ("leftover", f"{PATH}/mask/c/7/0") in {(v.code, v.path) for v in validate(store)}
    assert {item.key for item in leftovers(store, 0)} == {f"{PATH}/mask/c/7/0"}


def test_a_lost_array(store: Store, slide: SlideView, values: dict[str, npt.NDArray[Any]]) -> None:
    fill(claim(slide), values)
    store.objects.delete_group(f"{PATH}/mask")
    assert [(v.code, v.path) for v in validate(store)] == [("missing-array", f"{PATH}/mask")]
    with pytest.raises(DamagedMetadataError, match=r"mask/zarr\.json"):
        slide.raster(GRID, "stitched")
    assert not claim(slide).is_sound()


@pytest.mark.parametrize("chunks", [3, {"mask": -1}, {"mask": "1"}])
def test_a_garbled_count(
    store: Store, slide: SlideView, values: dict[str, npt.NDArray[Any]], chunks: object
) -> None:
    fill(claim(slide), values)
    key = f"{PATH}/zarr.json"
    node = json.loads(store.objects.get(key) or b"")
    ours = {**node["attributes"][names.ATTR], names.CHUNKS: chunks}
    node["attributes"][names.ATTR] = with_digest(ours)
    store.objects.put(key, json.dumps(node).encode())
    assert {v.code for v in validate(store)} == {"wrong-attribute"}
    with pytest.raises(DamagedMetadataError, match="chunks is"):
        slide.raster(GRID, "stitched")
    with pytest.raises(DamagedMetadataError, match="--overwrite"):
        claim(slide)


def test_whole_rasters_are_mended(
    store: Store, slide: SlideView, values: dict[str, npt.NDArray[Any]]
) -> None:
    arrays = {array: (spec, values[array]) for array, spec in ARRAYS.items()}
    slide.write_raster(GRID, "stitched", arrays, MADE_BY)
    intact = {key: store.objects.get(key) for key in store.objects.sizes(PATH)}
    store.objects.delete(f"{PATH}/probability/c/0/0/1")
    slide.write_raster(GRID, "stitched", arrays, MADE_BY)
    assert {key: store.objects.get(key) for key in store.objects.sizes(PATH)} == intact
    assert validate(store) == []


def test_a_mask_that_came_with_the_grid_is_no_one_elses_to_replace(store: Store) -> None:
    slide = store.add_slide(
        SlideRecord("s2", "/slides/s2.svs", "c0ffee", "aperio", 64, 64, 0.25, "properties")
    )
    nothing = np.zeros(0, np.int32)
    table = TileTable(nothing, nothing, nothing, nothing, np.zeros(0, np.float32))
    tissue = RasterSpec(("y", "x"), (8, 8), "uint8", 8.0), np.ones((8, 8), np.uint8)
    slide.create_grid(
        SPEC, GridGeometry(64, 64.0, 1, 1), table, {"grid": 1}, rasters={"tissue": tissue}
    )
    other = RasterSpec(("y", "x"), (1, 1), "uint8", 64.0)
    with pytest.raises(InvalidNameError, match=r"came with the grid .*: choose another name"):
        slide.create_raster_group(GRID, "tissue", {"mask": other}, MADE_BY, overwrite=True)
    with pytest.raises(InvalidNameError, match="choose another name"):
        slide.write_raster(
            GRID, "tissue", {"mask": (other, np.zeros((1, 1), np.uint8))}, MADE_BY, overwrite=True
        )
    assert validate(store) == []


def test_a_further_array_of_a_finished_group_is_written(
    store: Store, slide: SlideView, values: dict[str, npt.NDArray[Any]]
) -> None:
    more = RasterSpec(("y", "x"), SHAPE, "uint8", 4.0)
    group = claim(slide)
    fill(group, values)
    group.finish()
    slide.write_raster(GRID, "stitched", {"more": (more, np.ones(SHAPE, np.uint8))}, MADE_BY)
    found = slide.raster(GRID, "stitched")
    assert found["more"].values.all()
    assert set(found.data_vars) == {*values, "more"}
    assert validate(store) == []
