from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from dataflow.discover import SlideSource
from dataflow.index import index_slide
from dataflow.pyramid_tiff import write_pyramid
from dataflow.stream_spec import IndexSpec
from dataflow.tissue import TissueSpec
from jobs.h5_features import read_h5
from jobs.h5_grid import lay_imported, neighbour_distance
from jobs.import_h5 import ImportConfig, import_h5
from store_schema.specs import GridSpec
from store_schema.store import create_store, open_store
from store_schema.validate import validate

Coords = npt.NDArray[np.int64]
DIM = 6
TRIDENT = {
    "patch_size": 256,
    "patch_size_level0": 512,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "level0_width": 9000,
    "level0_height": 7000,
    "name": "slide",
    "savetodir": "/somewhere/else",
}


def lattice(n_cols: int, n_rows: int, stride: float, x0: int = 0, y0: int = 0) -> Coords:
    """Return corners row by row, int64 (tile, 2)."""
    col, row = np.meshgrid(np.arange(n_cols), np.arange(n_rows))
    places = np.rint(np.stack([col, row], axis=-1).reshape(-1, 2) * stride)
    corners: Coords = places.astype(np.int64) + np.array([x0, y0])
    return corners


def write_h5(
    path: Path,
    coords: Coords,
    *,
    attrs: dict[str, Any] | None = None,
    encoder: str | None = None,
    batch: bool = False,
    dtype: str = "float32",
    seed: int = 0,
) -> npt.NDArray[np.floating]:
    features = np.random.default_rng(seed).normal(size=(len(coords), DIM)).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = features[None] if batch else features
        file["coords"] = coords
        file["coords"].attrs.update(attrs or {})
        if encoder is not None:
            file["features"].attrs["encoder"] = encoder
    return features


def by_corner(
    coords: npt.NDArray[np.integer], features: npt.NDArray[Any]
) -> dict[tuple[int, int], list[float]]:
    return {(int(x), int(y)): f.tolist() for (x, y), f in zip(coords, features, strict=True)}


def test_files_of_trident(tmp_path: Path) -> None:
    coords = lattice(9, 7, 512)[3:]
    features = write_h5(
        tmp_path / "h5" / "s1.h5", coords, attrs=TRIDENT, encoder="uni_v1", dtype="float16"
    )
    url = str(tmp_path / "s.zarr")
    config = ImportConfig(str(tmp_path / "h5"), url, block_tiles=16)
    summary = import_h5(config)
    assert summary["ok"]
    assert summary["grids"] == ["256px_20x"]
    assert summary["features"] == ["uni_v1"]
    slide = open_store(url)["s1"]
    record = slide.record
    assert (record.width, record.height, record.objective_power) == (9000, 7000, 40)
    assert (record.mpp, record.mpp_source) == (0.25, "objective")
    assert record.source == str(tmp_path / "h5" / "s1.h5")
    attrs = slide.grid_attrs("256px_20x")
    assert attrs["geometry"] == {
        "tile_level0": 512, "stride_level0": 512.0, "n_rows": 7, "n_cols": 9,
    }  # fmt: skip
    assert (attrs["spec"]["tile_px"], attrs["spec"]["mpp"]) == (256, 0.5)
    said = attrs["provenance"]["imported"]["attributes"]
    assert said["overlap"] == 0
    assert "savetodir" not in said
    # read back by bags and by xarray: the same features at the same corners
    bag = open_store(url).bags()[0]
    tiles = slide.tiles()
    expected = by_corner(coords, features)
    assert by_corner(np.stack([bag.x, bag.y], axis=1), bag.load()) == expected
    assert tiles.features.dtype == np.float16
    corners = np.stack([tiles.x.values, tiles.y.values], axis=1)
    assert by_corner(corners, tiles.features.values) == expected
    np.testing.assert_array_equal(tiles.col.values * 512, tiles.x.values)
    np.testing.assert_array_equal(tiles.row.values * 512, tiles.y.values)
    assert not validate(url)
    # blocks are compact regions
    first = tiles.isel(tile=slice(0, 16))
    assert max(np.ptp(first.row.values), np.ptp(first.col.values)) < 6


