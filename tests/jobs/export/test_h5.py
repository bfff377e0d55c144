"""Features for CLAM and TRIDENT: what their readers ask for, and the way back by ``import h5``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from jobs.h5_features import H5Features
from jobs.h5_grid import lay_imported
from store_schema.store import Store, open_store
from store_schema.validate import validate

GRID = "64px_0.500mpp"


def export(slidestream: Callable[..., Any], url: Path, out: Path, *args: object) -> Any:
    return slidestream("export", "h5", "--store", url, "--features", "enc", "--out", out, *args)


def test_layout(
    exportable: Store, url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    assert export(slidestream, url, tmp_path).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5", "c.h5"]
    ds = exportable["a"].tiles(GRID, features="enc", scores=False).load()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["features"].dtype == np.float32  # CLAM's layers are
        np.testing.assert_array_equal(file["features"], ds.features)
        assert file["coords"].dtype == np.int64
        np.testing.assert_array_equal(file["coords"], np.stack([ds.x, ds.y], axis=1))
        said = dict(file["coords"].attrs)
        assert file["features"].attrs["encoder"] == "enc"
    assert said.pop("level0_magnification") == pytest.approx(10 / 0.2431)
    assert said.pop("stride_level0") == pytest.approx(64 * 0.5 / 0.2431)
    assert said == {
        "grid": GRID,
        "level0_mpp": 0.2431,
        "target_mpp": 0.5,
        "patch_size": 64,
        "patch_size_level0": 132,
        "overlap": 0,
        "target_magnification": 20,
        "level0_width": 1300,
        "level0_height": 900,
        "name": "a",
    }


def test_round_trip(
    exportable: Store, url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    out = tmp_path / "h5_files"
    assert export(slidestream, url, out, "--dtype", "stored").code == 0
    back = tmp_path / "back.zarr"
    answer = slidestream("import", "h5", out, "--store", back)
    assert answer.code == 0, answer.err
    assert "share a place" not in answer.out
    store = open_store(str(back))
    assert list(validate(store)) == []
    for slide_id in store.slides:
        (grid,) = store[slide_id].grids
        ours = exportable[slide_id].tiles(GRID, features="enc", scores=False).load()
        theirs = store[slide_id].tiles(grid, features="enc", scores=False).load()
        assert theirs.features.dtype == np.float16
        ours, theirs = (
            dataset.isel(tile=np.lexsort((dataset.x, dataset.y))) for dataset in (ours, theirs)
        )
        for name in ("x", "y", "row", "col", "features"):
            np.testing.assert_array_equal(theirs[name], ours[name])
        before, after = (s[slide_id].record for s in (exportable, store))
        assert (after.width, after.height) == (before.width, before.height)
        assert after.mpp == before.mpp
        spec = store[slide_id].grid_attrs(grid)["spec"]
        assert (spec["tile_px"], spec["stride_px"], spec["mpp"]) == (64, 64, 0.5)
        assert grid == GRID
    again = slidestream("import", "h5", out, "--store", back)
    assert "0 blocks written" in again.out


def shuffled_file(path: Path, *, keep_attrs: bool, tiles: slice = slice(None)) -> None:
    """Let another tool go over a file: tiles in another order, perhaps not all, and what is said of them or nothing."""
    with h5py.File(path, "r+") as file:
        order = np.random.default_rng(0).permutation(len(file["coords"]))[tiles]
        said = dict(file["coords"].attrs)
        features, coords = file["features"][()][order], file["coords"][()][order]
        del file["features"], file["coords"]
        file["features"], file["coords"] = features, coords
        if keep_attrs:
            file["coords"].attrs.update(said)


@pytest.mark.parametrize("keep_attrs", [True, False])
def test_back_beside_the_tiles(
    exportable: Store,
    url: Path,
    tmp_path: Path,
    slidestream: Callable[..., Any],
    keep_attrs: bool,
) -> None:
    """Into the store that they are from, as CLAM's refined features would come: no second grid."""
    copy, out = tmp_path / "copy.zarr", tmp_path / "h5_files"
    shutil.copytree(url, copy)
    assert export(slidestream, url, out, "--dtype", "stored").code == 0
    for path in out.iterdir():
        shuffled_file(path, keep_attrs=keep_attrs)
    args = ("import", "h5", out, "--store", copy)
    answer = slidestream(*args, "--features", "refined")
    assert answer.code == 0, answer.err + answer.out
    assert "3 slides had a grid of the same tiles" in answer.out
    store = open_store(str(copy))
    assert list(validate(store)) == []
    for slide_id in "abc":
        slide = store[slide_id]
        assert slide.grids == exportable[slide_id].grids == [GRID]
        ours, theirs = (
            slide.tiles(GRID, features=name, scores=False) for name in ("enc", "refined")
        )
        assert theirs.features.dtype == np.float16
        np.testing.assert_array_equal(theirs.features.values, ours.features.values)
    again = slidestream(*args, "--features", "refined").out
    assert "0 blocks written" in again
    assert "3 slides were already there" in again
    assert "a grid of the same tiles" not in again
    # under the name that is taken
    taken = slidestream(*args, "--features", "enc")
    assert taken.code == 1
    assert "grid none" not in taken.out
    assert (
        f"the grid {GRID} has other features enc: give them another name with --features"
        in taken.out
    )


