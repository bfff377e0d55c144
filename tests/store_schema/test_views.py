from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from store_schema.errors import DamagedBlockError, IncompleteError, InputError, NotInStoreError
from store_schema.slide_view import SlideView
from store_schema.storage import zarr_store
from store_schema.store import Store
from tests.store_schema.samples import (
    ARRAYS,
    DIM,
    GRID,
    MASK,
    MODEL,
    CountingObjects,
    add_features,
    add_slide,
    claim_features,
    flip_byte,
    table,
    values,
    write,
)


def test_dataset(store: Store) -> None:
    slide = add_slide(store)
    data = add_features(slide)
    ds = slide.tiles()
    assert dict(ds.sizes) == {"tile": 20, "feature": DIM}
    assert set(ds.coords) == {"x", "y", "row", "col"}
    assert set(ds.data_vars) == {"tissue", "features", "stain_method"}
    for name in ("features", "stain_method"):
        assert ds[name].dtype == data[name].dtype
        np.testing.assert_array_equal(ds[name].values, data[name])
    np.testing.assert_array_equal(ds.x.values, table(20).x)
    assert ds.x.attrs["units"] == "px"
    assert ds.stain_method.attrs["flag_meanings"] == "none macenko"
    assert ds.attrs["slide_id"] == "s1"
    assert ds.attrs["mpp"] == 0.5
    assert ds.attrs["slide_mpp"] == 0.25
    assert ds.attrs["tile_level0"] == 64
    assert ds.isel(tile=slice(3, 5)).attrs == ds.attrs


def test_a_block_is_a_dask_chunk(store: Store) -> None:
    slide = add_slide(store, n_tiles=20, block_tiles=8)
    add_features(slide)
    assert slide.tiles().features.chunks == ((8, 8, 4), (DIM,))


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(7, 9),
        slice(None, None, 3),
        slice(19, 2, -4),
        [0, 19, 3],
        11,
        slice(5, 5),
        np.arange(20) > 16,
    ],
)
def test_any_selection_along_tile(store: Store, key: Any) -> None:
    slide = add_slide(store)
    data = add_features(slide)
    ds = slide.tiles().isel(tile=key)
    np.testing.assert_array_equal(ds.features.values, data["features"][key])
    np.testing.assert_array_equal(ds.features[..., 2].values, data["features"][key][..., 2])


def test_views_pickle_and_compute_elsewhere(store: Store) -> None:
    slide = add_slide(store)
    data = add_features(slide)
    ds = pickle.loads(pickle.dumps(slide.tiles()))
    np.testing.assert_array_equal(ds.features.values, data["features"])
    assert ds.sel(x=64, y=0).row == 0


def test_choosing(store: Store) -> None:
    slide = add_slide(store)
    assert set(slide.tiles().data_vars) == {"tissue"}
    add_features(slide, "one")
    other = add_features(slide, "two", seed=1)
    with pytest.raises(InputError, match=r"more than one features group.*one, two"):
        slide.tiles()
    np.testing.assert_array_equal(slide.tiles(features="two").features.values, other["features"])
    assert set(slide.tiles(features=False).data_vars) == {"tissue"}
    with pytest.raises(NotInStoreError, match="did you mean two"):
        slide.tiles(features="twoo")
    with pytest.raises(NotInStoreError, match="no grid"):
        slide.tiles("64px_0.500mpp")


def test_scores_beside_features(store: Store) -> None:
    slide = add_slide(store)
    data = add_features(slide)
    run = slide.create_tile_group(
        GRID, "scores", "vae", {"score": ARRAYS["stain_method"], **ARRAYS}, MODEL
    )
    scored = values(20, seed=7)
    write(run, {"score": scored["stain_method"], **scored})
    ds = slide.tiles()
    assert set(ds.data_vars) == {
        "tissue",
        "features",
        "stain_method",
        "score",
        "vae_features",
        "vae_stain_method",
    }
    np.testing.assert_array_equal(ds.features.values, data["features"])
    np.testing.assert_array_equal(ds.vae_features.values, scored["features"])

    slide.create_tile_group(GRID, "scores", "later", {"score": ARRAYS["stain_method"]}, MODEL)
    assert set(slide.tiles().data_vars) == {"tissue", "features", "stain_method"}
    assert "score" in slide.tiles(scores="vae")
    assert 'scores="later"' in repr(slide)
    with pytest.raises(NotInStoreError, match="did you mean later"):
        slide.tiles(scores="latr")


