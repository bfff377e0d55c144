"""What scoring writes of a slide: the arrays of ``scores/<name>``, and its prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dataflow.heat_colours import rank_percentile
from jobs.mil.ensemble import Judgement
from jobs.score_reader import CLASS_NAMES
from store_schema import names
from store_schema.specs import ArraySpec

ATTENTION: Final = "attention"
ATTENTION_LOGITS: Final = "attention_logits"
ATTENTION_PERCENTILE: Final = "attention_percentile"
PROBABILITY: Final = "probability"

_COMMENT: Final = {
    "slide": "sums to 1 over the tiles of the slide",
    "patient": "sums to 1 over the tiles of all slides of the patient",
}


def score_arrays(
    judgement: Judgement, class_names: Sequence[str], bag_level: str
) -> dict[str, ArraySpec]:
    """Declare the arrays; the main one, attention, comes first.

    Parameters
    ----------
    judgement
        Of any bag of the same models.
    class_names
        In the order of the columns; stand in the attributes of (tile, class) arrays.
    bag_level
        ``slide`` or ``patient``: over what the attention sums to 1.
    """
    by_class = judgement.attention.ndim > 1
    attrs: dict[str, dict[str, Any]] = {
        ATTENTION: {
            "long_name": "attention",
            "units": "1",
            "valid_min": 0.0,
            "comment": _COMMENT[bag_level],
        },
        ATTENTION_LOGITS: {
            "long_name": "attention before the softmax over tiles",
            "units": "1",
            "comment": "comparable between slides",
        },
        ATTENTION_PERCENTILE: {
            "long_name": "percentile of the attention within the slide",
            "units": "percent",
            "valid_range": [0.0, 100.0],
            "comment": "0 is the least, 100 the greatest; ties share the mean of their ranks",
        },
    }
    arrays = {
        name: _spec(class_names if by_class else None, described)
        for name, described in attrs.items()
    }
    if judgement.tile_probabilities is not None:
        arrays[PROBABILITY] = _spec(
            class_names,
            {"long_name": "probability", "units": "1", "valid_range": [0.0, 1.0]},
        )
    return arrays


def _spec(class_names: Sequence[str] | None, attrs: Mapping[str, Any]) -> ArraySpec:
    if class_names is None:
        return ArraySpec((names.TILE,), (), "float32", attrs)
    described = {**attrs, CLASS_NAMES: list(class_names)}
    return ArraySpec((names.TILE, names.CLASS), (len(class_names),), "float32", described)


def score_values(
    judgement: Judgement, span: slice, tile_index: npt.NDArray[np.int64], n_tiles: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Cut what was said of a bag to one slide.

    Parameters
    ----------
    judgement
        Of the bag.
    span
        The slide's positions in the bag.
    tile_index
        int64 (k,), the same as positions along ``tile`` of the slide's grid.
    n_tiles
        Tiles of the grid; those that the bag went without are NaN.

    Returns
    -------
    dict
        Array name → float32 (tile,) or (tile, class).
    """
    attention = judgement.attention[span]
    columns = attention.reshape(len(attention), -1)
    ranks = np.stack([rank_percentile(column) for column in columns.T], axis=1)
    parts: dict[str, npt.NDArray[np.floating]] = {
        ATTENTION: attention,
        ATTENTION_LOGITS: judgement.attention_logits[span],
        ATTENTION_PERCENTILE: ranks.reshape(attention.shape),
    }
    if judgement.tile_probabilities is not None:
        parts[PROBABILITY] = judgement.tile_probabilities[span]
    return {name: _placed(part, tile_index, n_tiles) for name, part in parts.items()}


def _placed(
    part: npt.NDArray[np.floating], tile_index: npt.NDArray[np.int64], n_tiles: int
) -> npt.NDArray[np.float32]:
    values = np.full((n_tiles, *part.shape[1:]), np.nan, np.float32)
    values[tile_index] = part
    return values
