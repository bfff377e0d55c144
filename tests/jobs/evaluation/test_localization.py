"""Tiles and pixels of a store's slides against their truth."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from jobs.evaluation.burden import stratum_of
from jobs.evaluation.localization import (
    Localization,
    LocalizationSettings,
    evaluate_localization,
)
from jobs.evaluation.localization_rows import group_rows, localization_json, slide_rows
from jobs.evaluation.pictures import telling_slides
from jobs.evaluation.result_tables import localization_notes
from jobs.evaluation.results import Evaluation
from jobs.evaluation.slide_truth import truth_of_slide
from jobs.evaluation.tile_level import SlideTiles, group_metrics, tile_metrics
from jobs.evaluation.truth import open_truth
from jobs.raster_reader import RasterChoice
from jobs.score_reader import ScoreChoice, read_score
from store_schema.specs import ArraySpec


def judge(cohort: Any, **changes: Any) -> Localization:
    settings = LocalizationSettings(
        **{"choice": ScoreChoice("run"), "truth": cohort.masks, **changes}
    )
    found = evaluate_localization(cohort.slides, settings)
    json.dumps(localization_json(found), allow_nan=False)
    return found


def test_tiles_against_masks(cohort: Any) -> None:
    found = judge(cohort)
    assert found.without_truth == ("c",)
    assert [each.slide_id for each in found.slides] == ["a", "b"]
    values = [cohort.scores[slide_id][:, 1] for slide_id in "ab"]
    truths = [cohort.truth[slide_id].ravel() for slide_id in "ab"]
    for each, score, truth in zip(found.slides, values, truths, strict=True):
        assert each.tiles.auc_roc == pytest.approx(roc_auc_score(truth, score))
        assert each.tiles.auc_pr == pytest.approx(average_precision_score(truth, score))
        assert each.tiles.n_positive == truth.sum()
        assert each.tiles.overlap is None
    every = found.groups[0]
    assert every.pooled.auc_roc == pytest.approx(
        roc_auc_score(np.concatenate(truths), np.concatenate(values))
    )
    assert every.mean_auc_roc == pytest.approx(
        np.mean([roc_auc_score(t, v) for t, v in zip(truths, values, strict=True)])
    )
    negative = judge(cohort, without_truth="negative")
    assert negative.without_truth == ()
    assert negative.slides[2].tiles.auc_roc is None  # all of one kind
    assert negative.slides[2].n_lesions == 0
    assert negative.groups[0].pooled.n_tiles == 3 * cohort.n_side**2
    assert [group.group for group in negative.groups] == ["all", "no tumour", "> 2 %"]
    of_class = judge(cohort, choice=ScoreChoice("run", "probability", "normal"))
    expected = roc_auc_score(truths[0], cohort.scores["a"][:, 0])
    assert of_class.slides[0].tiles.auc_roc == pytest.approx(expected)


def test_half_of_a_tile_is_not_more_than_half(cohort: Any) -> None:
    n = cohort.n_side
    half = np.zeros((2 * n, 2 * n), np.uint8)
    half[:, ::2] = 255  # the left half of each tile
    half[0, 1] = 255  # and three quarters of the first
    Image.fromarray(half).save(cohort.masks / "a.png")
    for positive_from, n_positive in ((0.5, 1), (0.49, n * n), (0.75, 0)):
        found = judge(cohort, positive_from=positive_from)
        assert found.slides[0].tiles.n_positive == n_positive


def test_a_threshold_flags_what_scores_more(cohort: Any) -> None:
    threshold = float(cohort.scores["a"][5, 1])  # a score of its own: not more than itself
    found = judge(cohort, threshold=threshold)
    for each in found.slides:
        flagged = cohort.scores[each.slide_id][:, 1] > np.float64(threshold)
        truth = cohort.truth[each.slide_id].ravel()
        counts = each.tiles.overlap
        assert counts is not None
        assert counts.tp == (flagged & truth).sum()
        assert counts.iou == pytest.approx((flagged & truth).sum() / (flagged | truth).sum())
    row = slide_rows(found)[0]
    assert row["precision"] == pytest.approx(row["tp"] / (row["tp"] + row["fp"]))
    together = found.groups[0].pooled.overlap
    assert together is not None
    assert together.tp == sum(r["tp"] for r in slide_rows(found)[:2])
    ious = [each.tiles.overlap.iou for each in found.slides if each.tiles.overlap is not None]
    assert found.groups[0].mean_iou == pytest.approx(np.mean([v for v in ious if v is not None]))


def test_a_mask_of_the_store_decides(cohort: Any) -> None:
    for slide_id in "abc":
        cohort.add_raster(slide_id, "m", cohort.truth[slide_id].astype(np.uint8), 64.0, "mask")
    found = judge(cohort, mask=RasterChoice("m", "mask"))
    for each in found.slides:
        assert each.tiles.overlap is not None
        assert each.tiles.overlap.iou == 1
    assert found.froc is not None
    assert found.froc.score == 1  # each region of the mask is in a lesion
    missing = judge(cohort, mask=RasterChoice("n", "mask"))
    assert "there are m" in missing.problems["a"]
    assert missing.slides == ()
    assert group_rows(missing) == []
    assert [row["status"] for row in slide_rows(missing)] == ["failed", "failed", "no truth"]


def test_a_mask_scores_no_pixels(cohort: Any) -> None:
    cohort.add_raster("a", "m", cohort.truth["a"].astype(np.uint8), 64.0, "mask")
    found = judge(cohort, raster=RasterChoice("m"))
    assert (
        "masks/m/mask is a mask, which scores nothing: name it with --mask" in found.problems["a"]
    )


def stitched(cohort: Any, slide_id: str, times: int) -> np.ndarray:
    """Return the attention of a slide with ``times`` pixels a tile, NaN where a tile is left out."""
    n = cohort.n_side
    values = cohort.scores[slide_id][:, 1].reshape(n, n).copy()
    values[0] = np.nan
    wide: np.ndarray = values.repeat(times, axis=0).repeat(times, axis=1)
    return wide


def test_pixels_of_a_stitched_map(cohort: Any) -> None:
    for slide_id in "ab":
        cohort.add_raster(slide_id, "map", stitched(cohort, slide_id, 4), 16.0)
    found = judge(cohort, raster=RasterChoice("map"), threshold=0.5)
    assert set(found.problems) == set()  # c has no truth, so that its map isn't asked for
    every_score, every_truth = [], []
    for each in found.slides:
        score = stitched(cohort, each.slide_id, 4)
        truth = cohort.truth[each.slide_id].repeat(4, axis=0).repeat(4, axis=1)
        known = np.isfinite(score)
        pixels = each.pixels
        assert pixels is not None
        assert pixels.n_pixels == score.size
        assert pixels.n_without_score == (~known).sum()
        assert pixels.n_positive == truth.sum()
        assert pixels.auc_roc is not None
        expected = roc_auc_score(truth[known], score[known])
        assert abs(pixels.auc_roc - expected) <= pixels.auc_resolution + 1e-12
        flagged = known & (score > 0.5)
        assert pixels.overlap is not None  # a positive pixel without a score is missed
        assert pixels.overlap.iou == pytest.approx(
            (flagged & truth).sum() / (flagged | truth).sum()
        )
        every_score.append(score[known])
        every_truth.append(truth[known])
    pooled = found.pixels["all"]
    expected = roc_auc_score(np.concatenate(every_truth), np.concatenate(every_score))
    assert pooled.auc_roc == pytest.approx(expected, abs=1e-3)
    assert set(found.pixels) == {"all", "> 2 %"}
    assert group_rows(found)[0]["pooled_pixel_auc_roc"] == pooled.auc_roc
    notes = localization_notes(Evaluation(localization=found))
    assert any("with the ground around them as lowest" in note for note in notes)


def test_pixels_are_decided_by_a_mask_of_another_scale(cohort: Any) -> None:
    large = stitched(cohort, "a", 160)  # of several stored chunks
    cohort.add_raster("a", "map", large, 0.4)
    cohort.add_raster("a", "m", cohort.truth["a"].astype(np.uint8), 64.0, "mask")
    settings = LocalizationSettings(
        ScoreChoice("run"), cohort.masks, mask=RasterChoice("m", "mask"), raster=RasterChoice("map")
    )
    found = evaluate_localization(cohort.slides[:1], settings)
    pixels = found.slides[0].pixels
    assert pixels is not None
    assert pixels.overlap is not None
    assert pixels.overlap.iou == 1
    assert pixels.overlap.tp == 160**2 * cohort.truth["a"].sum()
    assert pixels.n_without_score == np.isnan(large).sum()


def test_tiles_without_a_score() -> None:
    values = np.array([0.1, np.nan, 0.9, np.nan], np.float32)
    truth = np.array([False, True, True, False])
    found = tile_metrics(values, truth, values > 0.5)
    assert (found.n_tiles, found.n_positive, found.n_without_score) == (4, 2, 2)
    assert found.auc_roc == 1.0
    assert found.overlap is not None
    assert (found.overlap.tp, found.overlap.fn) == (1, 1)


def test_nan_is_told_and_nothing_but_nan_fails_its_slide(cohort: Any) -> None:
    n_tiles = cohort.n_side**2
    some = cohort.scores["a"][:, 1].copy()
    some[:3] = np.nan
    cohort.add_scores("a", "partly", some)
    cohort.add_scores("b", "partly", np.full(n_tiles, np.nan, np.float32))
    settings = LocalizationSettings(ScoreChoice("partly"), cohort.masks)
    found = evaluate_localization(cohort.slides[:2], settings)
    assert found.slides[0].notes == (f"3 of {n_tiles} tiles have no score",)
    assert found.slides[0].tiles.auc_roc == pytest.approx(
        roc_auc_score(cohort.truth["a"].ravel()[3:], some[3:])
    )
    assert "slide b have no finite number in 64 tiles" in found.problems["b"]


def test_a_truth_beside_the_tiles_is_told(cohort: Any, tmp_path: Any) -> None:
    """No size gives a shifted mask away; that nothing was scored there does."""
    wide = np.zeros((8, 16), np.uint8)
    wide[:, 9:] = wide[0, 0] = 255  # the slide is twice as wide as its grid
    record = dataclasses.replace(cohort.store["a"].record, width=2 * cohort.n_side * cohort.tile_px)
    slide: Any = SimpleNamespace(record=record)
    score = dataclasses.replace(read_score(cohort.store["a"], ScoreChoice("run")), slide=slide)
    folder = tmp_path / "wide"
    folder.mkdir()
    Image.fromarray(wide).save(folder / "a.png")
    found = truth_of_slide(open_truth(folder), score, 0.5)
    assert found is not None
    assert found.notes[0].startswith("only 2% of what is positive lies under tiles")
    wide[:, 1:8] = 255
    Image.fromarray(wide).save(folder / "a.png")
    found = truth_of_slide(open_truth(folder), score, 0.5)
    assert found is not None
    assert found.notes == ()


def test_labels_of_tiles_say_nothing_of_pixels_and_lesions(cohort: Any, tmp_path: Any) -> None:
    lines = ["slide_id,x,y,label"]
    for (row, col), positive in np.ndenumerate(cohort.truth["a"]):
        lines.append(f"a,{col * cohort.tile_px},{row * cohort.tile_px},{int(positive)}")
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines))
    cohort.add_raster("a", "map", stitched(cohort, "a", 2), 32.0)
    found = judge(cohort, truth=path, raster=RasterChoice("map"))
    assert found.without_truth == ("b", "c")
    by_masks = judge(cohort)
    assert found.slides[0].tiles == by_masks.slides[0].tiles
    assert (found.slides[0].pixels, found.slides[0].n_lesions, found.froc) == (None, None, None)
    assert "only its tiles are known" in found.slides[0].notes[0]


def test_a_slide_of_one_tile() -> None:
    one = SlideTiles("s", np.array([0.5]), np.array([True]), np.array([False]))
    (every, stratum) = group_metrics([one])
    assert (every.pooled.auc_roc, every.mean_auc_roc, every.mean_iou) == (None, None, 0.0)
    assert stratum.group == "> 2 %"


@pytest.mark.parametrize(
    ("burden", "stratum"),
    [
        (0, "no tumour"),
        (0.0049, "< 0.5 %"),
        (0.005, "0.5-2 %"),
        (0.02, "0.5-2 %"),
        (0.0201, "> 2 %"),
    ],
)
def test_strata(burden: float, stratum: str) -> None:
    assert stratum_of(burden) == stratum


def test_an_upper_bound_is_called_one(cohort: Any) -> None:
    from store_schema.specs import RasterSpec

    mask = cohort.truth["a"].astype(np.uint8)
    for name, bound in (("oracle", True), ("cal", False)):
        attrs = {"upper_bound": bound}
        spec = RasterSpec(("y", "x"), mask.shape, "uint8", 64.0, attrs=attrs)
        made_by = {"threshold": {"value": 1.0, "slides": ["a", "z"]}}
        cohort.store["a"].write_raster(cohort.grid, name, {"mask": (spec, mask)}, made_by)
    settings = LocalizationSettings(
        ScoreChoice("run"), cohort.masks, mask=RasterChoice("oracle", "mask")
    )
    found = evaluate_localization(cohort.slides[:1], settings)
    assert found.upper_bound
    assert localization_notes(Evaluation(localization=found))[0].startswith("UPPER BOUND")
    settings = LocalizationSettings(
        ScoreChoice("run"), cohort.masks, mask=RasterChoice("cal", "mask")
    )
    found = evaluate_localization(cohort.slides[:1], settings)
    assert not found.upper_bound
    assert slide_rows(found)[0]["chose_threshold"]
    notes = localization_notes(Evaluation(localization=found))
    assert notes[0].startswith("1 of the judged slides chose the threshold")


def test_slides_that_trained_the_model_are_told(cohort: Any) -> None:
    for slide_id, part in (("a", "train"), ("b", "")):
        spec = {"score": ArraySpec(("tile",), (), "float32")}
        group = cohort.store[slide_id].create_tile_group(
            cohort.grid, "scores", "vae", spec, {"made": "up"}, extra={"model_split": part}
        )
        for block in range(group.n_blocks):
            values = cohort.scores[slide_id][:, 1]
            group.write_block(block, {"score": values[group.block_slice(block)]})
    settings = LocalizationSettings(ScoreChoice("vae"), cohort.masks)
    found = evaluate_localization(cohort.slides[:2], settings)
    assert [row["model_split"] for row in slide_rows(found)] == ["train", ""]
    notes = localization_notes(Evaluation(localization=found))
    assert "1 of the judged slides trained the model (a): its scores are not out of sample" in notes
    of_mil = localization_notes(Evaluation(localization=judge(cohort)))  # whose split is test
    assert not any("out of sample" in note for note in of_mil)


def test_which_slides_are_shown(cohort: Any) -> None:
    titles = [title for title, _ in telling_slides(judge(cohort))]
    assert [title.split(":")[0] for title in titles] == ["best", "worst"]
    truth = cohort.masks / "c.png"
    Image.fromarray((cohort.truth["c"] * 255).astype(np.uint8)).save(truth)
    found = judge(cohort, threshold=0.5)
    shown = telling_slides(found)
    assert [title.split(":")[0] for title, _ in shown] == ["best", "median", "worst"]
    assert {slide_id for _, slide_id in shown} == set("abc")
    values = [float(title.rpartition(" ")[2]) for title, _ in shown]
    assert values == sorted(values, reverse=True)
    Image.new("L", (8, 8)).save(truth)  # nothing positive
    assert {slide_id for _, slide_id in telling_slides(judge(cohort, threshold=0.5))} == set("ab")
