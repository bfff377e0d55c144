"""The settings of PBIP's training, and what they and the tiles must be like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from models.pbip import Merge, Pbip
from models.pbip_diagnostics import constant_classes
from models.pbip_losses import PbipLossSpec
from models.pbip_sampling import Sampling
from models.prompt_encoder import PromptEncoder
from models.tile_augment import AugmentSpec
from models.weak_tiles import WeakTiles
from store_schema.errors import InputError, ModelError

# Colour is what stain normalization is for; the paper turns and mirrors only.
TURNS_ONLY: Final = AugmentSpec(colour=0.0)


@dataclass(frozen=True)
class PbipTrainingSpec:
    """What the network learns by.

    Attributes
    ----------
    loss
        What it minimises.
    augment
        How training tiles are varied.
    sampling
        ``slide``: a new random tile of each slide and step; ``tile``: every tile once an epoch.
    batch_size
        Tiles a step.
    round_batches
        Steps between two validations, which is what ``fit`` calls an epoch; see ``rounds_of``.
    merge
        How classes are made of subclasses in validation, and so in segmenting; training takes the mean.
    """

    loss: PbipLossSpec = field(default_factory=PbipLossSpec)
    augment: AugmentSpec = TURNS_ONLY
    sampling: Sampling = "slide"
    batch_size: int = 10
    round_batches: int = 100
    merge: Merge = "softmax"

    def __post_init__(self) -> None:
        if min(self.batch_size, self.round_batches) < 1:
            raise InputError("The batch size and the batches a round must be 1 or more.")


def check_training(
    spec: PbipTrainingSpec,
    train: WeakTiles,
    val: WeakTiles,
    model: Pbip,
    encoder: PromptEncoder | None,
) -> None:
    """Check that the parts of a training fit each other.

    Raises
    ------
    InputError
        If a split has no tiles, labels are not 0 and 1, all training tiles have the same labels, or what is to be
        matched can't be.
    ModelError
        If the network was built for another tile size, or the encoder isn't the prototypes'.
    """
    config = model.config
    for split, source in (("training", train), ("validation", val)):
        if not len(source):
            raise InputError(f"The {split} split has no tiles: give more slides or tiles.")
        if source.tile_px != config.tile_px:
            raise ModelError(
                f"The network takes tiles of {config.tile_px} px and the {split} tiles have {source.tile_px} px: "
                "use tiles of one size."
            )
        shape = (len(source), len(config.class_names))
        if source.labels.shape != shape or not np.isin(source.labels, (0, 1)).all():
            raise InputError(
                f"The labels of the {split} tiles must be 0 or 1, one a tile and class "
                f"({', '.join(config.class_names)}): they are {source.labels.shape}."
            )
        if source.slide_of.shape != (len(source),):
            raise InputError(f"The {split} tiles must each say which slide they are of.")
    constant = constant_classes(train.labels, config.class_names)
    if len(constant) == len(config.class_names):
        held = ", ".join(name for name, how in constant if how == "every") or "none"
        raise InputError(
            f"All training tiles have the same labels ({held}): give slides or tiles of at least two classes."
        )
    if not spec.loss.contrastive:
        return
    if encoder is None or config.n_prototypes < 2:
        raise InputError(
            "The contrastive loss needs the prototypes' encoder and at least two prototypes: give them, or give "
            "it the weight 0."
        )
    if encoder.dim != config.feature_dim:
        raise ModelError(
            f"The encoder's features have length {encoder.dim} and the prototypes {config.feature_dim}: use "
            "the encoder that made the bank."
        )
