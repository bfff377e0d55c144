"""The ladder, on slides small enough to count by hand and on drawn ones."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from jobs.calibration.morphology import MorphologySpec
from jobs.evaluation.burden import NO_TUMOUR, STRATA, burden_of, stratum_of
from jobs.evaluation.ladder import (
    Ladder,
    LadderSettings,
    LadderSlide,
    LadderStep,
    ladder,
)
from jobs.evaluation.ladder_table import ladder_notes, ladder_rows, ladder_table
from models.overlap import Overlap
from store_schema.errors import InputError


def slide(slide_id: str, raw: npt.ArrayLike, truth: npt.ArrayLike) -> LadderSlide:
    """A slide from two lattices (row, col) full of tiles."""
    values, marks = np.asarray(raw, np.float32), np.asarray(truth, bool)
    row, col = (index.ravel() for index in np.indices(values.shape))
    shape = values.shape[0], values.shape[1]
    return LadderSlide(slide_id, values.ravel(), marks.ravel(), row, col, shape)


def drawn(seed: int, share: float, baseline: float, n: int = 16) -> LadderSlide:
    """A slide with a square tumour, a baseline of its own, and noise."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((n, n), bool)
    side = round(n * np.sqrt(share))
    truth[2 : 2 + side, 3 : 3 + side] = True
    return slide(f"s{seed}", baseline + rng.normal(size=(n, n)) + 2.5 * truth, truth)


def step(found: Ladder, name: str) -> LadderStep:
    return next(each for each in found.steps if each.name == name)


def test_counted_by_hand() -> None:
    # three tiles of tumour and a single one that looks like it; b has a baseline of 10
    scores = np.array([[0, 0, 0, 4, 4], [4, 0, 0, 4, 0]])
    truth = [[0, 0, 0, 1, 1], [0, 0, 0, 1, 0]]
    a, b = slide("a", scores, truth), slide("b", scores + 10, truth)
    found = ladder([a], [b], LadderSettings(morphology=MorphologySpec(min_tiles=2), oracle=True))
    assert [each.name for each in found.steps] == [
        "every-tile", "global", "zscore", "iou", "morphology", "oracle",
    ]  # fmt: skip
    of_all = {each.name: each.groups[0].overlap for each in found.steps}
    assert of_all["every-tile"] == Overlap(3, 7, 0, 0)
    assert step(found, "global").threshold == 2.0  # halfway between 0 and 4
    assert of_all["global"] == Overlap(3, 7, 0, 0)  # all of b lies above
    assert of_all["zscore"] == of_all["iou"] == Overlap(3, 1, 0, 6)
    assert of_all["morphology"] == Overlap(3, 0, 0, 7)  # the single tile is gone
    assert of_all["oracle"] == Overlap(3, 0, 0, 7)
    assert [each.upper_bound for each in found.steps] == [False] * 5 + [True]
    assert step(found, "oracle").threshold is None
    assert (found.fit_slides, found.judged_slides) == (("a",), ("b",))
    assert found.judged_twice == ()
    assert found.burden == {"b": 0.3}


def test_slides_without_tumour_count_as_false_positives_and_not_in_the_mean() -> None:
    a = slide("a", [[0, 0, 0, 9]], [[0, 0, 0, 1]])
    n = slide("n", [[0, 0, 9, 9]], [[0, 0, 0, 0]])
    found = ladder([a], [a, n], LadderSettings(morphology=MorphologySpec(min_tiles=1)))
    groups = {each.group: each for each in step(found, "global").groups}
    assert set(groups) == {"all", NO_TUMOUR, STRATA[2]}
    assert groups["all"].mean_iou == 1.0
    assert groups["all"].overlap == Overlap(1, 2, 0, 5)
    assert groups["all"].overlap.iou == pytest.approx(1 / 3)
    assert groups[NO_TUMOUR].mean_iou is None
    assert groups[NO_TUMOUR].overlap.fp == 2
    assert found.judged_twice == ("a",)
    assert any("1 of the judged slides chose the thresholds, too" in n for n in ladder_notes(found))


