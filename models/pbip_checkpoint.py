"""Trained PBIP networks on disk: what their descriptions say, and how they are built again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch

from models.checkpoint import load_description, load_weights, saved_config
from models.pbip import Pbip, PbipConfig
from models.pbip_losses import PbipLossSpec
from store_schema.errors import ModelError

PBIP: Final = "pbip"

Description: TypeAlias = Mapping[str, Any]


def pbip_description(
    model: Pbip,
    loss: PbipLossSpec,
    *,
    mpp: float | None,
    stain: Description,
    bank: Description,
    trained_on: Description,
) -> dict[str, Any]:
    """Describe a network, for ``save_model``.

    Parameters
    ----------
    model, loss
        What was trained, and on what loss.
    mpp
        Pixel size of the tiles [µm/px]; None where it isn't known.
    stain
        How tiles were normalized, as ``StainSpec.provenance``.
    bank
        Of the prototypes: ``name``, ``fingerprint``, and ``encoder``, the provenance of what made them. The
        prototypes themselves are among the weights.
    trained_on
        Where the tiles are from, how many, and what the training warned of; JSON.
    """
    return {
        "kind": PBIP,
        "config": asdict(model.config),
        "loss": asdict(loss),
        "tile_px": model.config.tile_px,
        "mpp": mpp,
        "stain": dict(stain),
        "class_names": list(model.config.class_names),
        "bank": dict(bank),
        "backbone_licence": model.backbone.licence,
        "trained_on": dict(trained_on),
    }


def read_pbip_description(path: Path) -> Description:
    """Read and check the description of a network, without its weights.

    Raises
    ------
    ModelError
        If the checkpoint is of another kind, or the description is damaged.
    """
    description = load_description(path)
    kind = description.get("kind")
    if kind != PBIP:
        raise ModelError(
            f"{path} is a model of kind {kind!r}: give a PBIP network (`slidestream pbip train`)."
        )
    config = saved_config(description, "config", PbipConfig, path)
    mpp = description.get("mpp")
    sound = (
        description.get("tile_px") == config.tile_px
        and description.get("class_names") == list(config.class_names)
        and (mpp is None or (isinstance(mpp, int | float) and mpp > 0))
        and isinstance(description.get("stain"), dict)
        and isinstance(description.get("bank"), dict)
    )
    if not sound:
        raise ModelError(
            f"The description beside {path} is damaged (tile_px, class_names, mpp, stain or bank): restore it, or "
            "train again."
        )
    return description


def load_pbip(path: Path) -> tuple[Pbip, Description]:
    """Load a trained network, in eval mode on the CPU.

    Parameters
    ----------
    path
        Of its ``model.safetensors``; the description lies beside it.

    Raises
    ------
    ModelError
        If it is a model of another kind or another architecture, or a file is missing, damaged, or a pickle.
    """
    description = read_pbip_description(path)
    config = saved_config(description, "config", PbipConfig, path)
    with torch.random.fork_rng(devices=[]):  # weights are drawn, and replaced at once
        model = Pbip(config, torch.zeros(config.n_prototypes, config.feature_dim))
    load_weights(model, path)
    return model.eval(), description


def start_from(model: Pbip, path: Path) -> Description:
    """Give a network the weights of a trained one, to go on from; prototypes stay its own.

    Parameters
    ----------
    model
        Of the same architecture and classes.
    path
        Of the trained one's ``model.safetensors``.

    Returns
    -------
    Description
        Of the trained one.

    Raises
    ------
    ModelError
        If it is a model of another kind or architecture, of other classes or another tile size, or a file is
        missing, damaged, or a pickle.
    """
    trained, description = load_pbip(path)
    ours, theirs = asdict(model.config), asdict(trained.config)
    differences = [
        f"{name} is {theirs[name]}, here {ours[name]}"
        for name in ours
        if ours[name] != theirs[name]
    ]
    if differences:
        raise ModelError(
            f"{path} can't be gone on from ({'; '.join(differences)}): use its settings, or start anew."
        )
    state = trained.state_dict()
    state["prototypes"] = model.prototypes
    model.load_state_dict(state)
    return description
