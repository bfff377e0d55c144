"""Drawn slides, against judging the same slides anew."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from jobs.evaluation.bootstrap import Bootstrap, overlap_measure
from jobs.evaluation.localization_intervals import (
    INTERVALS,
    CountedSlide,
    group_intervals,
    pixel_measure,
    tile_measure,
)
from jobs.evaluation.pixel_level import PixelCounts, pixel_metrics
from jobs.evaluation.score_counts import ScoreCounts, SlideCounts
from jobs.evaluation.score_histogram import ScoreHistogram
from jobs.evaluation.tile_level import SlideTiles, group_metrics, tile_metrics
from models.overlap import Overlap


def slide(rng: np.random.Generator, name: str, share: float) -> SlideTiles:
    """Make a slide of ties, scores that are missing, and maybe no tumour."""
    n = int(rng.integers(1, 30))
    truth = rng.random(n) < share
    score = np.round(rng.normal(size=n) + truth, 1).astype(np.float32)
    score[rng.random(n) < 0.1] = np.nan
    return SlideTiles(name, score, truth, score > 0.5)


def pixels(each: SlideTiles) -> PixelCounts:
    histogram = ScoreHistogram()
    histogram.add(each.score.astype(np.float16), each.truth)
    assert each.flagged is not None
    return PixelCounts(histogram, Overlap.of(each.flagged, each.truth))


def counted(each: SlideTiles) -> CountedSlide:
    return CountedSlide.of(each, tile_metrics(each.score, each.truth, each.flagged), pixels(each))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_a_draw_comes_to_what_its_slides_come_to(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    cohort = [slide(rng, f"s{i}", rng.choice([0.0, 0.4])) for i in range(n)]
    drawn = rng.integers(n, size=n)
    expected = group_metrics([cohort[i] for i in drawn])[0]
    kept = [counted(each) for each in cohort]
    found = tile_measure(kept)(drawn)
    names = ("iou", "dice", "precision", "recall", "auc_roc", "auc_pr")
    for name in names:
        assert found[f"mean_{name}"] == pytest.approx(getattr(expected, f"mean_{name}"))
        of = expected.pooled if name.startswith("auc") else expected.pooled.overlap
        assert found[f"pooled_{name}"] == pytest.approx(getattr(of, name))
    together = PixelCounts.none()
    for i in drawn:
        together.add(pixels(cohort[i]))
    judged, of_pixels = pixel_metrics(together), pixel_measure(kept)(drawn)
    for name in names:
        part = judged if name.startswith("auc") else judged.overlap
        assert of_pixels[f"pooled_pixel_{name}"] == pytest.approx(getattr(part, name))
    assert {*found, *of_pixels} == set(INTERVALS)


@pytest.mark.parametrize(
    ("shares", "close"), [((0.001, 0.0, 0.01), 1e-9), ((0.05, 0.0, 0.4), 1e-3)]
)
def test_binned_scores_have_nearly_the_same_areas(shares: tuple[float, ...], close: float) -> None:
    """Where positives are few, even the same: what lies between two of them needs no bins of its own."""
    rng = np.random.default_rng(0)
    truth = [rng.random(20_000) < share for share in shares]
    score = [rng.normal(size=t.size) + 3 * t for t in truth]
    counts = SlideCounts.of([ScoreCounts.of(s, t) for s, t in zip(score, truth, strict=True)])
    assert counts.counts.shape[2] <= 2048
    assert counts.counts.sum() == 60_000
    times = np.array([2, 1, 1])
    every_truth = np.concatenate([np.tile(t, k) for t, k in zip(truth, times, strict=True)])
    every_score = np.concatenate([np.tile(s, k) for s, k in zip(score, times, strict=True)])
    roc, pr = counts.areas(times)
    assert roc == pytest.approx(roc_auc_score(every_truth, every_score), abs=close)
    assert pr == pytest.approx(average_precision_score(every_truth, every_score), abs=close)


def test_patients_are_drawn_with_all_of_their_slides() -> None:
    """Of two patients all resamples are one of three mixtures, whatever the number of slides."""
    overlaps = [Overlap(1, 0, 1, 2)] * 6 + [Overlap(0, 1, 2, 1)] * 6
    ids = [f"s{i:02d}" for i in range(12)]
    patients = {slide_id: "p" if i < 6 else "q" for i, slide_id in enumerate(ids)}
    apart = Bootstrap(300).intervals(ids, overlap_measure(overlaps))["mean_recall"]
    whole = Bootstrap(300, patients=patients)
    together = whole.intervals(ids, overlap_measure(overlaps))["mean_recall"]
    assert (together.low, together.high) == (0.0, 0.5)
    assert apart.low is not None
    assert apart.high is not None
    assert 0 < apart.low < 0.25 < apart.high < 0.5
    assert whole.notes(ids) == [
        "95 % intervals by drawing 2 patients, 300 times",
        "intervals of 2 patients mean little: they are too narrow",
    ]
    assert whole.to_json(ids)["drawn"] == "patients"
    assert "--labels" in Bootstrap().notes(ids)[0]
    assert len(Bootstrap().notes(ids)) == 1  # twelve slides


def test_one_patient_has_no_interval() -> None:
    everyone = Bootstrap(10, patients={"a": "p", "b": "p"})
    assert everyone.intervals(["a", "b"], overlap_measure([Overlap(1, 0, 0, 1)] * 2)) == {}
    assert everyone.notes(["a", "b"])[0].startswith("there are no intervals")


def test_slides_without_tumour_alone_have_no_interval() -> None:
    rng = np.random.default_rng(0)
    kept = [counted(slide(rng, f"s{i}", 0.0)) for i in range(3)]
    assert group_intervals(kept, Bootstrap(10)) == {}
    undecided = [
        dataclasses.replace(each, metrics=dataclasses.replace(each.metrics, overlap=None))
        for each in [counted(slide(rng, f"s{i}", 0.5)) for i in range(3)]
    ]
    assert "pooled_iou" not in group_intervals(undecided, Bootstrap(10))
