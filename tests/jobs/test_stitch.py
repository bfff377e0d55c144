"""``slidestream stitch`` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.problem_lines import problem_lines
from store_schema import names
from store_schema.specs import (
    ArraySpec,
    GridGeometry,
    GridSpec,
    RasterSpec,
    SlideRecord,
    TileTable,
)
from store_schema.store import create_store, open_store

GRID = GridSpec(tile_px=32, mpp=0.5, stride_px=32, label="tiles")
N_COLS = 5


def add_slide(path: Path, slide_id: str, n_tiles: int = 20, mpp: float | None = 0.25) -> None:
    slide = create_store(path).add_slide(
        SlideRecord(slide_id, f"/{slide_id}.svs", slide_id, "none", 400, 300, mpp, "user")
    )
    row, col = np.divmod(np.arange(n_tiles, dtype=np.int32), N_COLS)
    table = TileTable(col * 64, row * 64, row, col, np.ones(n_tiles, np.float32))
    slide.create_grid(GRID, GridGeometry(64, 64.0, 4, N_COLS), table, {}, block_tiles=8)
    arrays = {
        "score": ArraySpec(("tile",), (), "float32"),
        "error_map": ArraySpec(("tile", "map_y", "map_x"), (4, 4), "float16"),
    }
    group = slide.create_tile_group(GRID.name, names.SCORES, "vae", arrays, {"model": 1})
    score = np.arange(n_tiles, dtype=np.float32)
    maps = np.repeat(score, 16).reshape(-1, 4, 4).astype(np.float16)
    for block in range(group.n_blocks):
        span = group.block_slice(block)
        group.write_block(block, {"score": score[span], "error_map": maps[span]})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for slide_id in ("a", "b"):
        add_slide(tmp_path / "s.zarr", slide_id)
    return tmp_path / "s.zarr"


def test_scalars_and_maps(store: Path, slidestream: Callable[..., Any]) -> None:
    answer = slidestream("stitch", "--store", store, "--score", "vae")
    assert answer.code == 0
    assert "masks/vae: 2 slides stitched" in answer.out
    ds = open_store(store)["b"].raster(GRID.name, "vae")
    np.testing.assert_array_equal(ds.score.values[:4, :5], np.arange(20).reshape(4, 5))
    assert ds.attrs["slidestream"][names.PX_LEVEL0] == 64.0

    answer = slidestream(
        "stitch", "--store", store, "--score", "vae/error_map", "--mpp", 4, "--json"
    )
    report = json.loads(answer.out)
    assert report["masks"] == "vae_error_map"
    assert report["stitched"]["a"]["raster"] == {
        "n_rows": 19, "n_cols": 25, "px_level0": 16.0, "samples": 1,
    }  # fmt: skip
    assert report["stitched"]["a"]["n_painted"] == 1

    again = slidestream("stitch", "--store", store, "--score", "vae")
    assert "0 slides stitched (0.0 MiB), 2 were there, 0 failed" in again.out


def test_on_a_cluster(store: Path, slidestream: Callable[..., Any], scheduler: str) -> None:
    args = ("stitch", "--store", store, "--score", "vae/error_map", "--mode", "gaussian", "--px", 7)
    assert slidestream(*args, "--name", "there", "--scheduler", scheduler).code == 0
    assert slidestream(*args, "--name", "here").code == 0
    slide = open_store(store)["a"]
    there, here = (slide.raster(GRID.name, name).error_map.values for name in ("there", "here"))
    np.testing.assert_array_equal(there, here)


def test_one_that_fails_does_not_stop_the_others(
    store: Path, slidestream: Callable[..., Any]
) -> None:
    add_slide(store, "c", mpp=None)
    (store / "a" / GRID.name / "scores/vae/score/c/1").unlink()
    answer = slidestream("stitch", "--store", store, "--score", "vae", "--mpp", 16)
    assert answer.code == 1
    assert "failed: a: a/tiles/scores/vae has 2/3 blocks" in answer.err
    assert "failed: c: the slide's pixel size isn't known: give --px" in answer.err
    assert "1 slides stitched" in answer.out
    assert not (store / "a" / GRID.name / "masks").exists()


def test_a_slide_without_tiles(tmp_path: Path, slidestream: Callable[..., Any]) -> None:
    add_slide(tmp_path / "s.zarr", "empty", n_tiles=0)
    answer = slidestream("stitch", "--store", tmp_path / "s.zarr", "--score", "vae")
    assert answer.code == 0
    ds = open_store(tmp_path / "s.zarr")["empty"].raster(GRID.name, "vae")
    assert ds.score.shape == (5, 7)
    assert np.isnan(ds.score.values).all()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--score", "vea"), "has no scores 'vea': did you mean vae"),
        (("--score", "vae/scores"), "has no array 'scores': did you mean score"),
        (("--score", "vae", "--slides", "z"), "has no slide 'z'"),
        (("--score", "vae", "--mpp", "4", "--px", "3"), "--mpp and --px say the same thing twice"),
        (("--score", "vae", "--px", "nan"), "--px"),
        (("--score", "vae", "--px", "0"), "--px"),
        (("--score", "vae", "--argmax"), "leave --argmax away"),
        (("--score", "vae", "--name", "a/b"), "name"),
        (("--score", "vae", "--grid", "other"), "on the grid 'other'"),
    ],
)
def test_what_is_refused(
    store: Path, slidestream: Callable[..., Any], args: tuple[str, ...], said: str
) -> None:
    answer = slidestream("stitch", "--store", store, *args)
    assert answer.code != 0
    assert said in answer.err
    assert not (store / "a" / GRID.name / "masks").exists()


def test_other_settings_need_overwrite(store: Path, slidestream: Callable[..., Any]) -> None:
    args = ("stitch", "--store", store, "--score", "vae")
    assert slidestream(*args).code == 0
    refused = slidestream(*args, "--mode", "max")
    assert refused.code == 1
    assert refused.err.splitlines() == [
        "failed: 2 slides (a, b): masks/vae was stitched with --mode mean and not with --mode max: pass --overwrite to "
        "replace it, or choose another --name"
    ]
    assert slidestream(*args, "--mode", "max", "--overwrite").code == 0


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (("--mpp", 8), ("--mpp", 4), "stitched with --mpp 8 and not with --mpp 4:"),
        (("--px", 7.5), ("--px", 64), "stitched with --px 7.5 and not with --px 64:"),
        ((), ("--mpp", 4), "stitched with --mpp 16 and not with --mpp 4:"),
        (
            ("--dtype", "float16"),
            ("--mode", "max"),
            "--mode mean, --dtype float16 and not with --mode max, --dtype float32:",
        ),
        (
            ("--mode", "vote"),
            ("--mode", "vote", "--vote-from", 7),
            "with --vote-from 0.5 and not with --vote-from 7.0:",
        ),
        (("--score", "vae/error_map"), (), "from scores/vae/error_map and not from scores/vae/sc"),
    ],
)
def test_what_differs_is_said_by_option(
    store: Path,
    slidestream: Callable[..., Any],
    before: tuple[object, ...],
    now: tuple[object, ...],
    said: str,
) -> None:
    args = ("stitch", "--store", store, "--score", "vae", "--name", "n")
    assert slidestream(*args, *before).code == 0
    refused = slidestream(*args, *now)
    assert refused.code == 1
    (line,) = refused.err.splitlines()
    assert said in line
    assert line.startswith("failed: 2 slides (a, b): masks/n was")


def test_names_of_other_commands_and_scores_that_have_changed(
    store: Path, slidestream: Callable[..., Any]
) -> None:
    spec = RasterSpec(("y", "x"), (3, 4), "uint8", 100.0)
    mask = np.ones((3, 4), np.uint8)
    slide = open_store(store, mode="r+")["a"]
    slide.write_raster(GRID.name, "hand", {"mask": (spec, mask)}, {"made": "by hand"})
    args = ("stitch", "--store", store, "--score", "vae", "--slides", "a")
    assert "is there and not of stitch" in slidestream(*args, "--name", "hand").err
    assert slidestream(*args, "--name", "n").code == 0
    arrays = {"score": ArraySpec(("tile",), (), "float32")}
    group = slide.create_tile_group(
        GRID.name, names.SCORES, "vae", arrays, {"model": 2}, overwrite=True
    )
    for block in range(group.n_blocks):
        span = group.block_slice(block)
        group.write_block(block, {"score": np.zeros(span.stop - span.start, np.float32)})
    changed = slidestream(*args, "--name", "n").err
    assert "was stitched before scores/vae/score, the grid or the slide changed" in changed


def test_problems_of_many_slides_stay_readable() -> None:
    alike = {f"s{n}": "no room" for n in range(1000)}
    assert problem_lines(alike) == ["failed: 1000 slides (s0, s1, s2 and 997 more): no room"]
    each = {f"s{n}": f"s{n} is damaged" for n in range(48)}
    lines = problem_lines(each)
    assert (len(lines), lines[0]) == (21, "failed: s0: s0 is damaged")
    assert lines[-1] == "… and 28 more (--json shows all)"
