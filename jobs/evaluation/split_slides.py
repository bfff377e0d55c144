"""Which slides are judged, and which choose thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.evaluation.slide_level import SplitChoice
from jobs.mil.splits import read_parts
from jobs.run_places import slides_with
from jobs.score_reader import ScoreChoice
from store_schema import names
from store_schema.errors import InputError
from store_schema.slide_view import SlideView
from store_schema.store import Store


@dataclass(frozen=True)
class SplitSlides:
    """Slides that have the score.

    Attributes
    ----------
    judged
        Those that numbers are of.
    fit
        Those that choose thresholds; empty without a split.
    without_scores
        Slides of the split that lack the score, or aren't in the store.
    """

    judged: tuple[SlideView, ...]
    fit: tuple[SlideView, ...] = ()
    without_scores: tuple[str, ...] = ()


def slides_to_judge(
    store: Store,
    choice: ScoreChoice,
    slide_ids: Sequence[str],
    splits: Path | None,
    split: SplitChoice,
    fit_split: Literal["val", "train"],
) -> SplitSlides:
    """Choose slides that have a score; see :func:`slides_of_split`."""
    return slides_of_split(
        store, names.SCORES, choice.run, choice.grid, slide_ids, splits, split, fit_split
    )


def slides_of_split(
    store: Store,
    kind: str,
    run: str,
    grid: str | None,
    slide_ids: Sequence[str],
    splits: Path | None,
    split: SplitChoice,
    fit_split: Literal["val", "train"] = "val",
) -> SplitSlides:
    """Choose slides that have a run.

    Parameters
    ----------
    store, kind, run, grid
        Where, and which run; see :func:`jobs.run_places.slides_with`.
    slide_ids
        Judge only these; empty takes all.
    splits
        Table of splits; None judges all slides that have the run.
    split, fit_split
        Which of its parts are judged, and choose.

    Raises
    ------
    NotInStoreError
        A named slide isn't in the store, or no slide has the run.
    InputError
        The splits can't be read, or none of their slides has the run.
    """
    if splits is None:
        return SplitSlides(tuple(slides_with(store, kind, run, grid, slide_ids)))
    parts = read_parts(splits).parts()
    wanted = [i for part, ids in parts.items() if split in ("all", part) for i in ids]
    if slide_ids:
        unknown = [slide_id for slide_id in slide_ids if slide_id not in wanted]
        if unknown:
            raise InputError(
                f"slide {unknown[0]} isn't among the {split} slides of {splits}: name others, or another --split"
            )
        wanted = list(slide_ids)
    having = {slide.slide_id: slide for slide in slides_with(store, kind, run, grid)}
    judged = tuple(having[slide_id] for slide_id in wanted if slide_id in having)
    if not judged:
        raise InputError(
            f"none of the {len(wanted)} {split} slides of {splits} has {kind} {run}: check --splits and --split"
        )
    return SplitSlides(
        judged,
        tuple(having[slide_id] for slide_id in parts[fit_split] if slide_id in having),
        tuple(sorted(set(wanted) - set(having))),
    )
