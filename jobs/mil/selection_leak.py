"""Whether a selection of tiles knows more of the held-out slides than a training may.

Where tiles were ranked by the attention of trained models, those models have learned from some slides. A training on
such a selection is judged too well if the models that ranked its training tiles learned from its test slides. Each
slide's selection therefore says which folds of the run ranked it, and what each fold took the slide for; of any other
split it can then be told whether it crosses that of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from jobs.mil.ensemble import judges_of
from jobs.mil.fold_metrics import LEAKY_SELECTION
from jobs.mil.splits import Split
from store_schema import names
from store_schema.bags import Bag
from store_schema.labels import some

if TYPE_CHECKING:
    from jobs.mil.trained import TrainedFold

MET: Final = "met_by_models"
"""Key of a selection's ``extra``; absent where tiles were ranked without a model."""

_RANKED, _TRAINED, _CHOSE = "ranked_by", "trained", "chose_epoch"


def met_by(folds: Sequence[TrainedFold], slide_id: str) -> dict[str, list[str]]:
    """Return which folds' models rank a slide, which trained on it, and which chose their epoch on it."""
    found: dict[str, list[str]] = {
        _RANKED: [fold.fold for fold in judges_of(folds, [slide_id])],
        _TRAINED: [],
        _CHOSE: [],
    }
    for fold in folds:
        part = fold.part_of([slide_id])
        if part == "train":
            found[_TRAINED].append(fold.fold)
        elif part == "val" or (part == "test" and fold.leaky):
            found[_CHOSE].append(fold.fold)
    return found


def selection_leak(slides: Mapping[str, Bag], selection: str | None, split: Split) -> str | None:
    """Say how a selection leaks over a split, None where it does not.

    Test slides must not have been learned from, nor have chosen an epoch, in the models that ranked training tiles
    or their own; validation slides must not have been trained on in the models that ranked training tiles. A run that
    had the same split gives no leak: these are the slides that it held out.

    Parameters
    ----------
    slides
        Slide id → bag.
    selection
        Its name; None takes all tiles.
    split
        Of the training.
    """
    if selection is None:
        return None
    met = {slide_id: _met(bag, selection) for slide_id, bag in slides.items()}

    def folds(slide_id: str, *hows: str) -> set[str]:
        return {fold for how in hows for fold in met.get(slide_id, {}).get(how, ())}

    rankers = {fold for slide_id in split.train for fold in folds(slide_id, _RANKED)}
    test = [
        slide_id
        for slide_id in split.test
        if (rankers | folds(slide_id, _RANKED)) & folds(slide_id, _TRAINED, _CHOSE)
    ]
    val = [slide_id for slide_id in split.val if rankers & folds(slide_id, _TRAINED)]
    found = [
        f"{len(ids)} of {n} {part} slides ({some(ids, 3)})"
        for part, ids, n in (("test", test, len(split.test)), ("validation", val, len(split.val)))
        if ids
    ]
    if not found:
        return None
    return (
        f"{LEAKY_SELECTION}: the models that ranked the tiles of {selection} learned from {' and '.join(found)}, "
        "so results are too good; select by a run of the same split, or use `mil two-pass`"
    )


def _met(bag: Bag, selection: str) -> Mapping[str, Sequence[str]]:
    attrs = bag.slide.run_attrs(bag.grid, names.SELECTIONS, selection)
    found: Mapping[str, Sequence[str]] = attrs.get(names.EXTRA, {}).get(MET, {})
    return found
