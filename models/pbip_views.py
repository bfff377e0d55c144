"""What several looks at a tile agree on: scales, turned views and networks, averaged, and how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from models.pbip import Merge, Pbip, class_probabilities, scale_confidences


@dataclass(frozen=True)
class View:
    """One of the eight symmetries of a square: quarter turns, then perhaps a mirror image."""

    quarter_turns: int = 0
    mirrored: bool = False

    def apply(self, x: Tensor) -> Tensor:
        """Turn float (n, channel, y, x)."""
        turned = torch.rot90(x, self.quarter_turns, (2, 3))
        return turned.flip(3) if self.mirrored else turned

    def undo(self, x: Tensor) -> Tensor:
        """Turn what was seen in the view back."""
        unflipped = x.flip(3) if self.mirrored else x
        return torch.rot90(unflipped, -self.quarter_turns, (2, 3))


AS_IT_IS: Final = (View(),)
ALL_VIEWS: Final = tuple(View(turns, mirrored) for mirrored in (False, True) for turns in range(4))


@dataclass(frozen=True)
class Agreement:
    """What networks say of a batch of n tiles.

    Attributes
    ----------
    confidence
        float (n, class, y, x), the mean p over scales (weighted), views and networks.
    probability
        float (n, class), the same of the tile as a whole.
    entropy
        float (n,) [nat]: H(p) = -p ln p - (1 - p) ln(1 - p), a mean over pixels and classes; ln 2 at the most.
        Whether a class is there is asked class by class: they don't exclude each other.
    disagreement
        float (n,) [nat]: H(mean of p) - mean of H(p) over scales, views and networks, a mean over pixels and
        classes. It is 0 where all say the same, however unsure each is: the mutual information of Houlsby et al.
        (BALD, 2011), the Jensen-Shannon divergence of the opinions (Lin 1991).
    """

    confidence: Tensor
    probability: Tensor
    entropy: Tensor
    disagreement: Tensor


def agreement(
    models: Sequence[Pbip],
    tiles: Tensor,
    map_px: int,
    *,
    views: Sequence[View] = AS_IT_IS,
    merge: Merge = "softmax",
) -> Agreement:
    """Ask each network about each view of a batch, and average.

    Parameters
    ----------
    models
        Of the same classes, in eval mode.
    tiles
        uint8 (n, y, x, rgb) on their device, square.
    map_px
        Side of the maps [px].
    views
        Of each tile; what is said of one is turned back.
    merge
        See ``merge_subclasses``.
    """
    share = 1 / (len(models) * len(views))
    total, of_each, probability = (
        torch.zeros((), device=tiles.device),
        torch.zeros((), device=tiles.device),
        torch.zeros((), device=tiles.device),
    )
    for model in models:
        x = model.normalize(tiles)
        for view in views:
            output = model(view.apply(x))
            probability = probability + share * class_probabilities(output, model.config, merge)
            for weight, seen in scale_confidences(output, model.config, map_px, merge):
                p = view.undo(seen)
                total = total + share * weight * p
                of_each = of_each + share * weight * binary_entropy_nats(p)
    unsure = binary_entropy_nats(total)
    return Agreement(
        total,
        probability,
        unsure.mean((1, 2, 3)),
        (unsure - of_each).mean((1, 2, 3)).clamp_min(0),  # rounding alone makes it negative
    )


def binary_entropy_nats(p: Tensor) -> Tensor:
    """Return -p ln p - (1 - p) ln(1 - p) [nat] of float in 0 to 1, 0 at both ends."""
    p = p.clamp(0, 1)  # weights that add to 1 but for the last bit
    entropy: Tensor = torch.special.entr(p) + torch.special.entr(1 - p)
    return entropy
