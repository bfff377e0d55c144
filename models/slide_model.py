"""What a slide model is: a bag of tile features in, slide logits and attention out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from store_schema.errors import InputError

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


@dataclass(frozen=True)
class SlideModelConfig:
    """What every slide model is told; the models' own configs add to it.

    Attributes
    ----------
    n_features
        Width of a tile's features.
    n_classes
        Number of logits.
    chunk_tiles
        Tiles that are worked on at once; larger bags go through in chunks, to the same result.

    Raises
    ------
    InputError
        If a count is below 1, or a share (a float) is not in [0, 1).
    """

    n_features: int
    n_classes: int
    chunk_tiles: int = 16384

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise InputError(f"{field.name} is {value}: give 1 or more.")
            if isinstance(value, float) and not 0 <= value < 1:
                raise InputError(f"{field.name} is {value}: give a number from 0 to below 1.")


class SlideModel(nn.Module, ABC):
    """Base of the slide models; one a file, its config dataclass beside it.

    ``learns_attention`` says whether the attention decides what the bag's logits see; where it does
    not, an attention that is uniform, or on one tile, is nothing to warn of.

    ``feature_mean`` and ``feature_scale`` (float32 (d,), kept with the weights) say how features are
    standardized before the model gets them; ``models.bag_tensor`` does it. New models leave them as
    they are; training sets them from its bags.
    """

    config: SlideModelConfig
    learns_attention: ClassVar[bool] = True
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: SlideModelConfig) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(config.n_features))
        self.register_buffer("feature_scale", torch.ones(config.n_features))

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

    def instance_probabilities(self, instance_logits: Tensor, task: TaskKind) -> Tensor:
        """Turn instance logits (N, C) into probabilities the way the model means them."""
        return probabilities(instance_logits, task)


def probabilities(logits: Tensor, task: TaskKind) -> Tensor:
    """Turn logits (…, C) into probabilities: softmax of a multi-class task, sigmoids of a multi-label one."""
    return torch.softmax(logits, -1) if task == "multiclass" else torch.sigmoid(logits)