def test_files_of_clam(tmp_path: Path) -> None:
    """One lattice a piece of tissue, no attributes at all, features with a batch dimension."""
    coords = np.concatenate([lattice(6, 5, 256, 1003, 77), lattice(4, 8, 256, 5112, 2130)])
    features = write_h5(tmp_path / "c" / "h5_files" / "s1.h5", coords, batch=True)
    url = str(tmp_path / "s.zarr")
    summary = import_h5(ImportConfig(str(tmp_path / "c"), url))
    assert summary["ok"]
    assert (summary["grids"], summary["features"]) == (["imported"], ["imported"])
    assert summary["notes"] == {"s1": ["tiles are taken to touch: 256 px of level 0 a side"]}
    slide = open_store(url)["s1"]
    assert (slide.record.mpp, slide.record.mpp_source) == (None, "unknown")
    assert (slide.record.width, slide.record.height) == (5112 + 4 * 256, 2130 + 8 * 256)
    assert slide.grid_attrs("imported")["spec"]["mpp"] is None
    bag = open_store(url).bags()[0]
    assert by_corner(np.stack([bag.x, bag.y], axis=1), bag.load()) == by_corner(coords, features)
    tiles = slide.tiles()
    assert np.abs(tiles.col.values * 256 - tiles.x.values).max() <= 128
    assert tiles.tiles.to_grid("features").sizes["row"] == tiles.attrs["n_rows"]
    assert not validate(url)


def test_again_writes_nothing_and_lost_blocks_alone(
    tmp_path: Path, store_digests: Callable[[Path], dict[str, str]]
) -> None:
    write_h5(tmp_path / "h5" / "s1.h5", lattice(8, 8, 256), attrs={"patch_size": 256})
    config = ImportConfig(str(tmp_path / "h5"), str(tmp_path / "s.zarr"), block_tiles=16)
    assert import_h5(config)["blocks"] == {"done": 4, "already_stored": 0}
    before = store_digests(tmp_path / "s.zarr")
    assert import_h5(config)["blocks"] == {"done": 0, "already_stored": 4}
    group = open_store(tmp_path / "s.zarr")["s1"].block_group("imported", "features", "imported")
    (tmp_path / "s.zarr" / group.object_key("features", 2)).unlink()
    assert import_h5(config)["blocks"] == {"done": 1, "already_stored": 3}
    assert store_digests(tmp_path / "s.zarr") == before


def test_another_encoder_and_another_order(tmp_path: Path) -> None:
    """Files of several encoders are of one slide and one grid, however they list the tiles."""
    coords = lattice(5, 4, 256)
    url = str(tmp_path / "s.zarr")
    shuffled = coords[np.random.default_rng(0).permutation(len(coords))]
    one = write_h5(tmp_path / "features_one" / "s1.h5", coords)
    two = write_h5(tmp_path / "features_two" / "s1.h5", shuffled, seed=1)
    for folder in ("features_one", "features_two"):
        assert import_h5(ImportConfig(str(tmp_path / folder), url))["ok"]
    store = open_store(url)
    for name, listed, features in (("one", coords, one), ("two", shuffled, two)):
        bag = store.bags(name)[0]
        corners = np.stack([bag.x, bag.y], axis=1)
        assert by_corner(corners, bag.load()) == by_corner(listed, features)
    # other features under the same name are a conflict, until it is said that they replace them
    write_h5(tmp_path / "features_one" / "s1.h5", coords, seed=2)
    config = ImportConfig(str(tmp_path / "features_one"), url)
    assert import_h5(config)["failures"][0]["reason"] == "settings-conflict"
    again = ImportConfig(str(tmp_path / "features_one"), url, overwrite=True)
    assert import_h5(again)["ok"]


