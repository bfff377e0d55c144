"""What ``model.json`` beside a slide model has to say; files of others are checked before anything is done by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from store_schema.errors import ModelError


def _is_name_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_class_list(value: object) -> bool:
    return isinstance(value, list) and _is_name_list(value) and 1 < len(value) == len(set(value))


def _is_threshold(value: object) -> bool:
    if value is None:
        return True
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_features(value: object) -> bool:
    return isinstance(value, dict) and all(
        each is None or type(each) is str for each in value.values()
    )


_NEEDED: Final[Mapping[str, Callable[[object], bool]]] = MappingProxyType(
    {
        "kind": lambda value: isinstance(value, str),
        "model": lambda value: isinstance(value, str),
        "model_config": lambda value: isinstance(value, dict),
        "task": lambda value: value in ("multiclass", "multilabel"),
        "class_names": _is_class_list,
        "n_features": lambda value: type(value) is int,
        "l2_normalize": lambda value: type(value) is bool,
        "features": _is_features,
        "threshold": _is_threshold,
        "bag_level": lambda value: value in ("slide", "patient"),
        "train_slide_ids": _is_name_list,
        "val_slide_ids": _is_name_list,
        "test_slide_ids": _is_name_list,
    }
)


def check_description(description: Mapping[str, Any], what: str) -> None:
    """Check that a description says everything, in the right types.

    Parameters
    ----------
    description
        As in ``model.json``; see docs/slide-models.md.
    what
        Whose it is, for the error.

    Raises
    ------
    ModelError
        Something is missing or garbled; names it.
    """
    kind = description.get("kind")
    if isinstance(kind, str) and kind != "mil":
        raise ModelError(f"{what} is a model of kind {kind!r}: give the run of a slide model")
    wrong = [
        key
        for key, is_right in _NEEDED.items()
        if key not in description or not is_right(description[key])
    ]
    if wrong:
        raise ModelError(
            f"the description beside {what} is damaged ({', '.join(wrong)} missing or garbled): restore it, or "
            "train again"
        )
