from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from store_schema.store import Store

GRID = "64px_0.500mpp"


def test_what_pandas_reads(
    exportable: Store, url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    out = tmp_path / "deep" / "scores.csv"
    answer = slidestream(
        "export", "csv", "--store", url, "--score", "run", "--mask", "cal", "--out", out
    )
    assert answer.code == 0, answer.err
    assert answer.err == "note: without map, of 2 slides: not one number a tile\n"
    table = pd.read_csv(out, dtype={"slide_id": str})
    assert list(table.columns) == [
        "slide_id", "grid", "x", "y", "tile_level0", "row", "col", "tissue",
        "attention", "probability normal", "probability tumor", "stain_method", "mask cal",
    ]  # fmt: skip
    for slide_id in "ab":
        rows = table[table.slide_id == slide_id]
        ds = exportable[slide_id].tiles(GRID, features=False, scores="run").load()
        for name in ("x", "y", "row", "col"):
            np.testing.assert_array_equal(rows[name], ds[name])
        for name in ("tissue", "attention"):  # to the bit
            np.testing.assert_array_equal(rows[name].astype(np.float32), ds[name])
        tumor = rows["probability tumor"].astype(np.float32)
        np.testing.assert_array_equal(tumor, ds.probability[:, 1])
        mask = exportable[slide_id].raster(GRID, "cal")["mask"].values
        np.testing.assert_array_equal(rows["mask cal"], mask[ds.row.values, ds.col.values])
    assert set(table.tile_level0) == {132}
    assert set(table.slide_id) == {"a", "b"}


def test_slides_that_cannot_be_read_are_told_of(
    url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    out = tmp_path / "s.csv"
    args = ("export", "csv", "--store", url, "--out", out, "--score", "run/probability")
    answer = slidestream(*args, "--class", "tumor", "--slides", "c", "--slides", "b")
    assert answer.code == 1
    assert "c: slide c has no scores" in answer.err
    assert "1 of 2 slides" in answer.out
    table = pd.read_csv(out)
    assert set(table.slide_id) == {"b"}
    assert table.columns[-1] == "probability tumor"
    nothing = slidestream(*args, "--slides", "c", "--overwrite")
    assert nothing.code == 1
    assert "none of 1 slides" in nothing.err
    assert set(pd.read_csv(out).slide_id) == {"b"}  # as it was
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]
    assert "is there already" in slidestream(*args).err


def test_maps_are_no_columns_and_no_masks(
    url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    args = ("export", "csv", "--store", url, "--out", tmp_path / "s.csv", "--score")
    of_map = slidestream(*args, "run/map")
    assert of_map.code == 1
    assert of_map.err.count("\n") == 1
    assert "scores/run/map has a map a tile" in of_map.err
    assert "`slidestream stitch`" in of_map.err
    assert "--raster" in of_map.err
    as_mask = slidestream(*args, "run", "--mask", "map")
    assert as_mask.code == 1
    assert as_mask.err.count("masks/map is a map of score and no mask") == 1
    image = slidestream(
        "export", "ome-tiff", "--store", url, "--out", tmp_path / "t", "--score", "run/map"
    )
    assert image.code == 1
    assert image.err.count("failed: ") == 1
    assert "failed: 2 slides (a, b): scores/run/map has a map a tile" in image.err


def test_a_folder_is_no_file(url: Path, tmp_path: Path, slidestream: Callable[..., Any]) -> None:
    for out in (f"{tmp_path}/new/", tmp_path, f"{tmp_path}/"):
        answer = slidestream("export", "csv", "--store", url, "--score", "run", "--out", out)
        assert answer.code == 2
        assert "is a folder: name the file in it" in " ".join(answer.err.split())
    assert list(tmp_path.iterdir()) == []
