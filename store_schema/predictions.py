"""What score runs say of whole slides, as one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from store_schema import names
from store_schema.errors import InputError, NotInStoreError
from store_schema.near_names import near

if TYPE_CHECKING:
    import xarray as xr

    from store_schema.slide_view import SlideView
    from store_schema.store import Store

PREDICTION: Final = "prediction"
"""Key of a score group's ``extra`` that holds what was said of the whole slide."""

MODEL_SPLIT: Final = "model_split"
"""Key of a score group's ``extra``, where it is known: ``train`` if the model of the scores learned from the slide,
``val`` if the slide chose its epoch, empty if the model never met it."""

SLIDE_ID: Final = "slide_id"


def read_predictions(store: Store, run: str, grid: str | None = None) -> xr.Dataset:
    """Return what a score run says of slides; see :meth:`store_schema.store.Store.predictions`."""
    import xarray as xr  # which writers don't need

    found: dict[str, Mapping[str, Any]] = {}
    known: set[str] = set()
    for slide_id in store.slides:
        slide = store[slide_id]
        runs = {each: slide.runs(each, names.SCORES) for each in _grids(slide, grid)}
        known.update(name for of_grid in runs.values() for name in of_grid)
        places = [each for each, of_grid in runs.items() if run in of_grid]
        if len(places) > 1:
            raise InputError(
                f"slide {slide_id} has scores {run!r} on several grids ({', '.join(places)}): name one"
            )
        for place in places:
            extra = slide.run_attrs(place, names.SCORES, run).get(names.EXTRA, {})
            if PREDICTION in extra:
                found[slide_id] = extra[PREDICTION]
    if not found:
        raise NotInStoreError(
            f"scores {run!r} in {store.url} are of tiles only: they say nothing of whole slides"
            if run in known
            else f"{store.url} has no scores {run!r}: {near(run, sorted(known))}"
        )
    said = list(found.values())
    class_names = said[0]["class_names"]
    if any(each["class_names"] != class_names for each in said):
        raise InputError(
            f"scores {run!r} in {store.url} are of other classes on other slides: score all by the same models"
        )
    per_slide = {
        "predicted": [each["predicted"] for each in said],
        "threshold": [np.nan if each["threshold"] is None else each["threshold"] for each in said],
        "split": [each["split"] for each in said],
        "fold": [" ".join("+".join(folds) for folds in each["folds"]) for each in said],
        "bag": [each["bag"] for each in said],
    }
    probabilities = np.array([each["probabilities"] for each in said], np.float64)
    return xr.Dataset(
        {
            "probability": ((SLIDE_ID, names.CLASS), probabilities),
            **{name: (SLIDE_ID, values) for name, values in per_slide.items()},
        },
        {SLIDE_ID: list(found), names.CLASS: list(class_names)},
        attrs={"store": store.url, "scores": run},
    )


def _grids(slide: SlideView, grid: str | None) -> list[str]:
    return [each for each in slide.grids if grid in (None, each)]