def test_tiles_that_are_no_grid_of_the_store(
    url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    copy, out = tmp_path / "copy.zarr", tmp_path / "h5_files"
    shutil.copytree(url, copy)
    assert export(slidestream, url, out, "--slides", "a").code == 0
    shuffled_file(out / "a.h5", keep_attrs=True, tiles=slice(5, None))
    args = ("import", "h5", out, "--store", copy, "--features", "refined")
    for more in ((), ("--slide-mpp", 0.5), ("--grid-name", "other")):
        answer = slidestream(*args, *more)
        assert answer.code == 1
        assert f"other tiles than the grid that {copy} has of this slide ({GRID})" in answer.out
        assert "give --slides with the slide's file" in answer.out
        assert "--grid-name" in answer.out
    assert open_store(str(copy))["a"].grids == [GRID]


def test_fractional_strides_do_not_drift() -> None:
    stride = 64 * 0.5 / 0.2431
    x = np.rint(np.arange(400) * stride).astype(np.int64)
    said = {"patch_size": 64, "patch_size_level0": 132, "overlap": 0}
    coords = np.stack([x, np.zeros_like(x)], axis=1)
    features = np.zeros((400, 1), np.float32)
    ours = H5Features(Path("a.h5"), features, coords, {**said, "stride_level0": stride}, {})
    grid = lay_imported(ours)
    np.testing.assert_array_equal(np.sort(grid.table.col), np.arange(400))
    assert grid.geometry.stride_level0 == stride
    # what the other attributes say is a little too much
    assert lay_imported(H5Features(Path("a.h5"), features, coords, said, {})).geometry.n_cols < 400


def test_unfinished_features_are_not_exported(
    tmp_path: Path, exportable: Store, url: Path, slidestream: Callable[..., Any]
) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(url, copy)
    (copy / "b" / GRID / "features/enc/features/c/1/0").unlink()
    answer = export(slidestream, copy, tmp_path / "out")
    assert answer.code == 1
    assert "b: " in answer.err
    assert "2/3 blocks" in answer.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.h5", "c.h5"]
    wrong = slidestream("export", "h5", "--store", url, "--features", "encc", "--out", tmp_path)
    assert wrong.code == 1
    assert "did you mean enc?" in wrong.err


def test_a_disk_that_is_full(url: Path, tmp_path: Path) -> None:
    """In a process of its own: HDF5 would take it down at its end."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from jobs.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
        "sys.exit(main())\n"
    )
    call = ("export", "h5", "--store", url, "--features", "enc", "--out", tmp_path / "out")
    answer = subprocess.run(
        [sys.executable, "-c", code, *map(str, call)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1, answer.stderr
    assert "can't be written: [Errno 27]" in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    assert list((tmp_path / "out").iterdir()) == []
