"""Lesions, detections and the curve, by hand-made slides and a plain reading of the definition."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.evaluation.bootstrap import Bootstrap
from jobs.evaluation.detections import SHUFFLES, Detections, SlideDetections, detect
from jobs.evaluation.froc import RATES, SCORE, Froc, froc, froc_with_chance
from jobs.evaluation.lesions import ISOLATED, Lesions, find_lesions
from jobs.evaluation.tile_truth import TruthMask
from jobs.plots import draw_froc, new_figure
from store_schema.specs import TileTable

TILE = 100


def truth(*boxes: tuple[int, int, int, int], side: int = 300) -> TruthMask:
    """Return a mask of 10 px pixels with boxes (x0, y0, x1, y1) in level-0 px."""
    mask = np.zeros((side, side), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0 // 10 : y1 // 10, x0 // 10 : x1 // 10] = True
    return TruthMask(mask, (10.0, 10.0))


def labels_at(lesions: Lesions, *points: tuple[float, float]) -> list[int]:
    x, y = np.array(points, float).T
    return list(map(int, lesions.at(x, y)))


def test_regions_that_lie_close_are_one_lesion() -> None:
    """At 1 µm/px: 60 µm apart are joined, 80 µm apart are not; what is enclosed belongs to it."""
    ring = [(1000, 1000, 2000, 1100), (1000, 1900, 2000, 2000), (1000, 1000, 1100, 2000)]
    ring += [(1900, 1000, 2000, 2000)]
    found = find_lesions(truth((0, 0, 400, 400), (460, 0, 800, 400), (880, 0, 1300, 400), *ring), 1)
    assert (found.n_lesions, found.n_isolated) == (3, 0)
    first, joined, apart, inner, outside = labels_at(
        found, (5, 5), (600, 200), (1000, 200), (1500, 1500), (1500, 2500)
    )
    assert first == joined
    assert len({first, apart, inner}) == 3
    assert outside == 0
    assert labels_at(found, (435, 200), (-50, 5), (1e6, 1e6)) == [first, 0, 0]


def test_isolated_tumour_cells_are_no_lesions() -> None:
    small, long = (0, 0, 150, 150), (1000, 0, 1300, 50)  # a bar's axis is 1.15 times its length
    found = find_lesions(truth(small, long), 1)
    assert (found.n_lesions, found.n_isolated) == (1, 1)
    assert labels_at(found, (70, 70), (1100, 20)) == [ISOLATED, 1]
    larger = find_lesions(truth(small, long), 2)  # of another magnification they are large
    assert (larger.n_lesions, larger.n_isolated) == (2, 0)
    unknown = find_lesions(truth(small, long), None)
    assert (unknown.n_lesions, unknown.n_isolated) == (2, 0)
    assert find_lesions(truth(), 1).n_lesions == 0


@pytest.mark.parametrize("px", [(96.0, 96.0), (90.0, 110.0)])
def test_coarse_masks_of_one_pixel_a_tile(px: tuple[float, float]) -> None:
    mask = np.zeros((20, 20), bool)
    mask[3, 3:7] = mask[4, 7] = True  # touches at a corner
    mask[19, 19] = True
    found = find_lesions(TruthMask(mask, px), 0.972)
    assert (found.n_lesions, found.n_isolated) == (1, 1)
    assert labels_at(found, (3.5 * px[0], 3.5 * px[1]), (7.5 * px[0], 4.5 * px[1])) == [1, 1]


def table_of(rows: int, columns: int) -> TileTable:
    row, col = (index.ravel().astype(np.int32) for index in np.indices((rows, columns)))
    return TileTable(col * TILE, row * TILE, row, col, np.ones(rows * columns, np.float32))


def detections(
    score: list[list[float]],
    known: TruthMask,
    flagged: list[list[int]] | None = None,
) -> dict[float, int]:
    """Return score → lesion of what is detected."""
    values = np.array(score, np.float32)
    decided = None if flagged is None else np.array(flagged, bool).ravel()
    found = detect(values.ravel(), table_of(*values.shape), TILE, find_lesions(known, 1.0), decided)
    return dict(zip(found.score.tolist(), found.lesion.tolist(), strict=True))


NAN = float("nan")
SCORES = [
    [9.0, 1.0, 1.0, 5.0, 5.0],
    [1.0, 1.0, 1.0, 1.0, 1.0],
    [1.0, 2.0, NAN, 1.0, 3.0],
    [1.0, 1.0, 1.0, 1.0, 4.0],
]


def test_detections_are_regional_maxima() -> None:
    """A plateau is one, the tile at its first place; a tile without a score is none."""
    known = truth((300, 0, 500, 200))
    assert detections(SCORES, known) == {9.0: 0, 5.0: 1, 2.0: 0, 4.0: 0}
    assert detections([[7.0, 7.0], [7.0, 7.0]], truth()) == {7.0: 0}
    assert detections([[NAN, NAN]], truth()) == {}


def test_detections_are_components_of_a_mask() -> None:
    known = truth((300, 0, 500, 200))
    flagged = [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 1, 0, 1], [0, 1, 0, 0, 1]]
    # 8-connected: the tiles at the bottom left are one, and so are those at the bottom right
    assert detections(SCORES, known, flagged) == {5.0: 1, 1.0: 0, 4.0: 0}
    alone = [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert detections(SCORES, known, alone) == {}


def test_detections_in_isolated_cells_do_not_count() -> None:
    small, large = (0, 0, 100, 100), (300, 0, 500, 400)
    assert detections(SCORES, truth(small, large)) == {5.0: 1, 2.0: 0, 4.0: 1}


def slide(hits: dict[int, list[float]], alarms: list[float], n_lesions: int) -> Detections:
    score = [s for scores in hits.values() for s in scores] + alarms
    lesion = [number for number, scores in hits.items() for _ in scores] + [0] * len(alarms)
    return Detections(np.array(score, float), np.array(lesion, np.int32), n_lesions, 0)


def test_the_curve_by_hand() -> None:
    found = froc([slide({1: [0.9, 0.2]}, [0.8, 0.1], 2), slide({1: [0.5]}, [0.5], 1)])
    assert found is not None
    assert (found.n_slides, found.n_lesions, found.n_detections) == (2, 3, 6)
    assert list(found.false_alarms) == [0, 0, 0.5, 1, 1.5]
    assert list(found.sensitivity) == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    expected = [1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3]
    assert list(found.at_rates.values()) == pytest.approx(expected)
    assert list(found.at_rates) == ["0.25", "0.5", "1", "2", "4", "8"]
    assert found.score == pytest.approx(np.mean(expected))


def test_nothing_found_and_nothing_to_find() -> None:
    assert froc([slide({}, [0.5], 0)]) is None
    assert froc([]) is None
    blind = froc([slide({}, [], 2)])
    assert blind is not None
    assert blind.score == 0
    perfect = froc([slide({1: [0.1], 2: [0.3]}, [], 2), slide({}, [], 0)])
    assert perfect is not None
    assert perfect.score == 1


scores = st.floats(0, 1).map(lambda value: round(value, 1))
slides = st.builds(
    lambda hits, alarms: slide(dict(enumerate(hits, 1)), alarms, len(hits)),
    st.lists(st.lists(scores, max_size=3), max_size=3),
    st.lists(scores, max_size=12),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(slides, min_size=1, max_size=4))
def test_the_curve_is_what_counting_says(cohort: list[Detections]) -> None:
    found = froc(cohort)
    n_lesions = sum(each.n_lesions for each in cohort)
    if not n_lesions:
        assert found is None
        return
    assert found is not None

    def at(threshold: float) -> tuple[float, float]:
        alarms = sum(int(((s.lesion == 0) & (s.score >= threshold)).sum()) for s in cohort)
        hits = sum(len(set(s.lesion[(s.lesion > 0) & (s.score >= threshold)])) for s in cohort)
        return alarms / len(cohort), hits / n_lesions

    levels: npt.NDArray[np.float64] = np.unique(np.concatenate([s.score for s in cohort]))
    points = [(0.0, 0.0), *(at(level) for level in levels[::-1])]
    highest = {x: max(y for other, y in points if other == x) for x, _ in points}
    lowest = {x: min(y for other, y in points if other == x) for x, _ in points}
    for rate, value in zip(RATES, found.at_rates.values(), strict=True):
        below = max(x for x in highest if x <= rate)
        above = min((x for x in highest if x > rate), default=None)
        expected = highest[below]
        if above is not None and below < rate:
            expected += (rate - below) / (above - below) * (lowest[above] - highest[below])
        assert value == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(st.lists(slides, min_size=2, max_size=4), st.integers(0, 1000))
def test_drawn_slides_are_judged_as_that_many_slides(cohort: list[Detections], seed: int) -> None:
    """What a resample comes to is the curve of the slides that were drawn, each as often as it was."""
    named = [SlideDetections(f"s{i}", each, (each,) * SHUFFLES) for i, each in enumerate(cohort)]
    found = froc_with_chance(named, Bootstrap(resamples=1, seed=seed))
    if found is None:
        return
    drawn = np.random.default_rng(seed).integers(len(cohort), size=len(cohort))
    expected = froc([cohort[i] for i in drawn])
    for key, interval in found.intervals.items():
        if expected is None:
            assert (interval.low, interval.skipped) == (None, 1)
        else:
            value = expected.score if key == SCORE else expected.at_rates[key]
            assert (interval.low, interval.high) == pytest.approx((value, value))
    assert found.chance is not None
    assert (found.chance.score, found.chance.highest) == pytest.approx((found.score,) * 2)


def with_chance(seed: int, flagged: bool, *ids: str) -> Froc:
    """Judge slides of 20 x 20 tiles with a lesion of four, all found; half of their other tiles score the same."""
    known = find_lesions(truth((500, 500, 700, 700)), 1.0)
    score = np.zeros((20, 20), np.float32)
    score[5:7, 5:7] = 1
    made = []
    for slide_id in ids:
        decided = score.ravel() > 0.5 if flagged else None
        of_slide = slide_id, score.ravel(), table_of(20, 20), TILE, known
        made.append(SlideDetections.of(*of_slide, decided, seed))
    found = froc_with_chance(made)
    assert found is not None
    return found


@pytest.mark.parametrize("flagged", [True, False])
def test_chance_is_far_below_what_finds_all(flagged: bool) -> None:
    found = with_chance(0, flagged, "a", "b", "c")
    assert found.score == 1
    chance = found.chance
    assert chance is not None
    assert chance.shuffles == SHUFFLES
    # four tiles of a lesion among 400, and four at random: about one slide in 25 has one there
    assert 0 <= chance.score <= chance.highest < 0.5
    assert chance.score == pytest.approx(np.mean(list(chance.at_rates.values())))
    assert found.few_lesions
    assert with_chance(0, flagged, "a", "b", "c").chance == chance
    assert with_chance(1, flagged, "a", "b", "c", "d").chance != chance


def test_shuffles_of_a_slide_do_not_depend_on_others() -> None:
    known = find_lesions(truth((0, 0, 900, 900)), 1.0)
    score = np.random.default_rng(0).normal(size=100).astype(np.float32)
    made = [
        SlideDetections.of(name, score, table_of(10, 10), TILE, known, None, 3) for name in "aba"
    ]
    first, other, again = (np.concatenate([d.score for d in each.shuffled]) for each in made)
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or (first != other).any()
    assert set(first) <= set(score.astype(float))


def test_the_drawn_curve_goes_on_flat_where_no_more_is_reached() -> None:
    rates = {0.25: 0.2, 0.5: 0.4, 1.0: 0.5, 2.0: 0.5, 4.0: 0.5, 8.0: 0.5}
    _, axes = new_figure(1, 2)
    draw_froc(axes[0], [0, 0.8], [0, 0.5], rates, label="short", chance=dict.fromkeys(rates, 0.1))
    draw_froc(axes[1], [0, 9], [0, 0.5], rates, label="long")
    dashed = [line for line in axes[0].lines if line.get_linestyle() == "--"]
    assert [np.asarray(line.get_xydata()).tolist() for line in dashed] == [[[0.8, 0.5], [8.0, 0.5]]]
    hollow = [line for line in axes[0].lines if line.get_markerfacecolor() == "white"]
    assert [np.asarray(line.get_xydata())[:, 0].tolist() for line in hollow] == [[1, 2, 4, 8]]
    assert not [line for line in axes[1].lines if line.get_linestyle() == "--"]