def test_limits_of_the_strata() -> None:
    tiles = np.zeros(1000, bool)
    for n_positive, stratum in (
        (0, NO_TUMOUR), (1, STRATA[0]), (4, STRATA[0]), (5, STRATA[1]), (20, STRATA[1]), (21, STRATA[2]),
    ):  # fmt: skip
        tiles[:] = False
        tiles[:n_positive] = True
        assert stratum_of(burden_of(tiles)) == stratum
    assert burden_of(np.empty(0, bool)) == 0.0


seeds = st.lists(st.integers(0, 500), min_size=1, max_size=3, unique=True)


@settings(max_examples=40, deadline=None)
@given(seeds, seeds, st.sampled_from(["mean-std", "median-mad"]))
def test_what_holds_of_every_ladder(fit: list[int], judged: list[int], zscore: str) -> None:
    how = LadderSettings(zscore="mean-std" if zscore == "mean-std" else "median-mad", oracle=True)
    found = ladder(
        [drawn(seed, 0.15, seed / 50) for seed in fit],
        [drawn(seed + 1000, (seed % 3) * 0.05, seed / 50) for seed in judged],
        how,
    )
    assert step(found, "zscore").slides == step(found, "iou").slides  # F1 and IoU agree
    for each in found.steps:
        whole, *strata = each.groups
        assert sum(group.n_slides for group in strata) == whole.n_slides == len(judged)
        total = Overlap(0, 0, 0, 0)
        for group in strata:
            total += group.overlap
        assert total == whole.overlap
        assert whole.overlap.tp + whole.overlap.fn == step(found, "global").groups[0].overlap.tp + (
            step(found, "global").groups[0].overlap.fn
        )
        for slide_id, counts in each.slides.items():
            bound = step(found, "oracle").slides[slide_id].iou
            if counts.tp and each.name == "morphology":
                assert counts.iou is not None
                assert bound is not None
                assert bound >= counts.iou


def test_the_baseline_of_a_slide_costs_a_global_threshold_most() -> None:
    fit = [drawn(seed, 0.15, baseline) for seed, baseline in enumerate([0, 4, 8, 12])]
    judged = [drawn(seed, 0.15, baseline) for seed, baseline in enumerate([1, 5, 9, 13], start=50)]
    found = ladder(fit, judged)
    means = {each.name: each.groups[0].mean_iou or 0.0 for each in found.steps}
    assert means["global"] < 0.3
    assert means["zscore"] > 0.5
    assert means["morphology"] > means["iou"] + 0.1


def test_nothing_to_choose_by_or_to_judge() -> None:
    a = slide("a", [[0, 1]], [[0, 1]])
    n = slide("n", [[0, 1]], [[0, 0]])
    with pytest.raises(InputError, match="none of the 1 slides that choose"):
        ladder([n], [a])
    with pytest.raises(InputError, match="no slide with scores and truth to judge"):
        ladder([a], [])


def test_tiles_without_a_score_are_missed_and_counted() -> None:
    a = slide("a", [[0, 0, 9]], [[0, 0, 1]])
    b = slide("b", [[np.nan, 0, 9]], [[1, 0, 1]])
    found = ladder([a], [b], LadderSettings(morphology=MorphologySpec(min_tiles=1)))
    assert step(found, "global").groups[0].overlap == Overlap(1, 0, 1, 1)
    assert found.n_without_score == 1
    assert any("1 judged tile has no score" in note for note in ladder_notes(found))


def test_as_rows_and_as_a_table() -> None:
    found = ladder(
        [drawn(1, 0.15, 0)], [drawn(2, 0.15, 0), drawn(3, 0.0, 0)], LadderSettings(oracle=True)
    )
    rows = list(ladder_rows(found))
    assert len(rows) == 6 * 3
    assert {row["burden"] for row in rows} == {"all", NO_TUMOUR, STRATA[2]}
    morphology = next(row for row in rows if (row["step"], row["burden"]) == ("morphology", "all"))
    counts = step(found, "morphology").groups[0].overlap
    assert (morphology["fp"], morphology["pooled_iou"]) == (counts.fp, counts.iou)
    out = io.StringIO()
    Console(file=out, width=200).print(ladder_table(found))
    text = out.getvalue()
    assert "(upper bound)" in text
    assert text.count("no tumour") == 6
    assert any("no method" in note for note in ladder_notes(found))
