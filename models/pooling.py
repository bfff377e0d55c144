"""The baselines: the mean, or the largest, of what a linear layer says of each tile."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention_pool import map_tiles
from models.initialization import xavier
from models.slide_model import SlideModel, SlideModelConfig, SlideOutput


class MeanPool(SlideModel):
    """A linear layer on the mean of the features, which is the mean of the layer over the tiles.

    Attention is uniform (its logits are 0); a tile's instance logits are its part in the mean.
    """

    learns_attention = False

    def __init__(self, config: SlideModelConfig) -> None:
        super().__init__(config)
        self.config = config
        self.instance = nn.Linear(config.n_features, config.n_classes)
        xavier(self)

    def forward(self, bag: Tensor) -> SlideOutput:
        """Judge a bag, float (N, d); attention is (N,)."""
        instance_logits = map_tiles(
            bag, self.instance, self.config.chunk_tiles, self.instance.weight
        )
        scores = instance_logits.new_zeros(len(bag))  # (N,)
        return SlideOutput(
            instance_logits.mean(0), torch.softmax(scores, 0), instance_logits, scores
        )


class MaxPool(SlideModel):
    """Each class is judged by the tile that speaks most for it.

    The bag logits take one tile a class; as attention, to look at, stands the softmax over the
    tiles of the instance logits (N, C).
    """

    learns_attention = False

    def __init__(self, config: SlideModelConfig) -> None:
        super().__init__(config)
        self.config = config
        self.instance = nn.Linear(config.n_features, config.n_classes)
        xavier(self)

    def forward(self, bag: Tensor) -> SlideOutput:
        """Judge a bag, float (N, d); attention is (N, C)."""
        instance_logits = map_tiles(
            bag, self.instance, self.config.chunk_tiles, self.instance.weight
        )
        return SlideOutput(
            instance_logits.max(0).values,  # (C,)
            torch.softmax(instance_logits, 0),
            instance_logits,
            instance_logits,
        )
