"""A slide's stored segmentation, as it is judged: which classes its mask has, and what it has been told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jobs.evaluation.model_split import ModelSplit, split_of
from jobs.mask_region import mask_class_names
from jobs.raster_reader import RasterChoice, SlideRaster, read_raster
from store_schema import names
from store_schema.errors import InputError, NotInStoreError
from store_schema.slide_view import SlideView

_GATE: Final = "gate-by-label"
_SOURCE: Final = "source"
_CONFIDENCE: Final = "confidence"


@dataclass(frozen=True)
class SegmentedMask:
    """``masks/<name>/mask`` of a slide.

    Attributes
    ----------
    raster
        The mask: 0 where there is nothing, else 1 + class.
    class_names
        In their order.
    gated
        Whether classes that the slide's label doesn't name were taken out of it.
    """

    raster: SlideRaster
    class_names: tuple[str, ...]
    gated: bool

    def read(self) -> npt.NDArray[np.uint8]:
        """Return uint8 (y, x): a class's index, the number of classes where nothing was said."""
        values, _ = self.raster.read()
        nothing = np.uint8(len(self.class_names))
        said: npt.NDArray[np.uint8] = np.where(values == 0, nothing, values - np.uint8(1))
        return said

    @property
    def scores_run(self) -> str | None:
        """Name of the scores that it goes back to; None where nothing says so."""
        return _scores_of(self.raster.slide, self.raster.grid, self.raster.group_attrs)

    def model_split(self) -> ModelSplit | None:
        """Return which part of its networks' training the slide was in; None where nothing says so."""
        run = self.scores_run
        return None if run is None else split_of(self.raster.slide, self.raster.grid, run)


def segmented_mask(slide: SlideView, name: str, grid: str | None) -> SegmentedMask:
    """Open the mask of a segmentation.

    Raises
    ------
    NotInStoreError, IncompleteError
        The slide has none of that name, or not a whole one.
    InputError
        It is another kind of mask, or was made of a confidence or of scores that were replaced since.
    """
    raster = read_raster(slide, RasterChoice(name, names.MASK, grid=grid))
    _check_fresh(raster)
    classes = mask_class_names(raster)
    if not classes:
        raise InputError(
            f"{names.MASKS}/{name} of slide {slide.slide_id} is no mask of classes: name one of `slidestream pbip "
            "segment`"
        )
    steps = raster.group_attrs[names.PROVENANCE].get("steps", [])
    return SegmentedMask(raster, classes, any(step.get("step") == _GATE for step in steps))


def _check_fresh(mask: SlideRaster) -> None:
    """Refuse what another network left: `--overwrite` without `--crf`, say, leaves the old one's -crf behind."""
    slide, grid = mask.slide, mask.grid
    for attrs, kind, run in _sources(slide, grid, mask.group_attrs):
        if run not in slide.runs(grid, kind):
            return
        provenance = attrs[names.PROVENANCE]
        source = provenance.get(_SOURCE)
        made_of = (
            source.get(names.FINGERPRINT)
            if isinstance(source, Mapping)
            else provenance.get(_CONFIDENCE)
        )
        if made_of not in (None, slide.run_attrs(grid, kind, run)[names.FINGERPRINT]):
            raise InputError(
                f"{names.MASKS}/{mask.name} of slide {slide.slide_id} is out of date, {kind}/{run} that it goes back "
                "to was replaced since: make it again by `slidestream pbip segment --overwrite`, or name another mask"
            )


def _scores_of(slide: SlideView, grid: str, attrs: Mapping[str, Any]) -> str | None:
    """Follow what a mask was made of to its scores; None where that ends before."""
    for _, kind, run in _sources(slide, grid, attrs):
        if kind == names.SCORES:
            return run if run in slide.runs(grid, names.SCORES) else None
    return None


def _sources(
    slide: SlideView, grid: str, attrs: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Yield each step back from a mask: attributes of what was made, and kind and name of what it was made of."""
    seen = set[str]()
    while True:
        kind, _, rest = str(attrs.get(names.EXTRA, {}).get(_SOURCE, "")).partition("/")
        run = rest.partition("/")[0]
        if kind == names.SCORES:  # the first masks have the name of their scores
            yield attrs, kind, run
        if kind != names.MASKS or run in seen:
            return
        yield attrs, kind, run
        seen.add(run)
        try:
            attrs = slide.run_attrs(grid, names.MASKS, run)
        except NotInStoreError:
            return