def test_with_the_slides(tmp_path: Path) -> None:
    pixels = np.full((1100, 1300, 3), 200, np.uint8)
    pixels[256:512, :256] = 7
    (tmp_path / "slides").mkdir()
    write_pyramid(tmp_path / "slides" / "s1.tif", pixels, mpp=0.5, downsamples=(1, 2))
    coords = lattice(5, 4, 256)
    attrs = {"patch_size": 128, "patch_size_level0": 256, "target_magnification": 10}
    for slide_id in ("s1", "s2"):
        write_h5(tmp_path / "h5" / f"{slide_id}.h5", coords, attrs=attrs)
    url = str(tmp_path / "s.zarr")
    summary = import_h5(ImportConfig(str(tmp_path / "h5"), url, slides=(str(tmp_path / "slides"),)))
    assert summary["notes"]["s2"] == ["its slide was not found; the feature file stands for it"]
    slide = open_store(url)["s1"]
    assert (slide.record.width, slide.record.height, slide.record.mpp) == (1300, 1100, 0.5)
    assert slide.record.source == str(tmp_path / "slides" / "s1.tif")
    assert slide.grid_attrs("128px_10x")["spec"]["mpp"] == 1.0
    tile = slide.tiles().sel(x=0, y=256)
    shown = slide.tiles().isel(tile=[int(np.flatnonzero((slide.tiles().y.values == 256)
            & (slide.tiles().x.values == 0))[0])]).tiles.pixels().values  # fmt: skip
    assert tile.features.shape == (DIM,)
    assert shown.shape == (1, 128, 128, 3)
    assert np.abs(shown.astype(int) - 7).max() <= 2


@pytest.mark.parametrize("stride", [224.0, 213.33, 511.6])
def test_fractional_strides(stride: float) -> None:
    coords = lattice(60, 50, stride)
    gappy = coords[np.random.default_rng(0).random(len(coords)) < 0.6]
    found = neighbour_distance(gappy)
    assert found is not None
    assert abs(found - stride) < 0.02
    np.testing.assert_array_equal(np.floor(gappy / found + 0.5), np.rint(gappy / stride))


def test_what_files_say_of_overlap(tmp_path: Path) -> None:
    write_h5(tmp_path / "s.h5", lattice(3, 1, 256), attrs={**TRIDENT, "overlap": 128})
    grid = lay_imported(read_h5(tmp_path / "s.h5"))
    assert (grid.geometry.tile_level0, grid.geometry.stride_level0) == (512, 256.0)
    np.testing.assert_array_equal(np.sort(grid.table.col), [0, 1, 2])


def test_what_clams_files_of_patches_say(tmp_path: Path) -> None:
    attrs = {
        "patch_size": np.int64(256),
        "patch_level": 1,
        "downsample": np.array([4.0, 4.0]),
        "level_dim": np.array([2500, 1500]),
        "save_path": "/elsewhere",
        "name": b"s",
    }
    write_h5(tmp_path / "s.h5", lattice(3, 3, 1024), attrs=attrs)
    file = read_h5(tmp_path / "s.h5")
    assert (file.tile_px, file.tile_level0, file.size_level0) == (256, 1024, (10000, 6000))
    assert json.loads(json.dumps(file.coords_attrs)) == file.coords_attrs


def test_shared_places_are_counted(tmp_path: Path) -> None:
    coords = np.concatenate([lattice(4, 4, 256), [[10, 20]]])
    write_h5(tmp_path / "s.h5", coords, attrs={"patch_size": 256, "patch_level": 0})
    assert lay_imported(read_h5(tmp_path / "s.h5")).notes == (
        "1 tiles share a place of the lattice with another (corners are exact)",
    )


