"""Names of slide models → their config and class.

abmil, abmil-plain    attention pooling, gated and plain
dsmil                 the dual stream
clam-sb, clam-mb      attention pooling with instance clustering, one attention or one per class
transmil              self-attention among tiles
mean, max             baselines
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, get_type_hints

from models.abmil import Abmil, AbmilConfig
from models.clam import Clam, ClamConfig
from models.dsmil import Dsmil, DsmilConfig
from models.pooling import MaxPool, MeanPool
from models.slide_model import SlideModel, SlideModelConfig
from models.transmil import Transmil, TransmilConfig
from store_schema.errors import InputError, ModelError
from store_schema.near_names import near


@dataclass(frozen=True)
class SlideModelEntry:
    """A name's model.

    Attributes
    ----------
    config
        Its config dataclass.
    model
        Its class.
    fixed
        Settings that the name stands for; a user can't change them.
    """

    config: type[SlideModelConfig]
    model: Callable[[Any], SlideModel]
    fixed: Mapping[str, object] = field(default_factory=dict)

    def settings(self) -> dict[str, type]:
        """Return the settings that a user may give, with their types."""
        hints = get_type_hints(self.config)
        held = {"n_features", "n_classes", *self.fixed}
        return {f.name: hints[f.name] for f in fields(self.config) if f.name not in held}


SLIDE_MODELS: Final[Mapping[str, SlideModelEntry]] = MappingProxyType(
    {
        "abmil": SlideModelEntry(AbmilConfig, Abmil, {"gated": True}),
        "abmil-plain": SlideModelEntry(AbmilConfig, Abmil, {"gated": False}),
        "dsmil": SlideModelEntry(DsmilConfig, Dsmil),
        "clam-sb": SlideModelEntry(ClamConfig, Clam, {"multi_branch": False}),
        "clam-mb": SlideModelEntry(ClamConfig, Clam, {"multi_branch": True}),
        "transmil": SlideModelEntry(TransmilConfig, Transmil),
        "mean": SlideModelEntry(SlideModelConfig, MeanPool),
        "max": SlideModelEntry(SlideModelConfig, MaxPool),
    }
)


def build_slide_model(
    name: str,
    n_features: int,
    n_classes: int,
    settings: Mapping[str, object] = MappingProxyType({}),
) -> SlideModel:
    """Build a slide model with new weights, drawn from torch's global generator.

    Parameters
    ----------
    name
        A key of ``SLIDE_MODELS``.
    n_features, n_classes
        Width of the tiles' features; number of logits.
    settings
        Fields of the model's config; ``dataclasses.asdict(model.config)`` of an earlier model too.

    Raises
    ------
    ModelError
        If there is no such model; names near ones.
    InputError
        If there is no such setting, or its value doesn't make sense.
    """
    entry = SLIDE_MODELS.get(name)
    if entry is None:
        raise ModelError(f"There is no slide model '{name}': {near(name, list(SLIDE_MODELS))}.")
    values = {"n_features": n_features, "n_classes": n_classes, **entry.fixed}
    known = entry.settings()
    for key, value in settings.items():
        if key in values:
            if values[key] != value:
                raise InputError(f"{key} of this {name} model is {values[key]}, not {value}.")
        elif key not in known:
            raise InputError(f"{name} has no setting '{key}': {near(key, list(known))}.")
        else:
            values[key] = _checked(name, key, value, known[key])
    config = entry.config(**values)  # type: ignore[arg-type]  # checked above
    try:
        return entry.model(config)
    except RuntimeError as error:  # torch has no other for a tensor that memory can't hold
        raise InputError(
            f"A {name} model of these settings can't be built ({str(error).partition(chr(10))[0]}): ask for a "
            "smaller one."
        ) from error


def _checked(model: str, key: str, value: object, kind: type) -> object:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{key} of {model} is {value!r}: give it as {kind.__name__}.")
    return value
