"""PBIP: a network whose class activation maps are similarities to prototypes of each class, at four scales.

    tile (3, y, x) ─► backbone ─► features at strides 4, 8, 16, 32, each pixel of unit length
    prototypes (K, d) ─► one MLP a scale ─► (K, C_i)
    map_i = s_i · ⟨pixel, prototype⟩ (K, y_i, x_i)        subclass logits = mean of the map over the pixels

Tang, Fan, Pagnucco & Song, "Prototype-Based Image Prompting for Weakly Supervised Histopathological Image
Segmentation" (CVPR 2025, arXiv 2503.12068). A class has several prototypes, its subclasses; its logit and map are made
of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.pyramid_backbones import STRIDES, Maps, PyramidBackbone, pyramid_backbone
from store_schema.errors import InputError, ModelError

Similarity: TypeAlias = Literal["cosine", "projected"]
Merge: TypeAlias = Literal["mean", "max", "softmax"]
Scales: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]

START_SCALE: Final = 1 / 0.07
# A cosine of 1 then is a logit of 100: beyond that, nothing is learned any more (Radford et al., CLIP, 2021).
MOST_SCALE: Final = 100.0
# Of the scales at strides 4, 8, 16 and 32, as the authors fuse them; the finest sees too little to tell classes.
FUSION: Final = (0.0, 0.3, 0.3, 0.4)
COARSEST_STRIDE: Final = STRIDES[-1]


@dataclass(frozen=True)
class PbipConfig:
    """The network's shape, all that is needed to build it again.

    Attributes
    ----------
    backbone
        See ``pyramid_backbone``.
    class_names
        In the order of the maps.
    k_list
        Subclasses of each class, at least 1.
    feature_dim
        Length of a prototype.
    tile_px
        Side of the tiles [px], a multiple of 32.
    similarity
        ``cosine``: projected prototypes are of unit length, as in the paper; ``projected``: they are as the
        MLP gives them, as in the authors' code, so that their length weighs too.
    hidden
        Width of the MLPs.

    Raises
    ------
    InputError
        If a number makes no sense.
    """

    backbone: str
    class_names: tuple[str, ...]
    k_list: tuple[int, ...]
    feature_dim: int
    tile_px: int
    similarity: Similarity = "cosine"
    hidden: int = 256

    def __post_init__(self) -> None:
        if not self.class_names or len(set(self.class_names)) < len(self.class_names):
            raise InputError("A network needs classes, each of a name of its own.")
        if len(self.k_list) != len(self.class_names) or min(self.k_list) < 1:
            raise InputError(
                f"There are {len(self.class_names)} classes and {len(self.k_list)} numbers of subclasses: give "
                "each class one of 1 or more."
            )
        if min(self.feature_dim, self.hidden) < 1:
            raise InputError("A prototype's length and the hidden width must be 1 or more.")
        if self.tile_px < COARSEST_STRIDE or self.tile_px % COARSEST_STRIDE:
            raise InputError(
                f"Tiles of {self.tile_px} px don't fit strides of 4 to {COARSEST_STRIDE}: take a grid whose "
                f"tiles are a multiple of {COARSEST_STRIDE} px."
            )
        if self.similarity not in ("cosine", "projected"):
            raise InputError(f"There is no similarity {self.similarity}: give cosine or projected.")

    @property
    def n_prototypes(self) -> int:
        """All subclasses together, K."""
        return sum(self.k_list)


class PbipOutput(NamedTuple):
    """What the network says of a batch, the finest scale first.

    ``maps`` are float32 (n, K, y, x), one a subclass; ``logits`` float32 (n, K) are their means.
    """

    maps: Scales
    logits: Scales


class Pbip(nn.Module):
    """The classification network of PBIP.

    Parameters
    ----------
    config
        Its shape.
    prototypes
        float (K, feature_dim), subclasses in the order of the classes; they stay as they are.
    backbone
        With its weights; None builds ``config.backbone`` with random ones.

    Raises
    ------
    ModelError
        If the prototypes are others than the config says, or not finite.
    """

    prototypes: Tensor

    def __init__(
        self, config: PbipConfig, prototypes: Tensor, backbone: PyramidBackbone | None = None
    ) -> None:
        super().__init__()
        wanted = (config.n_prototypes, config.feature_dim)
        if tuple(prototypes.shape) != wanted:
            raise ModelError(
                f"The prototypes are {tuple(prototypes.shape)} and the network takes (prototype, feature) "
                f"{wanted}: use the bank that it was made for."
            )
        if not bool(torch.isfinite(prototypes).all()):
            raise ModelError("A prototype is not finite: make the bank again.")
        self.config = config
        self.backbone = pyramid_backbone(config.backbone) if backbone is None else backbone
        if self.backbone.card.name != config.backbone:
            raise ModelError(
                f"The backbone is {self.backbone.card.name} and the settings say {config.backbone}."
            )
        self.register_buffer("prototypes", prototypes.detach().float().clone())
        self.project = nn.ModuleList(
            nn.Sequential(
                nn.Linear(config.feature_dim, config.hidden),
                nn.ReLU(),
                nn.Linear(config.hidden, channels),
            )
            for channels in self.backbone.channels
        )
        # its logarithm is learned: it stays above 0, and a step changes it by a share of itself
        self.log_scale = nn.Parameter(torch.full((len(STRIDES),), math.log(START_SCALE)))

    def normalize(self, tiles: Tensor) -> Tensor:
        """Bring uint8 (n, y, x, rgb) to the backbone's space: float32 (n, 3, y, x)."""
        return self.backbone.normalize(tiles)

    def forward(self, x: Tensor) -> PbipOutput:
        """Return maps and logits of float (n, 3, y, x), as ``normalize`` returns it."""
        features: Maps = self.backbone(x)
        # similarities are float32 under autocast too: bf16 would tell 256 of them apart
        with torch.autocast(x.device.type, enabled=False):
            maps = tuple(self._similarity(k, pixels.float()) for k, pixels in enumerate(features))
        logits = tuple(found.mean((2, 3)) for found in maps)
        return PbipOutput(cast("Scales", maps), cast("Scales", logits))

    def projected_prototypes(self, scale: int) -> Tensor:
        """Return the prototypes in the space of a scale, from 0: float (K, C_i)."""
        projected = self.project[scale](self.prototypes)
        if self.config.similarity == "cosine":
            projected = F.normalize(projected, dim=1)
        return cast("Tensor", projected)

    def _similarity(self, scale: int, pixels: Tensor) -> Tensor:
        factor = self.log_scale[scale].clamp(max=math.log(MOST_SCALE)).exp()
        kernel = factor * self.projected_prototypes(scale)
        return torch.einsum("ncyx,kc->nkyx", F.normalize(pixels, dim=1), kernel)


