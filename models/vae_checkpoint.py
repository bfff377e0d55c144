"""Trained VAEs and heads on disk: what their descriptions say, and how they are built again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch

from models.checkpoint import load_description, load_weights, saved_config
from models.tile_head import TileHead, TileHeadConfig
from models.vae import VaeConfig, VaeSkip96
from models.vae_loss import VaeLossSpec
from store_schema.errors import ModelError

VAE: Final = "vae"
HEAD: Final = "vae-head"

Description: TypeAlias = Mapping[str, Any]

_WHAT: Final[Mapping[str, str]] = {
    VAE: "a VAE (`slidestream vae train`)",
    HEAD: "a VAE's tile classifier (`slidestream vae finetune`)",
}


def vae_description(
    model: VaeSkip96,
    loss: VaeLossSpec,
    *,
    mpp: float | None,
    stain: Description,
    trained_on: Description,
) -> dict[str, Any]:
    """Describe a VAE, for ``save_model``.

    Parameters
    ----------
    model, loss
        What was trained, and on what loss.
    mpp
        Pixel size of the tiles [µm/px]; None where it isn't known.
    stain
        How tiles were normalized, as ``StainSpec.provenance``.
    trained_on
        Where the tiles are from, and how many; JSON.
    """
    return {
        "kind": VAE,
        "config": asdict(model.config),
        "loss": asdict(loss),
        "tile_px": model.config.tile_px,
        "mpp": mpp,
        "stain": dict(stain),
        "trained_on": dict(trained_on),
    }


def head_description(
    head: TileHead, vae: Description, *, trained_on: Description
) -> dict[str, Any]:
    """Describe a head, for ``save_model``.

    Parameters
    ----------
    head
        What was trained.
    vae
        The description of the VAE that it sits on: the head takes the same tiles.
    trained_on
        Where the labelled tiles are from, and how many; JSON.
    """
    kept = {name: vae[name] for name in ("config", "tile_px", "mpp", "stain")}
    return {
        "kind": HEAD,
        **kept,
        "head": asdict(head.config),
        "vae": vae.get("sha256"),
        "trained_on": dict(trained_on),
    }


def read_vae_description(path: Path) -> Description:
    """Read and check the description of a VAE or of a head, without its weights.

    Raises
    ------
    ModelError
        If the checkpoint is of another kind, or the description is damaged.
    """
    description = load_description(path)
    kind = description.get("kind")
    if kind not in _WHAT:
        raise ModelError(f"{path} is a model of kind {kind!r}: give {_WHAT[VAE]} or {_WHAT[HEAD]}.")
    config = saved_config(description, "config", VaeConfig, path)
    if kind == HEAD:
        saved_config(description, "head", TileHeadConfig, path)
    mpp = description.get("mpp")
    sound = (
        description.get("tile_px") == config.tile_px
        and (mpp is None or (isinstance(mpp, int | float) and mpp > 0))
        and isinstance(description.get("stain"), dict)
    )
    if not sound:
        raise ModelError(
            f"The description beside {path} is damaged (tile_px, mpp or stain): restore it, or train again."
        )
    return description


def load_vae(path: Path) -> tuple[VaeSkip96, Description]:
    """Load a trained VAE, in eval mode on the CPU.

    Parameters
    ----------
    path
        Of its ``model.safetensors``; the description lies beside it.

    Raises
    ------
    ModelError
        If it is a model of another kind or another architecture, or a file is missing, damaged, or a pickle.
    """
    description = read_vae_description(path)
    _require(VAE, description, path)
    model = VaeSkip96(saved_config(description, "config", VaeConfig, path))
    _load(model, path)
    return model.eval(), description


def load_head(path: Path) -> tuple[TileHead, Description]:
    """Load a trained head together with its VAE; otherwise as ``load_vae``."""
    description = read_vae_description(path)
    _require(HEAD, description, path)
    vae = VaeSkip96(saved_config(description, "config", VaeConfig, path))
    head = TileHead(vae, saved_config(description, "head", TileHeadConfig, path))
    _load(head, path)
    return head.eval(), description


def _load(model: VaeSkip96 | TileHead, path: Path) -> None:
    load_weights(model, path)
    numbers = (tensor for tensor in model.state_dict().values() if tensor.is_floating_point())
    if not all(bool(torch.isfinite(tensor).all()) for tensor in numbers):
        raise ModelError(
            f"{path} is damaged (weights that are not finite): restore it, or train again."
        )


def _require(kind: str, description: Description, path: Path) -> None:
    found = description["kind"]
    if found != kind:
        raise ModelError(f"{path} is {_WHAT[found]}: give {_WHAT[kind]}.")
