"""What PBIP minimises: classification at four scales, matching of foreground and background, smooth sparse maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.pbip import (
    FUSION,
    PbipConfig,
    PbipOutput,
    Scales,
    class_logits,
    class_maps,
    merge_subclasses,
)
from store_schema.errors import InputError


@dataclass(frozen=True)
class PbipLossSpec:
    """The terms' weights.

    Attributes
    ----------
    scale_weights
        Of the binary cross-entropies at strides 4, 8, 16 and 32; a scale of weight 0 isn't computed.
    contrastive
        Of the matching of the foreground, and of that of the background; 0 needs no encoder.
    cam_smooth, cam_sparsity
        Of the maps' total variation, and of their mean.
    temperature
        τ of the matching.
    mask_alpha
        What reaches this share of a map's largest value is foreground.
    """

    scale_weights: tuple[float, float, float, float] = (0.0, 0.1, 1.0, 1.0)
    contrastive: float = 0.1
    cam_smooth: float = 0.1
    cam_sparsity: float = 0.01
    temperature: float = 0.07
    mask_alpha: float = 0.5

    def __post_init__(self) -> None:
        weights = (*self.scale_weights, self.contrastive, self.cam_smooth, self.cam_sparsity)
        if min(weights) < 0 or not any(self.scale_weights):
            raise InputError(
                "Weights of the loss can't be negative, and one scale's must be above 0."
            )
        if len(self.scale_weights) != len(FUSION):
            raise InputError(f"Give {len(FUSION)} weights, one a scale.")
        if self.temperature <= 0 or not 0 < self.mask_alpha <= 1:
            raise InputError(
                "The temperature must be above 0, and mask_alpha above 0 and at most 1."
            )


def classification_loss(
    logits: Scales, config: PbipConfig, labels: Tensor, spec: PbipLossSpec
) -> Tensor:
    """Return Σ weight_i · BCE of the class logits of scale i, a mean over tiles and classes.

    Parameters
    ----------
    logits
        Of a ``PbipOutput``; a class's is the mean over its subclasses.
    labels
        float (n, class).
    """
    terms = [
        weight * F.binary_cross_entropy_with_logits(scale.float(), labels)
        for weight, scale in zip(spec.scale_weights, class_logits(logits, config), strict=True)
        if weight
    ]
    return torch.stack(terms).sum()


def map_variation(output: PbipOutput, config: PbipConfig) -> Tensor:
    """Return the mean absolute difference of neighbours, down and across, of the classes' confidence maps.

    The anisotropic total variation (Rudin, Osher & Fatemi 1992), of the scales that are fused, each at its own size
    and weighted as there.
    """
    total = torch.zeros((), device=output.maps[0].device)
    for weight, maps in _confidence_maps(output, config):
        down, across = maps.diff(dim=2).abs(), maps.diff(dim=3).abs()
        # a map of one pixel has no neighbours
        total = total + weight * sum(part.mean() for part in (down, across) if part.numel())
    return total


def map_mean(output: PbipOutput, config: PbipConfig) -> Tensor:
    """Return the mean (the L1 norm a pixel, as none is negative) of those maps."""
    parts = [weight * maps.mean() for weight, maps in _confidence_maps(output, config)]
    return torch.stack(parts).sum()


def _confidence_maps(output: PbipOutput, config: PbipConfig) -> list[tuple[float, Tensor]]:
    maps = class_maps(output.maps, config)
    return [(w, torch.sigmoid(scale)) for w, scale in zip(FUSION, maps, strict=True) if w]


def selected_subclasses(logits: Tensor, config: PbipConfig, labels: Tensor) -> Tensor:
    """Return which subclasses a tile's foreground is to match: bool (n, K).

    Of a class that the tile holds, those whose logit is not below the mean of the class's subclasses, which is
    the class's logit. A class's only subclass is therefore always taken (the authors ask for more than the mean,
    and fail on it).

    Parameters
    ----------
    logits
        float (n, K) of the coarsest scale.
    labels
        float (n, class).
    """
    repeats = torch.tensor(config.k_list, device=logits.device)
    means = merge_subclasses(logits, config.k_list, "mean")
    mean_of_class = means.repeat_interleave(repeats, dim=1)
    present = labels.repeat_interleave(repeats, dim=1) > 0
    return (logits >= mean_of_class) & present


def foreground_masks(maps: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return soft masks of the foreground and of the background: float (p, 1, y, x) each, in 0 to 1.

    With a = relu(map) / its maximum, foreground is a where a reaches alpha, background is 1 - a elsewhere: each
    pixel is in one of them, as strongly as the map says, so that a gradient reaches the map.

    Parameters
    ----------
    maps
        float (p, 1, y, x), each with a value above 0.
    """
    positive = maps.relu()
    # the largest value is a unit here, and not to be learned
    a = positive / positive.detach().amax((2, 3), keepdim=True).clamp_min(1e-6)
    inside = a.detach() >= alpha
    zero = torch.zeros_like(a)
    return torch.where(inside, a, zero), torch.where(inside, zero, 1 - a)


def matching_losses(
    foreground: Tensor,
    background: Tensor,
    prototypes: Tensor,
    subclass: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Return the InfoNCE losses of foreground and background features, means over p pairs of a tile and a subclass.

    With cosine similarities over τ: the foreground's positive is the pair's own prototype, its negatives are all
    others; for the background all others are positives, summed before the logarithm, and the own one is the
    negative (van den Oord et al. 2018; Tang et al. 2025, section 3.4).

    Parameters
    ----------
    foreground, background
        float (p, d).
    prototypes
        float (K, d), K at least 2.
    subclass
        int64 (p,): the prototype of each pair.
    """
    unit = F.normalize(prototypes.float(), dim=1)
    own = F.one_hot(subclass, len(prototypes)).bool()
    losses = []
    for features, positive in ((foreground, own), (background, ~own)):
        similarity = F.normalize(features.float(), dim=1) @ unit.T / temperature
        of_positives = similarity.masked_fill(~positive, -torch.inf).logsumexp(1)
        losses.append((similarity.logsumexp(1) - of_positives).mean())
    return losses[0], losses[1]
