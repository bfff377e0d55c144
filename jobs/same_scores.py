"""Whether what is looked at together was made together: a mask and the scores beside it, scores of several slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.calibration.fit import made_by_of
from jobs.raster_reader import SlideRaster
from jobs.score_reader import ScoreChoice, scored_grid
from store_schema import names
from store_schema.errors import DamagedMetadataError, InputError
from store_schema.labels import some
from store_schema.slide_view import SlideView


def check_same_scores(raster: SlideRaster, slide: SlideView, grid: str, run: str) -> None:
    """Refuse a mask or map that was made of scores which aren't stored any more.

    Scores that are made again (``--overwrite``) leave behind what was stitched or calibrated of the old ones. What
    was made of another run altogether is no concern of this.

    Parameters
    ----------
    raster
        The mask or map.
    slide, grid, run
        The scores that it is shown or judged with.

    Raises
    ------
    InputError
        Both go back to scores of the same name, and those aren't the same.
    """
    if raster.grid != grid:
        return
    attrs = slide.run_attrs(grid, names.SCORES, run)
    current = {run: str(attrs[names.FINGERPRINT]), **_made_of(attrs)}
    for name, made_by in _made_of(raster.group_attrs).items():
        if current.get(name, made_by) != made_by:
            raise InputError(
                f"{names.MASKS}/{raster.name} of slide {slide.slide_id} was made of other scores {name} than those "
                "that it is to be shown with, they were replaced since: make it again with --overwrite, or leave it out"
            )


def check_one_scale(slides: Sequence[SlideView], choice: ScoreChoice) -> None:
    """Refuse to pool scores that several models, or z-scores of several scores, put on scales of their own.

    An interrupted ``--overwrite`` leaves such, or one of a few slides. Slides whose scores can't be read are left to
    who reads them. Scores that don't name one model (of a cross-validation each slide has its own) are all taken.

    Parameters
    ----------
    slides, choice
        What is pooled.

    Raises
    ------
    InputError
        Names slides that differ.
    """
    made: dict[str, dict[str, Any]] = {}
    for slide in slides:
        grid = scored_grid(slide, choice)
        if grid is None:
            continue
        try:
            attrs = slide.run_attrs(grid, names.SCORES, choice.run)
        except DamagedMetadataError:
            continue
        provenance = attrs[names.PROVENANCE]
        source = provenance.get(names.SCORES)
        made[slide.slide_id] = made_by_of(attrs) | {"zscore": provenance.get("zscore")}
        if isinstance(source, dict):
            made[slide.slide_id] |= {key: source.get(key) for key in ("run", "array", "class")}
    first = next(iter(made), None)
    others = [slide_id for slide_id, by in made.items() if first is not None and by != made[first]]
    if others:
        raise InputError(
            f"scores {choice.run} of {some(others)} were made otherwise than those of {first} (another model, stain "
            "normalization or calibration), and can't be pooled: make them alike, or choose slides with --slides"
        )


def _made_of(attrs: Mapping[str, Any]) -> dict[str, str]:
    """Return run → fingerprint of the scores that a group says it was made of; empty where it says nothing."""
    provenance = attrs[names.PROVENANCE]
    of_scores = provenance.get(names.SCORES)  # of a calibration
    if isinstance(of_scores, dict) and "run" in of_scores:
        return {str(of_scores["run"]): str(of_scores.get(names.FINGERPRINT))}
    source = provenance.get(
        "source"
    )  # of a stitched map; the run's name decides no pixel, and stands beside
    said = str(attrs.get(names.EXTRA, {}).get("source", "")).split("/")
    if isinstance(source, dict) and len(said) == 3 and said[0] == names.SCORES:
        return {said[1]: str(source.get(names.FINGERPRINT))}
    return {}
