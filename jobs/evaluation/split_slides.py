"""Which slides are judged, and which choose thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.evaluation.slide_level import SplitChoice
from jobs.mil.splits import read_parts
from jobs.score_reader import ScoreChoice, scored_slides
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
    """Choose slides.

    Parameters
    ----------
    store, choice
        Where, and by which score.
    slide_ids
        Judge only these; empty takes all.
    splits
        Table of splits; None judges all slides that have the score.
    split, fit_split
        Which of its parts are judged, and choose.

    Raises
    ------
    NotInStoreError
        A named slide isn't in the store, or no slide has the score.
    InputError
        The splits can't be read, or none of their slides has the score.
    """
    if splits is None:
        return SplitSlides(tuple(scored_slides(store, choice, slide_ids)))
    parts = read_parts(splits).parts()
    wanted = [i for part, ids in parts.items() if split in ("all", part) for i in ids]
    if slide_ids:
        unknown = [slide_id for slide_id in slide_ids if slide_id not in wanted]
        if unknown:
            raise InputError(
                f"slide {unknown[0]} isn't among the {split} slides of {splits}: name others, or another --split"
            )
        wanted = list(slide_ids)
    scored = {slide.slide_id: slide for slide in scored_slides(store, choice, ())}
    judged = tuple(scored[slide_id] for slide_id in wanted if slide_id in scored)
    if not judged:
        raise InputError(
            f"none of the {len(wanted)} {split} slides of {splits} has scores {choice.run}: check --splits and --split"
        )
    return SplitSlides(
        judged,
        tuple(scored[slide_id] for slide_id in parts[fit_split] if slide_id in scored),
        tuple(sorted(set(wanted) - set(scored))),
    )
