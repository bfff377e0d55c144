"""Losses on a bag's logits, and what they make of unequal classes.

Every loss is of one bag; where classes are weighted it is multiplied by the class's weight, and
not divided by it again as the mean of torch's weighted losses over a batch of one would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention_pool import at_least_float32
from models.slide_model import BagLoss, TaskKind
from store_schema.errors import InputError

LossKind: TypeAlias = Literal["ce", "focal", "ldam-drw"]
DRW_BETA: Final = 0.9999  # of the class-balanced weights, as Cao et al. have it
TINY: Final = 1e-12


@dataclass(frozen=True)
class LossSpec:
    """Which loss a bag's logits are trained with.

    Attributes
    ----------
    kind
        ``ce``: cross-entropy (multi-label: binary cross-entropy, mean over classes). ``focal``: Lin
        et al. 2017. ``ldam-drw``: Cao et al. 2019, multi-class only.
    class_weights
        Weight classes by inverse frequency, mean 1 over the classes that there are (multi-label: positives of a
        class by negatives / positives). A class without bags has weight 1.
    label_smoothing
        Share of the target that is spread over the classes (multi-label: over yes and no).
    focal_gamma
        Power of (1 - p).
    ldam_max_margin, ldam_scale
        Margin of the rarest class; factor on the logits.
    drw_from
        Share of the epochs after which ldam-drw weights the classes.
    """

    kind: LossKind = "ce"
    class_weights: bool = False
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    ldam_max_margin: float = 0.5
    ldam_scale: float = 30.0
    drw_from: float = 0.8

    def __post_init__(self) -> None:
        if self.kind not in get_args(LossKind):
            raise InputError(f"There is no loss '{self.kind}': choose one of {get_args(LossKind)}.")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"The label smoothing is {self.label_smoothing}: give 0 or more, below 1."
            )
        if not self.focal_gamma >= 0:
            raise InputError(f"The gamma of the focal loss is {self.focal_gamma}: give 0 or more.")
        if not (self.ldam_max_margin > 0 and self.ldam_scale > 0):
            raise InputError("Margin and scale of the LDAM loss must be above 0.")
        if not 0 <= self.drw_from <= 1:
            raise InputError(f"drw_from is {self.drw_from}: give a share of the epochs, 0 to 1.")
        if self.kind == "ldam-drw" and self.class_weights:
            raise InputError(
                "ldam-drw weights the classes itself, late in training: leave the class weights out."
            )


def make_bag_loss(
    spec: LossSpec,
    task: TaskKind,
    class_counts: npt.NDArray[np.integer],
    epoch: int,
    epochs: int,
    n_bags: int | None = None,
) -> BagLoss:
    """Return the loss of an epoch: logits float (C,), target → scalar.

    Parameters
    ----------
    spec
        Which loss.
    task
        Multi-class targets are int64 () class indices, multi-label ones float (C,) of 0 and 1.
    class_counts
        int (C,), training bags that have the class.
    epoch, epochs
        The epoch, from 0, and how many there are: ldam-drw changes late.
    n_bags
        Training bags, which class weights of a multi-label task need; unused otherwise.

    Raises
    ------
    InputError
        If the loss is not made for the task, or what it needs of the classes is not there.
    """
    counts = np.asarray(class_counts, np.float64)
    if not counts.any():
        raise InputError("No class has a training bag: give labels of the training slides.")
    smoothing = spec.label_smoothing
    if task == "multilabel":
        if spec.kind == "ldam-drw":
            raise InputError("ldam-drw is for classes that exclude each other: take ce or focal.")
        weights = _positive_weights(counts, n_bags) if spec.class_weights else np.ones_like(counts)
        gamma = spec.focal_gamma if spec.kind == "focal" else 0.0
        return _MultilabelLoss(torch.from_numpy(weights), smoothing, gamma)
    if spec.kind == "ldam-drw":
        late = epoch >= spec.drw_from * epochs
        weights = _class_balanced_weights(counts) if late else np.ones_like(counts)
        margins = np.maximum(counts, 1) ** -0.25  # eq. 13
        margins *= spec.ldam_max_margin / margins.max()
        return _LdamLoss(
            torch.from_numpy(weights), torch.from_numpy(margins), spec.ldam_scale, smoothing
        )
    weights = _inverse_frequencies(counts) if spec.class_weights else np.ones_like(counts)
    gamma = spec.focal_gamma if spec.kind == "focal" else 0.0
    return _MulticlassLoss(torch.from_numpy(weights), smoothing, gamma)


@dataclass(frozen=True)
class _MulticlassLoss:
    """Σ_c t_c w_c (1 - p_c)^gamma (-log p_c); gamma = 0 is cross-entropy, else focal (Lin et al., eq. 5)."""

    weights: Tensor  # (C,)
    smoothing: float
    gamma: float

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = torch.log_softmax(at_least_float32(logits), -1)  # (C,)
        t = F.one_hot(target, len(log_p)) * (1 - self.smoothing) + self.smoothing / len(log_p)
        focus = _power(-torch.expm1(log_p), self.gamma)
        return -(t * self.weights.to(log_p) * focus * log_p).sum()


@dataclass(frozen=True)
class _MultilabelLoss:
    """Mean over classes of t w (1 - p)^gamma (-log p) + (1 - t) p^gamma (-log(1 - p))."""

    weights: Tensor  # (C,) of the positives
    smoothing: float
    gamma: float

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        z = at_least_float32(logits)  # (C,)
        t = target.to(z) * (1 - self.smoothing) + self.smoothing / 2
        yes, no = F.logsigmoid(z), F.logsigmoid(-z)
        yes = _power(torch.sigmoid(-z), self.gamma) * yes
        no = _power(torch.sigmoid(z), self.gamma) * no
        return -(t * self.weights.to(z) * yes + (1 - t) * no).mean()


@dataclass(frozen=True)
class _LdamLoss:
    """w_y · cross-entropy of s (z - Δ_y at y) (Cao et al., eq. 14)."""

    weights: Tensor  # (C,)
    margins: Tensor  # (C,)
    scale: float
    smoothing: float

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        z = at_least_float32(logits)  # (C,)
        margin = F.one_hot(target, len(z)) * self.margins.to(z)
        cross_entropy = _MulticlassLoss(self.weights, self.smoothing, 0.0)
        return cross_entropy(self.scale * (z - margin), target)


def _power(share: Tensor, gamma: float) -> Tensor:
    return share.clamp(min=TINY) ** gamma  # at 0 the slope of a power below 1 is infinite


def _inverse_frequencies(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return _mean_one(1 / np.maximum(counts, 1), counts > 0)


def _class_balanced_weights(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (1 - β) / (1 - βⁿ) (Cui et al. 2019), mean 1."""
    effective = -np.expm1(np.maximum(counts, 1) * math.log(DRW_BETA))
    return _mean_one((1 - DRW_BETA) / effective, counts > 0)


def _mean_one(
    weights: npt.NDArray[np.float64], present: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    return np.where(present, weights / weights[present].mean(), 1.0)


def _positive_weights(
    counts: npt.NDArray[np.float64], n_bags: int | None
) -> npt.NDArray[np.float64]:
    if n_bags is None:
        raise InputError("Class weights of a multi-label task need the number of training bags.")
    both = (counts > 0) & (counts < n_bags)
    return np.where(both, (n_bags - counts) / np.maximum(counts, 1), 1.0)
