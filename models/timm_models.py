"""``timm:<model>`` and ``timm:<model>@checkpoint``: any image model of timm, as pooled features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import cast, get_args

import timm
import torch
from timm.data.config import resolve_data_config
from torch import nn

from models.cards import RGB, EncoderCard, Interpolation
from models.fold import fold_batch_norms
from models.weights import hub_weights, local_weights, read_state
from store_schema.errors import ModelError

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class TimmSource:
    """A model that timm can build.

    Attributes
    ----------
    model
        timm's name, with or without a weights tag, e.g. ``resnet18`` or ``resnet18.a1_in1k``.
    checkpoint
        The user's weights file; None for those that timm names.
    """

    model: str
    checkpoint: str | None = None

    @property
    def card(self) -> EncoderCard:
        """Card made of timm's configuration; feature length by a dry run without memory."""
        card = _timm_card(self.model)
        if self.checkpoint is None:
            return card
        return replace(
            card,
            name=f"{card.name}@{self.checkpoint}",
            licence="unknown",
            source=f"file:{self.checkpoint}",
            needs_network=False,
        )

    @property
    def label(self) -> str:
        """``timm:<model>``, and the checkpoint's stem."""
        return f"timm:{self.model}" + (f"@{Path(self.checkpoint).stem}" if self.checkpoint else "")

    def weights(self) -> Path:
        """Return the user's file, or timm's from the hub."""
        if self.checkpoint is not None:
            return local_weights(self.checkpoint)
        cfg = timm.get_pretrained_cfg(self.model)
        advice = (
            f"give a local file as 'timm:{self.model}@weights.safetensors', "
            "or ask for random weights with --random-weights"
        )
        if cfg is None or cfg.hf_hub_id is None:
            raise ModelError(
                f"timm has no pretrained weights of {self.model} on the hub: {advice}."
            )
        files = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES
        return hub_weights(cfg.hf_hub_id, files, gated=False, advice=advice)

    def network(self, weights: Path | None) -> nn.Module:
        """Build the model without a classifier: what timm calls pooled, pre-logits features. For inference only."""
        if weights is None:
            return fold_batch_norms(_without_weights(self.model))
        # With num_classes=0 timm loads leniently, and what is missing stays random without a word.
        # Asking for the classes that the file has makes it load strictly; it goes afterwards.
        classes = _classes_in(read_state(weights), self.model)
        overlay = {
            "file": str(weights),
            "num_classes": classes,
            "label_offset": 0,
            "custom_load": False,
        }
        try:
            network: nn.Module = timm.create_model(
                self.model, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay
            )
        except (RuntimeError, KeyError, ValueError) as error:
            detail = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{weights} does not fit timm's {self.model}: name the architecture it was made "
                f"with ({detail})."
            ) from error
        if classes:
            network.reset_classifier(0)  # type: ignore[operator]
        return fold_batch_norms(network)


def _without_weights(model: str) -> nn.Module:
    network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0)
    return network


def _classes_in(state: dict[str, torch.Tensor], model: str) -> int:
    cfg = timm.get_pretrained_cfg(model)
    classifier = cfg.classifier if cfg is not None else None
    for name in (classifier,) if isinstance(classifier, str) else classifier or ():
        weight = state.get(f"{name}.weight")
        if weight is not None:
            return int(weight.shape[0])
    return 0


@lru_cache(maxsize=32)
def _timm_card(model: str) -> EncoderCard:
    name = f"timm:{model}"
    try:
        cfg = timm.get_pretrained_cfg(model)
    except RuntimeError as error:  # an architecture without this tag
        known = ", ".join(timm.list_pretrained(f"{model.partition('.')[0]}.*")) or "none"
        raise ModelError(f"timm knows no weights {model}: choose among {known}.") from error
    if cfg is None:
        raise ModelError(f"timm knows no defaults of {model}: choose another encoder.")
    data = resolve_data_config(pretrained_cfg=cfg.to_dict())  # type: ignore[no-untyped-call]
    input_px = int(data["input_size"][1])
    if data["interpolation"] not in get_args(Interpolation) or data["input_size"][0] != 3:
        raise ModelError(
            f"{name} wants {data['interpolation']} resampling of {data['input_size'][0]} channels, "
            "which there isn't for batches of RGB tiles: choose another encoder."
        )
    with torch.device("meta"), torch.inference_mode():  # no memory, no arithmetic: shapes only
        network = _without_weights(model).eval()
        features = network(torch.empty(1, 3, input_px, input_px))
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise ModelError(f"{name} gives no feature vector per image: choose another encoder.")
    return EncoderCard(
        name=name,
        input_px=input_px,
        mpp=None,
        mean=cast(RGB, tuple(data["mean"])),
        std=cast(RGB, tuple(data["std"])),
        interpolation=data["interpolation"],
        crop_pct=float(data["crop_pct"]),
        dim=int(features.shape[1]),
        licence=cfg.license or "unknown",
        source=f"hf-hub:{cfg.hf_hub_id}" if cfg.hf_hub_id else "none",
        gated=False,
        needs_network=True,
        notes="pooled features before the classifier",
    )
