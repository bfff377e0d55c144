"""Bag losses against their formulas and torch's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.bag_losses import LossSpec, make_bag_loss
from models.slide_model import TaskKind
from store_schema.errors import InputError

COUNTS = np.array([40, 10, 2])
LOGITS = torch.tensor([0.3, -1.1, 2.0], dtype=torch.float64)
LABELS = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
INVERSE = np.array([1 / 40, 1 / 10, 1 / 2]) / ((1 / 40 + 1 / 10 + 1 / 2) / 3)


def value(
    spec: LossSpec,
    target: int | Tensor,
    *,
    epoch: int = 0,
    counts: np.ndarray = COUNTS,
    n_bags: int | None = None,
) -> float:
    task: TaskKind = "multiclass" if isinstance(target, int) else "multilabel"
    loss = make_bag_loss(spec, task, counts, epoch, epochs=10, n_bags=n_bags)
    result = loss(LOGITS, torch.as_tensor(target))
    assert result.shape == ()
    return float(result)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_cross_entropy_is_torchs(target: int, smoothing: float) -> None:
    expected = F.cross_entropy(LOGITS, torch.tensor(target), label_smoothing=smoothing)
    spec = LossSpec(label_smoothing=smoothing)
    assert value(spec, target) == pytest.approx(float(expected))
    weighted = F.cross_entropy(
        LOGITS,
        torch.tensor(target),
        torch.from_numpy(INVERSE),
        label_smoothing=smoothing,
        reduction="sum",
    )
    spec = LossSpec(class_weights=True, label_smoothing=smoothing)
    assert value(spec, target) == pytest.approx(float(weighted))


def test_rare_classes_weigh_more() -> None:
    plain, weighted = LossSpec(), LossSpec(class_weights=True)
    ratio = [value(weighted, c) / value(plain, c) for c in range(3)]
    assert ratio[2] / ratio[0] == pytest.approx(20)
    assert np.mean(ratio) == pytest.approx(1)


def test_a_class_without_bags_leaves_the_others_their_weights() -> None:
    spec = LossSpec(class_weights=True)
    with_gap = [
        value(spec, c, counts=np.array([30, 0, 10])) / value(LossSpec(), c) for c in range(3)
    ]
    assert with_gap == pytest.approx([0.5, 1, 1.5])


def test_multilabel_is_torchs_binary_cross_entropy() -> None:
    soft = LABELS * 0.8 + 0.1
    assert value(LossSpec(), LABELS) == pytest.approx(
        float(F.binary_cross_entropy_with_logits(LOGITS, LABELS))
    )
    positive = torch.tensor([10 / 40, 40 / 10, 48 / 2], dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(LOGITS, soft, pos_weight=positive)
    spec = LossSpec(class_weights=True, label_smoothing=0.2)
    assert value(spec, LABELS, n_bags=50) == pytest.approx(float(expected))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_formula(gamma: float) -> None:
    p = torch.softmax(LOGITS, 0).tolist()
    spec = LossSpec("focal", focal_gamma=gamma)
    for c in range(3):
        assert value(spec, c) == pytest.approx(-((1 - p[c]) ** gamma) * math.log(p[c]))
    weighted = LossSpec("focal", focal_gamma=gamma, class_weights=True)
    assert value(weighted, 2) == pytest.approx(INVERSE[2] * value(spec, 2))
    q = torch.sigmoid(LOGITS).tolist()
    told = [q[0], 1 - q[1], q[2]]
    expected = np.mean([-((1 - t) ** gamma) * math.log(t) for t in told])
    assert value(spec, LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_gradient_is_finite_for_certain_logits(gamma: float) -> None:
    loss = make_bag_loss(LossSpec("focal", focal_gamma=gamma), "multiclass", COUNTS, 0, 1)
    logits = torch.tensor([60.0, -60.0, 0.0], requires_grad=True)
    torch.autograd.backward(loss(logits, torch.tensor(0)))
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_ldam_margins_then_late_weights() -> None:
    margins = 0.5 * (np.array([40.0, 10.0, 2.0]) / 2) ** -0.25
    beta = 0.9999
    balanced = (1 - beta) / (1 - beta ** np.array([40.0, 10.0, 2.0]))
    balanced /= balanced.mean()
    spec = LossSpec("ldam-drw")
    for c in range(3):
        z = LOGITS.clone()
        z[c] -= margins[c]
        expected = float(F.cross_entropy(30 * z, torch.tensor(c)))
        assert value(spec, c, epoch=7) == pytest.approx(expected)
        assert value(spec, c, epoch=8) == pytest.approx(balanced[c] * expected)


@pytest.mark.parametrize("kind", ["ce", "focal"])
def test_half_logits_are_widened(kind: str) -> None:
    spec = LossSpec("ce" if kind == "ce" else "focal", class_weights=True)
    loss = make_bag_loss(spec, "multiclass", COUNTS, 0, 1)
    result = loss(LOGITS.to(torch.bfloat16), torch.tensor(1))
    assert result.dtype == torch.float32
    assert float(result) == pytest.approx(value(spec, 1), rel=0.02)


def test_what_makes_no_sense_is_said() -> None:
    with pytest.raises(InputError, match="exclude each other"):
        make_bag_loss(LossSpec("ldam-drw"), "multilabel", COUNTS, 0, 1)
    with pytest.raises(InputError, match="number of training bags"):
        make_bag_loss(LossSpec(class_weights=True), "multilabel", COUNTS, 0, 1)
    with pytest.raises(InputError, match="No class has a training bag"):
        make_bag_loss(LossSpec(), "multiclass", np.zeros(3, np.int64), 0, 1)
    with pytest.raises(InputError, match="leave the class weights out"):
        LossSpec("ldam-drw", class_weights=True)
    with pytest.raises(InputError, match="label smoothing is 1"):
        LossSpec(label_smoothing=1.0)
    with pytest.raises(InputError, match="no loss 'hinge'"):
        LossSpec("hinge")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="gamma"):
        LossSpec(focal_gamma=math.nan)
    with pytest.raises(InputError, match="Margin"):
        LossSpec(ldam_max_margin=0.0)
    with pytest.raises(InputError, match="drw_from"):
        LossSpec(drw_from=1.5)
