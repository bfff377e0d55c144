"""Hand-made attention gives the numbers that it should; warnings appear where they are due only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from models import attention_diagnostics
from models.attention_diagnostics import OutputStatistics
from models.attention_summary import summarise_attention
from models.slide_model import SlideOutput
from models.training_warnings import (
    START_EPOCHS,
    attention_warnings,
    missing_class_warnings,
    overfitting_warnings,
    prediction_warnings,
)


def output(logits: list[float], attention: Tensor, tiles: Tensor | None = None) -> SlideOutput:
    return SlideOutput(torch.tensor(logits), attention, tiles, attention.log())


def one_at(tile: int, n_tiles: int = 20) -> Tensor:
    return torch.eye(n_tiles)[tile]


def test_attention_by_hand() -> None:
    halves = np.zeros(64, np.float32)
    halves[[5, 60]] = 0.5
    by_hand = [  # attention; entropy, effective instances, top-1, top-10, critical tile
        (np.full(40, 1 / 40), (1, 40, 1 / 40, 10 / 40, 0)),
        (np.eye(40)[3], (0, 1, 1, 1, 3)),
        (np.ones(1), (math.nan, 1, 1, 1, 0)),
        (halves, (math.log(2) / math.log(64), 2, 0.5, 1, 5)),
        (
            np.array([0.25, 0.75]),
            (-0.25 * math.log2(0.25) - 0.75 * math.log2(0.75), 1.6, 0.75, 1, 1),
        ),
    ]
    bags = [attention.astype(np.float32) for attention, _ in by_hand]
    found = summarise_attention(np.concatenate(bags), np.array([len(bag) for bag in bags]))
    for number, (_, expected) in enumerate(by_hand):
        assert [column[number] for column in found] == pytest.approx(expected, nan_ok=True), number


def test_many_attentions_at_once_are_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([1, 9, 10, 11, 300, 2])
    bags = [rng.dirichlet(np.full(n, 0.2)) for n in lengths]
    together = summarise_attention(np.concatenate(bags), lengths)
    for number, bag in enumerate(bags):
        alone = summarise_attention(bag, lengths[[number]])
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours[number], theirs[0], rtol=1e-12)
        assert together.critical[number] == bag.argmax()
        assert together.top10[number] == pytest.approx(np.sort(bag)[-10:].sum())


def test_attention_that_is_not_finite_passes_through() -> None:
    found = summarise_attention(np.array([np.nan, np.nan, 0.5, 0.5]), np.array([2, 2]))
    assert math.isnan(found.top1[0])
    assert found.top1[1] == 0.5


def test_means_leave_out_bags_of_one_tile() -> None:
    statistics = OutputStatistics("val", "multiclass", ("a", "b"), 3, follow=True)
    statistics.add(0, np.int64(0), output([1, 0], torch.ones(1)))
    statistics.add(1, np.int64(1), output([0, 1], torch.full((16,), 1 / 16)))
    statistics.add(2, np.int64(1), output([3, 1], one_at(4)))
    values, logits, targets = statistics.finish()
    assert values["val_attention_entropy"] == pytest.approx(0.5)
    assert values["val_effective_instances"] == pytest.approx(8.5)
    assert values["val_predicted_a"] == 2
    assert values["val_actual_a"] == 1
    assert "val_same_critical" not in values  # there is no last epoch
    np.testing.assert_array_equal(logits, [[1, 0], [0, 1], [3, 1]])
    np.testing.assert_array_equal(targets, [0, 1, 1])


@pytest.mark.parametrize("flush_values", [1, 50, 1 << 20])
def test_attention_of_the_true_class_is_followed(
    monkeypatch: pytest.MonkeyPatch, flush_values: int
) -> None:
    monkeypatch.setattr(attention_diagnostics, "FLUSH_VALUES", flush_values)
    statistics = OutputStatistics("val", "multiclass", ("a", "b"), 4, follow=True)
    shares = []
    for tops in ([1, 2, 3, 4], [1, 2, 9, 4], [1, 2, 9, 4]):
        for bag, top in enumerate(tops):
            attention = torch.stack([one_at(bag), one_at(top)], 1)  # (20, 2): class 0 stays
            statistics.add(bag, np.int64(1), output([0, 1], attention))
        shares.append(statistics.finish()[0].get("val_same_critical"))
    assert shares == [None, 0.75, 1.0]
    np.testing.assert_array_equal(statistics.critical[:, 0], [1, 2, 9, 4])


def test_bags_that_were_not_drawn_are_compared_with_their_last_epoch() -> None:
    statistics = OutputStatistics("train", "multiclass", ("a", "b"), 2, follow=True)
    for bag, top in ((0, 5), (1, 6)):
        statistics.add(bag, np.int64(0), output([0, 1], one_at(top)))
    statistics.finish()
    statistics.add(0, np.int64(0), output([0, 1], one_at(7)))
    assert statistics.finish()[0]["train_same_critical"] == 0
    statistics.add(1, np.int64(0), output([0, 1], one_at(6)))
    assert statistics.finish()[0]["train_same_critical"] == 1


def test_multilabel_follows_every_label() -> None:
    statistics = OutputStatistics("val", "multilabel", tuple("abc"), 1, follow=True)
    target = np.array([1, 0, 1], np.float32)
    for last in (3, 8):
        attention = torch.stack([one_at(1), one_at(2), one_at(last)], 1)
        statistics.add(0, target, output([2, -1, -1], attention))
        values = statistics.finish()[0]
    assert values["val_same_critical"] == pytest.approx(2 / 3)
    assert [values[f"val_predicted_{c}"] for c in "abc"] == [1, 0, 0]
    assert [values[f"val_actual_{c}"] for c in "abc"] == [1, 0, 1]


def test_agreement_of_the_streams() -> None:
    statistics = OutputStatistics("val", "multiclass", ("a", "b"), 2, follow=False)
    tiles = torch.tensor([[0.1, 0.2], [5.0, 0.3]])  # the largest is class 0's
    for bag, logits in enumerate([[1.0, 0.0], [0.0, 1.0]]):
        statistics.add(bag, np.int64(0), output(logits, torch.tensor([0.5, 0.5]), tiles))
    values = statistics.finish()[0]
    assert values["val_stream_agreement"] == 0.5
    assert "val_same_critical" not in values


def epochs(n: int, **values: float) -> list[dict[str, float]]:
    return [dict(values) for _ in range(n)]


def test_planted_attention_warns_and_healthy_does_not() -> None:
    def warned(top1: float, entropy: float, n: int) -> list[str]:
        return attention_warnings(epochs(n, val_top1_mass=top1, val_attention_entropy=entropy))

    (collapse,) = warned(0.98, 0.05, 5)
    assert collapse.startswith("attention has collapsed to one tile: it holds 0.980")
    (uniform,) = warned(0.02, 0.9995, START_EPOCHS)
    assert uniform.startswith("attention is uniform: its entropy is 0.9995")
    assert warned(0.98, 0.05, 4) == []
    assert warned(0.02, 0.9995, START_EPOCHS - 1) == []
    assert warned(0.2, 0.8, 20) == []
    recovered = epochs(9, val_top1_mass=0.98, val_attention_entropy=0.9995)
    assert attention_warnings([*recovered, {"val_top1_mass": 0.3}]) == []
    assert attention_warnings(epochs(20, val_loss=1)) == []  # bags of one tile


def test_single_class_predictions() -> None:
    def history(said_b: float, actual_b: float = 4) -> list[dict[str, float]]:
        values = {"val_predicted_a": 9.0, "val_predicted_b": said_b}
        return epochs(START_EPOCHS, **values, val_actual_a=5, val_actual_b=actual_b)

    (found,) = prediction_warnings(history(0), ("a", "b"))
    assert found.startswith("only one class is predicted: every validation bag got class a")
    assert "5 a, 4 b" in found
    assert prediction_warnings(history(1), ("a", "b")) == []
    assert prediction_warnings(history(0)[1:], ("a", "b")) == []
    assert prediction_warnings(history(0, actual_b=0), ("a", "b")) == []
    changing = [*history(0)[1:], {**history(2)[0], "val_predicted_a": 0}]
    assert prediction_warnings(changing, ("a", "b")) == []


def test_overfitting() -> None:
    def history(val: list[float], train: list[float]) -> list[dict[str, float]]:
        return [{"val_loss": v, "train_loss": t} for v, t in zip(val, train, strict=True)]

    falling = [0.7, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]
    (found,) = overfitting_warnings(history([0.6, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], falling))
    assert found.startswith(
        "overfitting: the validation loss has risen from 0.500 (epoch 2) to 1.000"
    )
    assert overfitting_warnings(history(falling, falling)) == []
    assert overfitting_warnings(history([0.6, 0.5, 0.6, 0.7, 0.5, 0.9, 0.51], falling)) == []
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert overfitting_warnings(history([0.6, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], rising)) == []


def test_a_split_without_a_class() -> None:
    counts: npt.NDArray[Any] = np.array([3, 0, 0])
    (found,) = missing_class_warnings("validation", tuple("abc"), counts)
    assert found.startswith("the validation split lacks a class: it has no bag of b, c")
    assert missing_class_warnings("training", ("a",), counts[:1]) == []
