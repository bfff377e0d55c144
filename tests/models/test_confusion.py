"""Confusion of classes against sklearn and against plain counts."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)

from models import confusion as module
from models.confusion import METRICS, Confusion
from models.weak_tiles import UNKNOWN

SKLEARN = {
    "iou": jaccard_score,
    "dice": f1_score,
    "precision": precision_score,
    "recall": recall_score,
}


@pytest.mark.parametrize("seed", range(3))
def test_means_are_those_of_sklearn(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BAND_PX", 17)  # so that there are several
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (20, 30)).astype(np.uint8)
    said = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 3, truth.shape))
    found = Confusion.of(truth, said.astype(np.uint8), 3)
    flat = truth.ravel(), said.ravel()
    np.testing.assert_array_equal(found.counts[:, :3], confusion_matrix(*flat))
    assert not found.counts[:, 3].any()
    assert found.accuracy == pytest.approx(accuracy_score(*flat))
    for metric in METRICS:
        each = SKLEARN[metric](*flat, average=None)
        assert [getattr(o, metric) for o in found.overlaps] == pytest.approx(list(each))
        assert found.macro(metric) == pytest.approx(each.mean())
        assert found.macro(metric, without=1) == pytest.approx(each[[0, 2]].mean())
        weighted = SKLEARN[metric](*flat, average="weighted")
        assert found.weighted(metric) == pytest.approx(weighted)


def test_what_is_unknown_or_not_said() -> None:
    truth = np.array([0, 0, 0, 1, UNKNOWN, UNKNOWN], np.uint8)
    said = np.array([0, 3, 2, 3, 0, 3], np.uint8)
    found = Confusion.of(truth, said, 3)
    assert found.counts.tolist() == [[1, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert found.present == (0, 1)
    assert found.n_pixels == 4
    first, second, third = found.overlaps
    assert (first.tp, first.fp, first.fn, first.tn) == (1, 0, 2, 1)
    assert (second.tp, second.fp, second.fn, second.tn) == (0, 0, 1, 3)
    assert (third.tp, third.fp, third.fn, third.tn) == (0, 1, 0, 3)
    assert second.precision is None
    assert found.macro("precision") == 0.5  # nothing was taken for the second: 0
    assert found.weighted("iou") == pytest.approx(3 / 4 / 3)
    nothing = Confusion.of(truth[4:], said[4:], 3)
    assert nothing.macro("iou") is nothing.weighted("iou") is nothing.accuracy is None


def test_parts_add_up_and_a_floor_is_the_share() -> None:
    rng = np.random.default_rng(0)
    truth, said = (rng.integers(0, 2, (2, 50)).astype(np.uint8) for _ in range(2))
    whole = Confusion.of(truth, said, 2)
    parts = Confusion.sum([Confusion.of(truth[i], said[i], 2) for i in range(2)])
    np.testing.assert_array_equal(whole.counts, parts.counts)
    floor = whole.all_taken_for(1)
    assert floor.overlaps[1].iou == pytest.approx(float(truth.mean()))
    assert floor.macro("iou") == pytest.approx(float(truth.mean()) / 2)
    assert floor.n_pixels == whole.n_pixels