def test_incomplete(store: Store) -> None:
    slide = add_slide(store)
    group = claim_features(slide)
    data = values(20)
    write(group, data, [1])
    with pytest.raises(
        IncompleteError, match=rf"s1/{GRID}/features/enc has 1/3 blocks.*allow_incomplete=True"
    ):
        slide.tiles()
    ds = slide.tiles(allow_incomplete=True)
    np.testing.assert_array_equal(ds.features[8:16].values, data["features"][8:16])
    assert np.isnan(ds.features[:8].values).all()
    assert np.isnan(ds.features[16:].values).all()
    assert (ds.stain_method[:8].values == 255).all()


def test_what_goes_missing_or_bad_later_raises_when_read(store: Store) -> None:
    slide = add_slide(store)
    group = claim_features(slide)
    write(group, values(20))
    ds = slide.tiles()
    flip_byte(store.objects, group.object_key("features", 2))
    store.objects.delete(group.object_key("features", 0))
    with pytest.raises(IncompleteError, match="block 0"):
        ds.features[:3].compute()
    with pytest.raises(DamagedBlockError, match=r"features/c/2/0 fails its checksum"):
        ds.features[17].compute()
    assert ds.features[8:16].compute().notnull().all()


def test_no_tiles(store: Store) -> None:
    slide = add_slide(store, n_tiles=0)
    claim_features(slide)
    ds = slide.tiles()
    assert ds.features.shape == (0, DIM)
    assert ds.features.values.shape == (0, DIM)
    assert ds.tiles.in_bbox(0, 0, 9, 9).sizes["tile"] == 0
    with pytest.raises(KeyError):
        ds.sel(x=0, y=0)
    with pytest.raises(KeyError):
        ds.sel(x=0, y=0, method="nearest")


def test_raster(store: Store) -> None:
    slide = add_slide(store)
    ds = slide.raster(GRID, "tissue")
    np.testing.assert_array_equal(ds.mask.values, MASK)
    np.testing.assert_array_equal(ds.x.values[:2], [8.0, 24.0])  # centres of pixels of 16 px
    with pytest.raises(NotInStoreError, match="did you mean tissue"):
        slide.raster(GRID, "tisue")


def test_guarded_zarr_through_plain_xarray(store: Store) -> None:
    slide = add_slide(store)
    group = claim_features(slide)
    data = values(20)
    write(group, data, [0, 2])
    flip_byte(store.objects, group.object_key("features", 2))
    ds = xr.open_zarr(zarr_store(store.objects), group=group.path, consolidated=False)
    np.testing.assert_array_equal(ds.features[:8].values, data["features"][:8])
    with pytest.raises(IncompleteError, match=f"block 1 of {group.path}/features"):
        ds.features[8:16].load()
    with pytest.raises(DamagedBlockError, match=group.object_key("features", 2)):
        ds.features[16:].load()
    array = zarr.open_array(
        zarr_store(store.objects, allow_missing=True), path=f"{group.path}/features", mode="r"
    )
    assert np.isnan(np.asarray(array[8:16])).all()


def test_requests(store: Store) -> None:
    """Opening reads metadata and coordinates only; a tile costs one object; a slide one object a block."""
    slide = add_slide(store)
    data = add_features(slide)
    counting = CountingObjects(store.objects, {})
    watched = SlideView(counting, "s1")
    ds = watched.tiles(GRID, features="enc", scores=False)
    opening = dict(counting.calls)
    assert opening.pop("sizes") == 1
    # metadata of slide, grid (held against that of the features, too) and features; x, y, row, col, tissue
    assert opening == {"get": 9}
    counting.calls.clear()
    np.testing.assert_array_equal(ds.sel(x=64, y=64).features.values, data["features"][8])
    assert counting.calls == {"read_into": 1}
    counting.calls.clear()
    _ = ds.features.values
    assert counting.calls == {"read_into": 3}
    counting.calls.clear()
    group = replace(watched.block_group(GRID, "features", "enc"))
    counting.calls.clear()
    assert group.done() == (3, 3)
    assert counting.calls == {"sizes": 1}
    counting.calls.clear()
    write(group, data, [0])
    assert counting.calls == {"put": 2}