def broken_files(folder: Path) -> None:
    coords = lattice(4, 4, 256)
    features = np.zeros((16, DIM), np.float32)
    wrong: dict[str, dict[str, Any]] = {
        "no_coords": {"features": features},
        "no_features": {"coords": coords},
        "another_count": {"features": features[1:], "coords": coords},
        "empty": {"features": features[:0], "coords": coords[:0]},
        "flat": {"features": features[:, 0], "coords": coords},
        "integers": {"features": features.astype(int), "coords": coords},
        "three": {"features": features, "coords": np.zeros((16, 3), int)},
        "between": {"features": features, "coords": coords + 0.5},
        "negative": {"features": features, "coords": coords - 1},
        "nan": {"features": np.full_like(features, np.nan), "coords": coords},
        "single": {"features": features[:1], "coords": coords[:1]},
        "everywhere": {"features": features[:4], "coords": [[0, 0], [1, 0], [9**8, 0], [0, 9**8]]},
    }
    folder.mkdir()
    for name, datasets in wrong.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for key, values in datasets.items():
                file[key] = values
    (folder / "text.h5").write_text("not HDF5")
    write_h5(folder / "whole.h5", coords)
    cut = (folder / "whole.h5").read_bytes()
    (folder / "cut.h5").write_bytes(cut[: len(cut) // 2])
    (folder / " blank.h5").write_bytes(cut)
    (folder / "whole.hdf5").write_bytes(cut)
    write_h5(folder / "good.h5", coords)


def test_broken_files(tmp_path: Path, slidestream: Callable[..., Any]) -> None:
    broken_files(tmp_path / "h5")
    url = str(tmp_path / "s.zarr")
    answer = slidestream("import", "h5", tmp_path / "h5", "--store", url, "--json")
    assert answer.code == 1
    summary = json.loads(answer.out)
    failures = {f["slide_id"]: f for f in summary["failures"]}
    for slide_id, words in {
        "no_coords": "no dataset 'coords' (it has features)",
        "no_features": "no dataset 'features'",
        "another_count": "15 features and 16 coords",
        "empty": "no tiles",
        "flat": "must be floats (tile, feature)",
        "integers": "must be floats",
        "three": "must be numbers (tile, 2)",
        "between": "not whole numbers",
        "negative": "not whole numbers",
        "nan": "not finite at row 0",
        "single": "give --tile-level0",
        "everywhere": "must be those of a lattice",
        "text": "can't be read as HDF5",
        "cut": "can't be read as HDF5",
    }.items():
        assert failures[slide_id]["reason"] == "unreadable"
        assert words in failures[slide_id]["message"]
    assert failures[" blank"]["reason"] == "invalid-name"
    assert failures["whole"]["reason"] == "duplicate-id"
    assert open_store(url).slides == ["good"]
    assert not validate(url)


def test_the_command(tmp_path: Path, slidestream: Callable[..., Any]) -> None:
    write_h5(tmp_path / "h5" / "s1.h5", lattice(3, 3, 256))
    common = ("import", "h5", tmp_path / "h5", "--store", tmp_path / "s.zarr")
    answer = slidestream(*common, "--features", "uni", "--grid-name", "g", "--slide-mpp", 0.25)
    assert answer.code == 0
    assert "1 of 1 slides, 9 tiles" in answer.out
    assert "already there" not in answer.out
    again = slidestream(*common, "--features", "uni", "--grid-name", "g", "--slide-mpp", 0.25)
    assert "1 slide was already there" in again.out
    slide = open_store(tmp_path / "s.zarr")["s1"]
    assert (slide.record.mpp, slide.record.mpp_source) == (0.25, "user")
    assert list(slide.features("g")) == ["uni"]
    assert "tiles of 256 px at 0.25 µm/px" in answer.out
    answer = slidestream(*common, "--features", "uni", "--slide-mpp", 0.25)
    assert "grid 256px_64um" in answer.out
    answer = slidestream(*common, "--features", "a/b")
    assert answer.code == 1
    assert "has a path separator" in answer.err
    (tmp_path / "none").mkdir()
    answer = slidestream("import", "h5", tmp_path / "none", "--store", tmp_path / "t.zarr")
    assert answer.code == 1
    assert "holds no .h5 files" in answer.err
    answer = slidestream("import", "h5", tmp_path, "--store", tmp_path / "t.zarr")
    assert f"name one of the folders in it that do ({tmp_path / 'h5'})" in answer.err
    (tmp_path / "none" / "s1.pt").touch()
    answer = slidestream("import", "h5", tmp_path / "none", "--store", tmp_path / "t.zarr")
    assert ".pt files, which lack the coordinates" in answer.err
    assert not (tmp_path / "t.zarr").exists()


def test_attributes_that_are_no_sizes_are_not_believed(tmp_path: Path) -> None:
    strange: dict[str, dict[str, float]] = {
        "overlap": {"overlap": 1e308},
        "side": {"patch_size": 0.2, "patch_size_level0": 0.3},
        "power": {"level0_magnification": 1e-300},
        "width": {"level0_width": 1e300},
    }
    for name, attrs in strange.items():
        write_h5(tmp_path / "h5" / f"{name}.h5", lattice(3, 2, 512), attrs={**TRIDENT, **attrs})
    summary = import_h5(ImportConfig(str(tmp_path / "h5"), str(tmp_path / "s.zarr"), grid="g"))
    assert summary["ok"], summary["failures"]
    store = open_store(tmp_path / "s.zarr")
    assert store["power"].record.mpp is None
    assert store["width"].record.width == 3 * 512
    assert len(store["side"].tiles("g").tile) == 6


def test_tiles_outside_of_the_slide(tmp_path: Path) -> None:
    write_h5(
        tmp_path / "h5" / "far.h5", lattice(3, 2, 512), attrs={**TRIDENT, "level0_width": 1024}
    )
    write_h5(tmp_path / "h5" / "good.h5", lattice(3, 2, 512), attrs=TRIDENT)
    summary = import_h5(ImportConfig(str(tmp_path / "h5"), str(tmp_path / "s.zarr")))
    (failure,) = summary["failures"]
    assert failure["slide_id"] == "far"
    assert "x 1024, y 512, and the slide has 1024 x 7000 px" in failure["message"]
    assert open_store(tmp_path / "s.zarr").slides == ["good"]


def test_what_is_no_file_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "h5"
    write_h5(folder / "good.h5", lattice(3, 2, 512), attrs=TRIDENT)
    os.mkfifo(folder / "pipe.h5")  # opening it would wait for a writer
    (folder / "loop.h5").symlink_to("loop.h5")
    with h5py.File(folder / "vast.h5", "w") as file:
        file.create_dataset("features", shape=(2**50, 1024), dtype="f4", chunks=(1024, 1024))
        file["coords"] = lattice(3, 2, 512)
    summary = import_h5(ImportConfig(str(folder), str(tmp_path / "s.zarr")))
    said = {failure["slide_id"]: failure["message"] for failure in summary["failures"]}
    assert sorted(said) == ["loop", "pipe", "vast"]
    assert "is no file" in said["pipe"]
    assert "is no file" in said["loop"]
    assert "fits into memory" in said["vast"]


def test_an_import_killed_within_a_grid_is_finished(tmp_path: Path) -> None:
    write_h5(tmp_path / "h5" / "s1.h5", lattice(4, 3, 512), attrs=TRIDENT)
    config = ImportConfig(str(tmp_path / "h5"), str(tmp_path / "s.zarr"), grid="g")
    import_h5(config)
    for name in ("x", "y", "row", "col"):  # written after tissue, which is NaN here
        shutil.rmtree(tmp_path / "s.zarr" / "s1" / "g" / name)
    assert import_h5(config)["ok"]
    assert not validate(str(tmp_path / "s.zarr"))


def test_a_grid_that_was_laid_here_is_not_replaced(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "slides" / "s1.tif"
    path.parent.mkdir()
    write_pyramid(path, rng.integers(60, 250, (256, 256, 3), np.uint8), 0.5, downsamples=(1,))
    store = create_store(str(tmp_path / "s.zarr"))
    spec = GridSpec(tile_px=64, mpp=0.5, stride_px=64, tissue=TissueSpec("none").to_json())
    index = IndexSpec(spec, TissueSpec("none"), block_tiles=16)
    slide, _ = index_slide(store, index, SlideSource("s1", str(path)))
    attrs = {"patch_size": 64, "patch_size_level0": 64, "grid": spec.name}
    write_h5(tmp_path / "h5" / "s1.h5", lattice(4, 4, 64)[2:], attrs=attrs)
    config = ImportConfig(str(tmp_path / "h5"), store.url, slides=(str(path),))
    (failure,) = import_h5(config)["failures"]
    assert failure["reason"] == "settings-conflict"
    assert "give these a grid of their own with --grid-name" in failure["message"]
    assert import_h5(replace(config, grid="fewer"))["grids"] == ["fewer"]
    # all of its tiles are that grid, whatever made them
    features = write_h5(tmp_path / "h5" / "s1.h5", lattice(4, 4, 64))
    summary = import_h5(replace(config, slides=(), features="clam"))
    assert (summary["grids"], summary["beside_stored"]) == ([spec.name], 1)
    ds = slide.tiles(spec.name, features="clam")
    corners = np.stack([ds.x.values, ds.y.values], axis=1)
    assert by_corner(corners, ds.features.values) == by_corner(lattice(4, 4, 64), features)
    assert slide.grids == [spec.name, "fewer"]
