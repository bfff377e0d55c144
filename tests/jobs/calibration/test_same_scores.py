"""Masks and maps of scores that were made again since."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store_schema import names
from store_schema.specs import ArraySpec


def score_again(cohort: Any, slide_id: str) -> None:
    slide = cohort.store[slide_id]
    (grid,) = slide.grids
    provenance = {
        **slide.run_attrs(grid, names.SCORES, "vae")[names.PROVENANCE],
        "model": {"weights": "b"},
    }
    arrays = {"l1": ArraySpec(("tile",), (), "float32")}
    group = slide.create_tile_group(grid, "scores", "vae", arrays, provenance, overwrite=True)
    for block in range(group.n_blocks):
        group.write_block(block, {"l1": -cohort.raw[slide_id][group.block_slice(block)]})


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "--raster", "vae_l1"),
        ("evaluate", "--mask", "vae-calibrated"),
        ("export", "geojson", "--mask", "vae-calibrated", "--out"),
        ("export", "csv", "--mask", "vae-calibrated", "--out"),
    ],
)
def test_what_was_made_of_replaced_scores_is_not_shown_with_the_new(
    cohort: Any, slidestream: Callable[..., Any], tmp_path: Path, command: tuple[str, ...]
) -> None:
    store = ("--store", cohort.store.url, "--slides", "a")
    score = ("--score", "vae/l1")
    calibrate = ("calibrate", *store, *score, "--threshold", 1, "--run-dir", tmp_path / "run")
    assert slidestream(*calibrate).code == 0
    assert slidestream("stitch", *store, *score).code == 0
    more = (tmp_path / "out",) if command[0] == "export" else ("--truth", cohort.masks)
    call = (*command, *more, *store)
    assert slidestream(*call, *score).code == 0
    score_again(cohort, "a")
    answer = slidestream(*call, *score, *(["--overwrite"] if command[0] == "export" else []))
    assert answer.code == 1
    assert "was made of other scores vae than those" in answer.err + answer.out
    # the old z-scores and their mask still belong together, and so does a mask by itself
    if "--mask" in command and command[0] == "evaluate":
        assert slidestream(*call, "--score", "vae-calibrated").code == 0
    # made again, they belong together again
    assert slidestream(*calibrate, "--overwrite").code == 0
    assert slidestream("stitch", *store, *score, "--overwrite").code == 0
    answer = slidestream(*call, *score, *(["--overwrite"] if command[0] == "export" else []))
    assert answer.code == 0, answer.err


def test_scores_of_two_models_are_not_pooled(
    cohort: Any, slidestream: Callable[..., Any], tmp_path: Path
) -> None:
    store = ("--store", cohort.store.url)
    calibrate = ("calibrate", *store, "--threshold", 1)
    assert slidestream(*calibrate, "--score", "vae/l1", "--run-dir", tmp_path / "run").code == 0
    call = ("evaluate", *store, "--truth", cohort.masks)
    for run in ("vae/l1", "vae-calibrated"):
        assert slidestream(*call, "--score", run).code == 0
    # as an interrupted --overwrite leaves it
    more = ("--score", "vae/ssim", "--name", "vae-calibrated", "--slides", "b", "--overwrite")
    assert slidestream(*calibrate, *more, "--run-dir", tmp_path / "more").code == 0
    score_again(cohort, "t")
    for run, slide in (("vae/l1", "t"), ("vae-calibrated", "b")):
        answer = slidestream(*call, "--score", run)
        assert answer.code == 1
        assert f"of {slide} were made otherwise than those of a" in answer.err
        assert slidestream(*call, "--score", run, "--slides", slide).code == 0
