"""Whether a mask or map of the store is of the scores that it is shown with, and not of those that they replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.raster_reader import SlideRaster
from store_schema import names
from store_schema.errors import InputError
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
