"""``open_clip:<model>[/pretrained]``, ``open_clip:<model>@file``: image embeddings of CLIP models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import open_clip
import torch
from torch import nn

from models.cards import CLIP_MEAN, CLIP_STD, RGB, EncoderCard, Interpolation
from models.weights import hub_weights, local_weights
from store_schema.errors import ModelError

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class CocaImage(nn.Module):
    """The image half of a CoCa model, whose visual tower returns tokens too."""

    def __init__(self, coca: nn.Module) -> None:
        super().__init__()
        self.coca = coca

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (n, 3, y, x) → (n, dim), not normalized."""
        embedding: torch.Tensor = self.coca.encode_image(x, normalize=False)  # type: ignore[operator]
        return embedding


@dataclass(frozen=True)
class OpenClipSource:
    """A model that open_clip can build.

    Attributes
    ----------
    model
        open_clip's name, e.g. ``ViT-B-32``.
    pretrained
        open_clip's tag of the weights, e.g. ``laion2b_s34b_b79k``; None when none was named.
    checkpoint
        The user's weights file.
    """

    model: str
    pretrained: str | None = None
    checkpoint: str | None = None

    @property
    def card(self) -> EncoderCard:
        """Card made of open_clip's configurations."""
        config = self._config()
        tag = self._tag()
        image_size = config["vision_cfg"].get("image_size", 224)
        input_px = image_size if isinstance(image_size, int) else image_size[0]
        interpolation = tag.get("interpolation", "bicubic")
        if interpolation not in get_args(Interpolation):
            raise ModelError(
                f"{self.model} wants {interpolation} resampling: choose another encoder."
            )
        named = f"{self.model}/{self.pretrained}" if self.pretrained else self.model
        return EncoderCard(
            name=f"open_clip:{named}" + (f"@{self.checkpoint}" if self.checkpoint else ""),
            input_px=input_px,
            mpp=None,
            mean=cast(RGB, tuple(tag.get("mean", CLIP_MEAN))),
            std=cast(RGB, tuple(tag.get("std", CLIP_STD))),
            interpolation=interpolation,
            crop_pct=1.0,
            dim=int(config["embed_dim"]),
            licence="unknown",
            source=f"file:{self.checkpoint}" if self.checkpoint else self._hub_source(),
            gated=False,
            needs_network=self.checkpoint is None,
            notes="image embedding, not normalized",
        )

    @property
    def label(self) -> str:
        """``open_clip:<model>``, with the tag or the checkpoint's stem."""
        if self.checkpoint is not None:
            return f"open_clip:{self.model}@{Path(self.checkpoint).stem}"
        return f"open_clip:{self.model}" + (f"/{self.pretrained}" if self.pretrained else "")

    def weights(self) -> Path:
        """Return the user's file, or the tag's from the hub."""
        if self.checkpoint is not None:
            return local_weights(self.checkpoint)
        advice = (
            f"give a local file as 'open_clip:{self.model}@weights.safetensors', "
            "or ask for random weights with --random-weights"
        )
        if self.pretrained is None:
            known = self._known_tags()
            raise ModelError(
                f"open_clip:{self.model} names no weights: add a tag to it ({known}), or {advice}."
            )
        hub = self._tag().get("hf_hub")
        if not hub:
            raise ModelError(f"{self.pretrained} of {self.model} is not on the hub: {advice}.")
        owner, repo, *filename = hub.rstrip("/").split("/")
        files = ("/".join(filename),) if filename else HUB_FILES
        return hub_weights(f"{owner}/{repo}", files, gated=False, advice=advice)

    def network(self, weights: Path | None) -> nn.Module:
        """Build the image tower; the text tower is dropped."""
        return image_tower(
            self.model, weights, quick_gelu=bool(self._tag().get("quick_gelu", False))
        )

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] | None = open_clip.get_model_config(self.model)
        if config is None:
            raise ModelError(f"open_clip knows no model {self.model}: choose another encoder.")
        return config

    def _tag(self) -> dict[str, Any]:
        if self.pretrained is None:
            return {}
        tag: dict[str, Any] = open_clip.get_pretrained_cfg(self.model, self.pretrained)
        if not tag:
            known = self._known_tags()
            raise ModelError(
                f"open_clip:{self.model} has no weights {self.pretrained}: choose among {known}."
            )
        return tag

    def _known_tags(self) -> str:
        tags = open_clip.list_pretrained_tags_by_model(self.model)
        return ", ".join(tags[:6]) + (" …" if len(tags) > 6 else "") or "none"

    def _hub_source(self) -> str:
        hub = self._tag().get("hf_hub")
        return f"hf-hub:{hub.rstrip('/')}" if hub else "none"


def image_tower(model: str, weights: Path | None, *, quick_gelu: bool = False) -> nn.Module:
    """Build open_clip's ``model`` (a name or ``local-dir:…``) and return its image half.

    Raises
    ------
    ModelError
        If a package is missing or the weights don't fit.
    """
    builtin = not model.startswith("local-dir:")
    try:
        clip = open_clip.create_model(
            model,
            pretrained=str(weights) if builtin and weights is not None else None,
            load_weights=weights is not None,
            require_pretrained=weights is not None,
            force_quick_gelu=quick_gelu,
            pretrained_text=False,
        )
    except (RuntimeError, ImportError, AssertionError, KeyError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise ModelError(f"open_clip can't build {model} with these weights: {detail}.") from error
    tower: nn.Module = CocaImage(clip) if isinstance(clip, open_clip.CoCa) else clip.visual
    return tower
