"""CLAM: attention pooling whose embedding is shaped by clustering tiles (Lu et al., Nat. Biomed. Eng. 2021).

    h = dropout(relu(W x));   a = softmax over tiles of  w (tanh(V h) ⊙ sigmoid(U h))
    CLAM-SB   one attention; logits = classifier(Σ a h)
    CLAM-MB   one attention per class; logits_c = classifier_c(Σ a_c h)

Instance loss: the k tiles that a class attends to most are evidence for it (1) and the k that it
attends to least are not (0) if the slide has the class. With ``subtyping`` (classes exclude each
other) the k most attended are 0 for each class that the slide does not have. A tile's loss is the
smooth top-1 SVM loss of Berrada, Zisserman & Kumar (ICLR 2018) with tau = alpha = 1, which the paper
uses: for two classes with scores s, log Σ_j exp(alpha [j ≠ y] + s_j) - s_y = softplus(1 - (s_y - s_other)).
It depends on the difference of the scores alone, so a class's instance classifier is one linear
logit, z = s_1 - s_0.

    loss = 0.7 · bag loss + 0.3 · mean over the judged classes of the mean over their tiles
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.abmil import AttentionScorer
from models.attention_pool import TileJudgement, attention_pool
from models.initialization import xavier
from models.slide_model import BagLoss, SlideModel, SlideModelConfig, SlideOutput, TaskKind


@dataclass(frozen=True)
class ClamConfig(SlideModelConfig):
    """Settings of CLAM.

    Attributes
    ----------
    hidden
        Width of the embedding h.
    attention
        Width of V h and U h.
    multi_branch
        Whether each class has its own attention (MB) or all share one (SB).
    k
        Tiles of each kind that the instance loss takes; at most half of the bag.
    subtyping
        Whether classes exclude each other, so that a slide's tiles speak against the others.
    bag_weight
        Of the bag loss; the instance loss has the rest.
    dropout
        Of the embedding.
    """

    hidden: int = 512
    attention: int = 256
    multi_branch: bool = False
    k: int = 8
    subtyping: bool = False
    bag_weight: float = 0.7
    dropout: float = 0.25


class Clam(SlideModel):
    """Both kinds, by ``config.multi_branch``; the instance loss is made of what forward returns."""

    def __init__(self, config: ClamConfig) -> None:
        super().__init__(config)
        self.config: ClamConfig = config
        n_branches = config.n_classes if config.multi_branch else 1
        self.embed = nn.Sequential(
            nn.Linear(config.n_features, config.hidden), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.scorer = AttentionScorer(config.hidden, config.attention, n_branches, gated=True)
        self.instance = nn.Linear(config.hidden, config.n_classes)
        self.classifier = nn.Linear(config.hidden, config.n_classes)  # row c: classifier of class c
        xavier(self)

    def forward(self, bag: Tensor) -> SlideOutput:
        """Judge a bag, float (N, d); attention is (N,) of SB, (N, C) of MB."""
        pooled = attention_pool(bag, self._judge, self.config.chunk_tiles, self.classifier.weight)
        # values (branch, hidden), scores (N, branch), instance logits (N, C)
        if self.config.multi_branch:
            scores = pooled.scores  # (N, C)
            logits = (pooled.values * self.classifier.weight).sum(1) + self.classifier.bias  # (C,)
        else:
            scores = pooled.scores.squeeze(1)  # (N,)
            logits = self.classifier(pooled.values.squeeze(0))  # (C,)
        return SlideOutput(logits, torch.softmax(scores, 0), pooled.instance_logits, scores)

    def loss(self, output: SlideOutput, target: Tensor, bag_loss: BagLoss) -> Tensor:
        """Return the weighted sum of the bag's loss and the instances'."""
        weight = self.config.bag_weight
        bag_term = bag_loss(output.logits, target)
        return weight * bag_term + (1 - weight) * self.instance_loss(output, target)

    def instance_loss(self, output: SlideOutput, target: Tensor) -> Tensor:
        """Return the clustering loss; 0 where there is nothing to judge (a bag of one tile).

        Parameters
        ----------
        output
            Of ``forward``.
        target
            int64 () class index, or float (C,) of a multi-label task.
        """
        assert output.instance_logits is not None
        n_tiles, n_classes = output.instance_logits.shape
        k = min(self.config.k, n_tiles // 2)  # no tile is told to be both
        present = target > 0.5 if target.ndim else F.one_hot(target, n_classes).bool()  # (C,)
        terms = []
        for c in range(n_classes) if k else ():
            scores = output.attention_logits  # (N,) or (N, C)
            scores = scores[:, c] if self.config.multi_branch else scores
            z = output.instance_logits[:, c]  # (N,)
            top = z[scores.topk(k).indices]  # (k,)
            if present[c]:
                bottom = z[scores.topk(k, largest=False).indices]  # (k,)
                terms.append(F.softplus(torch.cat([1 - top, 1 + bottom])).mean())
            elif self.config.subtyping:
                terms.append(F.softplus(1 + top).mean())
        return torch.stack(terms).mean() if terms else output.logits.new_zeros(())

    def instance_probabilities(self, instance_logits: Tensor, task: TaskKind) -> Tensor:
        """Return sigmoids, whatever the task: each class's instance classifier speaks for itself."""
        return torch.sigmoid(instance_logits)

    def _judge(self, tiles: Tensor) -> TileJudgement:
        h = self.embed(tiles)  # (n, hidden)
        return TileJudgement(self.scorer(h), h, self.instance(h))
