"""Names of encoders → cards and sources; a name that isn't known gets near ones.

efficientnet-lite0            the default; any card of models.cards by name
timm:resnet18                 any image model of timm
open_clip:ViT-B-32/openai     any CLIP model of open_clip, with a tag of weights
timm:resnet18@file.safetensors, open_clip:ViT-B-32@file, uni@file    weights of a local file
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from models.cards import CARDS, DEFAULT_ENCODER, EncoderCard
from store_schema.errors import ModelError

if TYPE_CHECKING:  # torch and timm take seconds to import; a list of cards must not
    from models.source import EncoderSource


def list_cards() -> tuple[EncoderCard, ...]:
    """Return the encoders that have a name of their own; needs no model library."""
    return CARDS


def find_card(name: str) -> EncoderCard:
    """Return the card of any encoder name; imports torch only for names with ``:`` or ``@``.

    Raises
    ------
    ModelError
        If no such encoder is known; the message names near ones.
    """
    for card in CARDS:
        if card.name == name:
            return card
    return find_source(name).card


def find_source(name: str) -> EncoderSource:
    """Return what builds the encoder ``name``, without building it.

    Raises
    ------
    ModelError
        If no such encoder is known; the message names near ones.
    """
    model, at, path = name.partition("@")
    checkpoint = path or None
    if at and not path:
        raise ModelError(f"'{name}' names no file after '@': give the path of a weights file.")
    family, colon, rest = model.partition(":")
    if colon and family == "timm":
        return _timm(rest, checkpoint)
    if colon and family == "open_clip":
        return _open_clip(rest, checkpoint)
    if model == DEFAULT_ENCODER:
        from models.pretrained import PackagedLite0

        return PackagedLite0(checkpoint)
    if model in {card.name for card in CARDS}:
        from models.hub_models import HubSource

        return HubSource(model, checkpoint)
    raise _unknown(name)


def _timm(model: str, checkpoint: str | None) -> EncoderSource:
    import timm

    from models.timm_models import TimmSource

    if not timm.is_model(model):
        raise _unknown(f"timm:{model}")
    return TimmSource(model, checkpoint)


def _open_clip(model: str, checkpoint: str | None) -> EncoderSource:
    import open_clip

    from models.open_clip_models import OpenClipSource

    known = open_clip.list_models()
    if model in known:  # a few names hold a slash themselves
        return OpenClipSource(model, None, checkpoint)
    architecture, _, tag = model.rpartition("/")
    if architecture not in known:
        raise _unknown(f"open_clip:{model}")
    return OpenClipSource(architecture, tag, checkpoint)


def _unknown(name: str) -> ModelError:
    import open_clip
    import timm

    candidates = [card.name for card in CARDS]
    candidates += [f"timm:{model}" for model in timm.list_models()]
    candidates += [f"open_clip:{model}" for model in open_clip.list_models()]
    asked = name.partition("@")[0]
    near = difflib.get_close_matches(asked, candidates, n=4, cutoff=0.5)
    near += [
        c for c in difflib.get_close_matches(f"timm:{asked}", candidates, n=2) if c not in near
    ]
    hint = f"did you mean {', '.join(near)}?" if near else "see 'slidestream encoders'."
    return ModelError(f"There is no encoder '{name}': {hint}")
