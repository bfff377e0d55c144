"""The network that a training begins with: a new one, or a trained one to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from dataflow.stain import StainSpec
from jobs.pbip.train_config import NetworkSettings
from jobs.training.tile_checkpoint import checkpoint_of, model_slides, scale_of
from jobs.training.tile_scale import TileScale
from models.pbip import Pbip, PbipConfig, new_pbip
from models.pbip_checkpoint import read_pbip_description, start_from
from models.weights import file_digest
from store_schema.errors import InputError
from store_schema.prototypes import PrototypeBank

PUBLISHED: Final = "published"
NO_WEIGHTS: Final = "none"


@dataclass(frozen=True, eq=False)
class Started:
    """What a training begins with.

    Attributes
    ----------
    model
        The network.
    train_slides, val_slides
        What the network that it goes on from was trained with.
    weights_digest
        Of that network's file; None for a new one.
    notes
        What should be known.
    """

    model: Pbip
    train_slides: frozenset[str] = frozenset()
    val_slides: frozenset[str] = frozenset()
    weights_digest: str | None = None
    notes: tuple[str, ...] = ()


def start_network(
    settings: NetworkSettings,
    bank: PrototypeBank,
    scale: TileScale,
    stain: StainSpec,
    seed: int,
) -> Started:
    """Build the network.

    Parameters
    ----------
    settings
        Backbone, weights, what to go on from.
    bank
        The prototypes.
    scale, stain
        Of the training tiles.
    seed
        Of weights that are drawn.

    Raises
    ------
    InputError
        The network to go on from was trained on tiles of another pixel size or normalization.
    ModelError
        Backbone or weights can't be had, or the network to go on from is another one.
    """
    config = PbipConfig(
        backbone=settings.backbone,
        class_names=bank.class_names,
        k_list=bank.k_list,
        feature_dim=bank.feature_dim,
        tile_px=scale.tile_px,
        similarity=settings.similarity,
        hidden=settings.hidden,
    )
    prototypes = torch.from_numpy(bank.features)
    if settings.init is not None:
        path = checkpoint_of(settings.init)
        description = read_pbip_description(path)
        _check_tiles(description, path, scale, stain)
        model = new_pbip(config, prototypes, seed=seed)
        start_from(model, path)
        seen = model_slides(description)
        train, val = (frozenset(), frozenset()) if seen is None else (seen.train, seen.val)
        return Started(model, train, val, file_digest(path))
    weights = settings.weights
    model = new_pbip(
        config,
        prototypes,
        seed=seed,
        pretrained=weights == PUBLISHED,
        weights_file=None if weights in (PUBLISHED, NO_WEIGHTS) else weights,
    )
    notes = []
    if "non-commercial" in model.backbone.licence:
        notes.append(f"the backbone's weights are under the {model.backbone.licence}")
    return Started(model, notes=tuple(notes))


def _check_tiles(
    description: Mapping[str, Any], path: Path, scale: TileScale, stain: StainSpec
) -> None:
    wanted = scale_of(description)
    if not wanted.fits(scale):
        raise InputError(
            f"{path} was trained on {wanted}, and there are {scale}: take such tiles ({wanted.making}), or start anew."
        )
    trained = StainSpec.from_json(description["stain"])
    if trained.provenance != stain.provenance:
        raise InputError(
            f"{path} was trained on tiles with stain normalization {trained.method}, and {stain.method} is asked for "
            "(or another fit or target): normalize as it was, or start anew."
        )
