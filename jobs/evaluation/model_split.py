"""Whether the model whose scores are judged was trained on the slide that it is judged on, as far as the store says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

from store_schema import names
from store_schema.errors import NotInStoreError
from store_schema.labels import some
from store_schema.predictions import MODEL_SPLIT, PREDICTION
from store_schema.slide_view import SlideView

ModelSplit: TypeAlias = Literal["train", "val", "test", ""]
"""``train``: the model learned from the slide; ``val``: it chose the epoch (or a threshold); ``test``, or empty where
the model's split doesn't name it: the model never met it."""


def split_of(slide: SlideView, grid: str, run: str) -> ModelSplit | None:
    """Return which part of its model's training a slide was in, None where the scores don't say.

    ``vae score`` and ``mil score`` write it beside the scores. Calibrated scores say which scores they were made
    of: those are asked, if they are still the same.

    Parameters
    ----------
    slide, grid, run
        ``scores/<run>`` of a grid of the slide.
    """
    attrs = slide.run_attrs(grid, names.SCORES, run)
    said = _said(attrs)
    if said is not None:
        return said
    source = attrs[names.PROVENANCE].get("scores")
    if not isinstance(source, Mapping) or source.get("run") in (None, run):
        return None
    try:
        made_of = slide.run_attrs(grid, names.SCORES, str(source["run"]))
    except NotInStoreError:
        return None
    if made_of[names.FINGERPRINT] != source.get("fingerprint"):
        return None
    return split_of(slide, grid, str(source["run"]))


def model_notes(splits: Mapping[str, ModelSplit | None]) -> list[str]:
    """Say, in sentences, which of the judged slides (slide id → :func:`split_of`) the model has met."""
    lines = []
    for part, did in (("train", "trained"), ("val", "chose the epoch of")):
        met = [slide_id for slide_id, split in splits.items() if split == part]
        if met:
            whose = "its scores are" if len(met) == 1 else "their scores are"
            lines.append(
                f"{len(met)} of the judged slides {did} the model ({some(met)}): {whose} not out of sample"
            )
    return lines


def _said(attrs: Mapping[str, Any]) -> ModelSplit | None:
    extra = attrs.get(names.EXTRA, {})
    prediction = extra.get(PREDICTION)
    said = extra.get(MODEL_SPLIT) if prediction is None else prediction.get("split")
    return cast("ModelSplit", said) if said in ("train", "val", "test", "") else None
