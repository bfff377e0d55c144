"""ABMIL: attention-based pooling, gated or plain (Ilse, Tomczak & Welling, ICML 2018).

h = dropout(relu(W x))                                embedding of a tile
a = softmax over tiles of  w (tanh(V h) ⊙ sigmoid(U h))      gated   (their eq. 9)
a = softmax over tiles of  w tanh(V h)                       plain   (their eq. 8)
logits = classifier(Σ a h)                                   (their eq. 7)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.attention_pool import TileJudgement, attention_pool
from models.initialization import xavier
from models.slide_model import SlideModel, SlideModelConfig, SlideOutput


@dataclass(frozen=True)
class AbmilConfig(SlideModelConfig):
    """Settings of ABMIL.

    Attributes
    ----------
    hidden
        Width of the embedding h.
    attention
        Width of V h and U h.
    gated
        Whether the gate sigmoid(U h) is there.
    dropout
        Of the embedding.
    """

    hidden: int = 512
    attention: int = 128
    gated: bool = True
    dropout: float = 0.25


class AttentionScorer(nn.Module):
    """w (tanh(V h) ⊙ sigmoid(U h)) for ``n_branches`` rows of w; without the gate, w tanh(V h)."""

    def __init__(self, hidden: int, attention: int, n_branches: int, *, gated: bool) -> None:
        super().__init__()
        self.v = nn.Linear(hidden, attention)
        self.u = nn.Linear(hidden, attention) if gated else None
        self.w = nn.Linear(attention, n_branches)

    def forward(self, h: Tensor) -> Tensor:
        """Return float (n, branch) of float (n, hidden)."""
        score = torch.tanh(self.v(h))  # (n, attention)
        if self.u is not None:
            score = score * torch.sigmoid(self.u(h))
        return self.w(score)  # type: ignore[no-any-return]  # (n, branch)


class Abmil(SlideModel):
    """One attention over the tiles for all classes; no opinion of single tiles."""

    def __init__(self, config: AbmilConfig) -> None:
        super().__init__(config)
        self.config = config
        self.embed = nn.Sequential(
            nn.Linear(config.n_features, config.hidden), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.scorer = AttentionScorer(config.hidden, config.attention, 1, gated=config.gated)
        self.classifier = nn.Linear(config.hidden, config.n_classes)
        xavier(self)

    def forward(self, bag: Tensor) -> SlideOutput:
        """Judge a bag, float (N, d); attention is (N,)."""
        pooled = attention_pool(
            bag, self._judge, self.config.chunk_tiles, self.classifier.weight
        )  # values (1, hidden), scores (N, 1)
        scores = pooled.scores.squeeze(1)  # (N,)
        logits = self.classifier(pooled.values.squeeze(0))  # (C,)
        return SlideOutput(logits, torch.softmax(scores, 0), None, scores)

    def _judge(self, tiles: Tensor) -> TileJudgement:
        h = self.embed(tiles)  # (n, hidden)
        return TileJudgement(self.scorer(h), h)
