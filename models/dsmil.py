"""DSMIL: the dual stream (Li, Li & Eliceiri, CVPR 2021).

    instance stream   i = W x                             logits of each tile; its bag logits are max over tiles
    critical tile     m_c = argmax over tiles of i_c      one per class
    query             q = tanh(W2 relu(W1 x))
    attention         A_c = softmax over tiles of  q · q(m_c) / √128
    bag embedding     B = Aᵀ V                            V: the features, with dropout if wanted
    bag stream        logits = Conv1d(C, C, kernel_size=d)(B)
    loss              ½ loss(bag stream) + ½ loss(max over tiles of the instance stream)

The slide's logits are those of the bag stream; the instance stream's are ``instance_logits.max(0)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.attention_pool import TileJudgement, attention_pool, map_tiles
from models.initialization import xavier
from models.slide_model import BagLoss, SlideModel, SlideModelConfig, SlideOutput


@dataclass(frozen=True)
class DsmilConfig(SlideModelConfig):
    """Settings of DSMIL.

    Attributes
    ----------
    query
        Width of the queries.
    dropout
        Of the values V.
    """

    query: int = 128
    dropout: float = 0.0


class Dsmil(SlideModel):
    """Each class attends to the tiles that resemble its most telling one."""

    def __init__(self, config: DsmilConfig) -> None:
        super().__init__(config)
        self.config: DsmilConfig = config
        d, n_classes = config.n_features, config.n_classes
        self.instance = nn.Linear(d, n_classes)
        self.query = nn.Sequential(
            nn.Linear(d, config.query), nn.ReLU(), nn.Linear(config.query, config.query), nn.Tanh()
        )
        self.value = nn.Dropout(config.dropout)
        self.bag = nn.Conv1d(n_classes, n_classes, kernel_size=d)
        xavier(self)

    def forward(self, bag: Tensor) -> SlideOutput:
        """Judge a bag, float (N, d); attention is (N, C)."""
        chunk_tiles, place = self.config.chunk_tiles, self.instance.weight
        instance_logits = map_tiles(bag, self.instance, chunk_tiles, place)  # (N, C)
        critical = bag[instance_logits.argmax(0).to(bag.device)].to(
            place.device, place.dtype
        )  # (C, d)
        critical_queries = self.query(critical) / math.sqrt(self.config.query)  # (C, 128)

        def judge(tiles: Tensor) -> TileJudgement:
            return TileJudgement(self.query(tiles) @ critical_queries.T, self.value(tiles))

        pooled = attention_pool(bag, judge, chunk_tiles, place)  # values (C, d), scores (N, C)
        logits = self.bag(pooled.values.unsqueeze(0)).flatten()  # (1, C, d) → (1, C, 1) → (C,)
        attention = torch.softmax(pooled.scores, 0)  # (N, C)
        return SlideOutput(logits, attention, instance_logits, pooled.scores)

    def loss(self, output: SlideOutput, target: Tensor, bag_loss: BagLoss) -> Tensor:
        """Return the mean of the two streams' losses."""
        assert output.instance_logits is not None
        critical = output.instance_logits.max(0).values  # (C,)
        return 0.5 * bag_loss(output.logits, target) + 0.5 * bag_loss(critical, target)