def new_pbip(
    config: PbipConfig,
    prototypes: Tensor,
    *,
    seed: int,
    pretrained: bool = False,
    weights_file: str | None = None,
) -> Pbip:
    """Build a network to be trained; what is random in it follows from ``seed``.

    Parameters
    ----------
    config, prototypes
        See ``Pbip``.
    seed
        Of all weights that aren't loaded.
    pretrained, weights_file
        Where the backbone's are from, see ``pyramid_backbone``.

    Raises
    ------
    ModelError
        If the backbone or its weights can't be had, or the prototypes don't fit.
    """
    with torch.random.fork_rng(devices=[]):  # the caller's generator stays as it was
        torch.default_generator.manual_seed(seed)
        backbone = pyramid_backbone(
            config.backbone, pretrained=pretrained, weights_file=weights_file
        )
        return Pbip(config, prototypes, backbone)


def merge_subclasses(values: Tensor, k_list: Sequence[int], how: Merge) -> Tensor:
    """Make classes of subclasses: float (n, K, …) → (n, class, …).

    Parameters
    ----------
    values
        Logits or maps.
    k_list
        Subclasses of each class.
    how
        ``mean`` or ``max`` of a class's subclasses, or their mean weighted by ``softmax`` over them (which
        the authors' code calls max).
    """
    groups = torch.split(values, list(k_list), dim=1)
    if how == "mean":
        merged = [group.mean(1) for group in groups]
    elif how == "max":
        merged = [group.amax(1) for group in groups]
    else:
        merged = [(group.softmax(1) * group).sum(1) for group in groups]
    return torch.stack(merged, 1)


def class_logits(logits: Scales, config: PbipConfig, how: Merge = "mean") -> Scales:
    """Return float (n, class) of each scale, of an output's ``logits``; see ``merge_subclasses``."""
    return cast("Scales", tuple(merge_subclasses(scale, config.k_list, how) for scale in logits))


def class_maps(maps: Scales, config: PbipConfig, how: Merge = "mean") -> Scales:
    """Return float (n, class, y, x) of each scale, of an output's ``maps``; see ``merge_subclasses``."""
    return cast("Scales", tuple(merge_subclasses(scale, config.k_list, how) for scale in maps))


def scale_confidences(
    output: PbipOutput, config: PbipConfig, size_px: int, how: Merge = "softmax"
) -> list[tuple[float, Tensor]]:
    """Return the weight and the confidence of each scale that is fused, float (n, class, y, x) of one size.

    The confidence is the sigmoid of a class's map, which is what the classification loss makes of the map's
    mean: it is comparable from tile to tile. The authors stretch each map of a tile from 0 to 1 instead, so that
    every tile holds some pixel that is certain, also of a class that isn't there, unless the tile's labels are
    known and say so; in a slide they aren't. That is ``pbip_published``.
    """
    maps = class_maps(output.maps, config, how)
    return [
        (weight, resized(torch.sigmoid(scale), size_px))
        for weight, scale in zip(FUSION, maps, strict=True)
        if weight
    ]


def confidence(
    output: PbipOutput, config: PbipConfig, size_px: int, how: Merge = "softmax"
) -> Tensor:
    """Return the fused confidence of each class, float (n, class, size_px, size_px) in 0 to 1.

    0.3, 0.3 and 0.4 of the scales at strides 8, 16 and 32; see ``scale_confidences``.
    """
    return sum_weighted(scale_confidences(output, config, size_px, how))


def class_probabilities(output: PbipOutput, config: PbipConfig, how: Merge = "softmax") -> Tensor:
    """Return the probability that a tile holds a class, float (n, class): scales are fused as maps are."""
    logits = class_logits(output.logits, config, how)
    return sum_weighted(
        [(w, torch.sigmoid(scale)) for w, scale in zip(FUSION, logits, strict=True) if w]
    )


def resized(maps: Tensor, size_px: int) -> Tensor:
    """Return float (n, channel, y, x) at another size, bilinear, corners at the tile's."""
    if maps.shape[-2:] == (size_px, size_px):
        return maps
    # a map that is made smaller is averaged: its pixels would be skipped otherwise
    smaller = maps.shape[-1] > size_px
    return F.interpolate(
        maps, (size_px, size_px), mode="bilinear", align_corners=False, antialias=smaller
    )


def sum_weighted(parts: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return Σ weight · value."""
    total = parts[0][0] * parts[0][1]
    for weight, value in parts[1:]:
        total = total + weight * value
    return total
