"""What a slide model is: a bag of tile features in, slide logits and attention out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

TaskKind: TypeAlias = Literal["multiclass", "multilabel"]
BagLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # logits (C,), target → scalar


class SlideOutput(NamedTuple):
    """What a slide model says of one bag of N tiles and C classes.

    Attributes
    ----------
    logits
        float (C,), of the bag.
    attention
        float32 (N,), or (N, C) where each class has its own; sums to 1 over the tiles.
    instance_logits
        float (N, C), or None where the model has no opinion of single tiles.
    attention_logits
        As ``attention``, before the softmax over tiles; comparable between slides.
    """

    logits: Tensor
    attention: Tensor
    instance_logits: Tensor | None
    attention_logits: Tensor


class SlideModel(nn.Module, ABC):
    """Base of the slide models; one a file, its config dataclass beside it."""

    @abstractmethod
    def forward(self, bag: Tensor) -> SlideOutput:
        """Judge a bag.

        Parameters
        ----------
        bag
            float (N, d), N ≥ 1; any floating dtype, converted in chunks to the model's.
        """

    def loss(self, output: SlideOutput, target: Tensor, bag_loss: BagLoss) -> Tensor:
        """Return the scalar to minimise; models with instance terms add them here.

        Parameters
        ----------
        output
            Of ``forward``.
        target
            int64 () class index of a multi-class task, or float (C,) of a multi-label one.
        bag_loss
            The loss on bag logits that the user chose.
        """
        return bag_loss(output.logits, target)


def probabilities(logits: Tensor, task: TaskKind) -> Tensor:
    """Turn logits (…, C) into probabilities: softmax of a multi-class task, sigmoids of a multi-label one."""
    return torch.softmax(logits, -1) if task == "multiclass" else torch.sigmoid(logits)
