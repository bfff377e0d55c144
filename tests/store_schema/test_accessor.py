from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store_schema import pixel_source
from store_schema.errors import InputError
from store_schema.store import Store, create_store
from tests.store_schema.samples import DIM, N_COLS, add_features, add_slide

SEEN: list[dict[str, Any]] = []


def fake_tiles(
    source: str, x: npt.NDArray[np.int32], y: npt.NDArray[np.int32], **sizes: Any
) -> Any:
    """Stand in for a slide reader: a tile's pixels say where it is."""
    SEEN.append({"source": source, "n": len(x), **sizes})
    px = sizes["tile_px"]
    pixels = np.zeros((len(x), px, px, 3), np.uint8)
    pixels[..., 0] = (x // 64)[:, None, None]
    pixels[..., 1] = (y // 64)[:, None, None]
    return pixels


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def points(group: str, name: str) -> list[EntryPoint]:
        assert (group, name) == ("slidestream.pixel_source", "openslide")
        return [EntryPoint(name, f"{__name__}:fake_tiles", group)]

    monkeypatch.setattr(pixel_source, "entry_points", points)
    monkeypatch.setattr(EntryPoint, "load", lambda self: fake_tiles)
    SEEN.clear()


def test_box_touching_a_border_is_outside(store: Store) -> None:
    ds = add_slide(store).tiles()  # tiles of 64 px, 7 in a row
    assert ds.tiles.in_bbox(64, 0, 128, 64).col.values.tolist() == [1]
    assert ds.tiles.in_bbox(63, 0, 129, 1).col.values.tolist() == [0, 1, 2]
    assert ds.tiles.in_bbox(-100, -100, 0, 0).sizes["tile"] == 0
    assert ds.tiles.in_bbox(-1e9, -1e9, 1e9, 1e9).identical(ds)
    for box in ((0, 0, 0, 9), (9, 0, 0, 9)):
        with pytest.raises(InputError, match="is empty"):
            ds.tiles.in_bbox(*box)


def test_at(store: Store) -> None:
    ds = add_slide(store).tiles()
    assert ds.tiles.at(127.9, 64).row.values.tolist() == [1]
    assert ds.tiles.at(128, 63).col.values.tolist() == [2]
    assert ds.tiles.at(-1, 0).sizes["tile"] == 0


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(-50, 500)] * 4))
def test_box_against_every_tile(box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = (
        min(box[0], box[2]),
        min(box[1], box[3]),
        max(box[0], box[2]) + 1,
        max(box[1], box[3]) + 1,
    )
    ds = add_slide(create_store("memory://boxes.zarr")).tiles()
    places = list(zip(ds.x.values.tolist(), ds.y.values.tolist(), strict=True))
    wanted = [
        (x, y) for x, y in places if max(x0, x) < min(x1, x + 64) and max(y0, y) < min(y1, y + 64)
    ]
    picked = ds.tiles.in_bbox(x0, y0, x1, y1)
    assert list(zip(picked.x.values.tolist(), picked.y.values.tolist(), strict=True)) == wanted


def test_to_grid(store: Store) -> None:
    slide = add_slide(store)
    data = add_features(slide)
    ds = slide.tiles()
    tissue = ds.tiles.to_grid("tissue")
    assert tissue.dims == ("row", "col")
    assert tissue.shape == (3, N_COLS)
    assert int(tissue.isnull().sum()) == 1  # 21 places, 20 tiles
    np.testing.assert_array_equal(tissue.values.ravel()[:20], ds.tissue.values)
    np.testing.assert_array_equal(tissue.x.values, np.arange(N_COLS) * 64)
    np.testing.assert_array_equal(tissue.y.values, np.arange(3) * 64)
    features = ds.isel(tile=[16, 3]).tiles.to_grid("features")
    assert features.dims == ("row", "col", "feature")
    assert features.dtype == np.float16
    np.testing.assert_array_equal(features.values[2, 2], data["features"][16])
    np.testing.assert_array_equal(features.values[0, 3], data["features"][3])
    assert int(features.notnull().sum()) == 2 * DIM
    flags = ds.tiles.to_grid("stain_method")
    assert flags.dtype == np.float32
    assert flags.attrs["flag_values"] == [0, 1]
    with pytest.raises(InputError, match="there are tissue, features, stain_method"):
        ds.tiles.to_grid("score")


def test_pixels_are_read_when_computed(store: Store, reader: None) -> None:
    ds = add_slide(store).tiles()
    pixels = ds.tiles.pixels()
    assert pixels.dims == ("tile", "y", "x", "rgb")
    assert pixels.shape == (20, 32, 32, 3)
    assert SEEN == []
    assert pixels.dtype == np.uint8
    values = pixels.values
    np.testing.assert_array_equal(values[:, 5, 9, 0], ds.col.values)
    np.testing.assert_array_equal(values[:, 5, 9, 1], ds.row.values)
    np.testing.assert_array_equal(pixels.x_level0.values, ds.x.values)
    expected = {"tile_px": 32, "tile_level0": 64, "mpp": 0.5, "slide_mpp": 0.25}
    content = {"fingerprint": store["s1"].record.fingerprint}
    assert [{"source": "/slides/s1.svs", "n": 20, **expected, **content}] == SEEN


def test_pixels_of_some_tiles_from_a_moved_slide(store: Store, reader: None) -> None:
    ds = add_slide(store).tiles()
    pixels = ds.tiles.at(130, 70).tiles.pixels(source="/mnt/s1.svs")
    assert pixels.values[0, 0, 0].tolist() == [2, 1, 0]
    assert [(call["source"], call["n"]) for call in SEEN] == [("/mnt/s1.svs", 1)]


def test_pixels_of_a_large_grid_come_in_small_pieces(
    store: Store, reader: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from store_schema import accessor

    monkeypatch.setattr(accessor, "PIXEL_CHUNK_BYTES", 32 * 32 * 3 * 4)
    add_slide(store).tiles().tiles.pixels()[9].compute()
    assert [call["n"] for call in SEEN] == [4]


def test_no_reader(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_source, "entry_points", lambda **kwargs: [])
    with pytest.raises(InputError, match="no pixel source 'openslide' is installed"):
        add_slide(store).tiles().tiles.pixels()


def test_lost_attributes_are_said(store: Store) -> None:
    ds = add_slide(store).tiles().drop_attrs()
    with pytest.raises(InputError, match="no attribute 'tile_level0'"):
        ds.tiles.at(0, 0)


def test_real_pixels(test_data: Path, tmp_path: Path) -> None:
    """A slide of 20x20 tiles of 96 px at level 0: the store's pixels are the file's."""
    import openslide

    from dataflow.slide_digest import slide_digest
    from store_schema.specs import GridGeometry, GridSpec, SlideRecord, TileTable

    path = sorted((test_data / "cohort").rglob("*.tif*"))[0]
    with openslide.OpenSlide(path) as slide_file:
        wanted = np.asarray(slide_file.read_region((96 * 3, 96 * 7), 0, (96, 96)).convert("RGB"))
        width, height = slide_file.dimensions
    slide = create_store(tmp_path / "c.zarr").add_slide(
        SlideRecord(
            "a", str(path), slide_digest(path), "generic-tiff", width, height, 0.972, "properties"
        )
    )
    x, y = np.array([96 * 3], np.int32), np.array([96 * 7], np.int32)
    table = TileTable(x, y, y // 96, x // 96, np.ones(1, np.float32))
    slide.create_grid(GridSpec(96, 0.972, 96), GridGeometry(96, 96.0, 20, 20), table, {})
    found = slide.tiles().tiles.pixels().values[0].astype(int)
    assert np.abs(found - wanted.astype(int)).max() <= 2  # two JPEG decoders may differ in rounding
