"""Stitching scores and maps of tiles to slide-sized arrays in the store."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.conftest import Timed
from benchmarks.stitch import MAP_PX, MPP, TILE_PX, make_store
from dataflow.stitch import Stitched
from dataflow.stitch_spec import Mode, StitchSpec
from dataflow.stitch_store import stitch_slide
from store_schema.store import open_store


@pytest.mark.parametrize(
    ("array", "mode"), [("score", "mean"), ("map", "mean"), ("map", "gaussian")]
)
def test_stitch(timed: Timed, full: bool, tmp_path: Path, array: str, mode: Mode) -> None:
    side_px = TILE_PX * (100 if full else 8)
    make_store(tmp_path / "s.zarr", side_px, TILE_PX)
    slide = open_store(tmp_path / "s.zarr", mode="r+")["generated"]
    grid = slide.grids[0]
    px_level0 = TILE_PX / MAP_PX
    stitched = Stitched.of(
        slide, grid, "scores", "generated", array, StitchSpec(mode, px_level0=px_level0)
    )
    runs = itertools.count()
    result = timed(
        lambda: stitch_slide(slide, stitched, f"run{next(runs)}"), (side_px // TILE_PX) ** 2
    )
    assert result.n_painted == result.n_chunks > 0
    raster = slide.raster(grid, "run0")[array].to_numpy()
    # without overlap each pixel is a tile's own
    tiles = slide.tiles(grid, scores="generated").isel(tile=slice(0, 5)).load()
    for i in range(5):
        x, y = (int(tiles[axis][i]) // int(px_level0) for axis in ("x", "y"))
        found = raster[y : y + MAP_PX, x : x + MAP_PX]
        np.testing.assert_allclose(found, np.broadcast_to(tiles[array][i], found.shape), rtol=1e-6)
    assert tiles.attrs["slide_mpp"] == MPP
