"""What a heatmap shows of a slide: the scores of its tiles, or a stitched map; and what is said of it in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dataflow.heat_layers import HeatLayer, RasterScores, TileScores
from jobs.raster_reader import RasterChoice, SlideRaster, read_raster
from jobs.run_places import slides_with
from jobs.score_reader import ScoreChoice, SlideScore, read_score, scored_slides
from store_schema import names
from store_schema.slide_view import SlideView
from store_schema.store import Store

HeatChoice: TypeAlias = ScoreChoice | RasterChoice


@dataclass(frozen=True)
class HeatSource:
    """One slide's numbers, ready to be drawn.

    Attributes
    ----------
    slide, grid
        Whose they are.
    name
        What they are, for headings: ``run/array``, or ``array for class (run)``.
    layer
        The numbers and where they lie.
    numbers
        A sentence of them.
    predicted
        What the run said of the whole slide, None where it said nothing.
    caption
        The same in a few words; may be empty.
    score
        The scores of the tiles, None of a raster.
    class_name
        Whose numbers they are, None where they are of no class.
    """

    slide: SlideView
    grid: str
    name: str
    layer: HeatLayer
    numbers: str
    predicted: str | None = None
    caption: str = ""
    score: SlideScore | None = None
    class_name: str | None = None


def slides_to_draw(store: Store, choice: HeatChoice, slide_ids: Sequence[str]) -> list[SlideView]:
    """Return the named slides or, where none are named, all that have it; see :func:`jobs.run_places.slides_with`."""
    if isinstance(choice, ScoreChoice):
        return scored_slides(store, choice, slide_ids)
    return slides_with(store, names.MASKS, choice.name, choice.grid, slide_ids)


def heat_source(slide: SlideView, choice: HeatChoice, view_px: int) -> HeatSource:
    """Read what is to be drawn of a slide.

    Parameters
    ----------
    slide, choice
        What to read.
    view_px
        Longer side of the largest view; finer rasters are pooled.

    Raises
    ------
    NotInStoreError, IncompleteError, DamagedBlockError, InputError
        As of :func:`jobs.score_reader.read_score` and :func:`jobs.raster_reader.read_raster`.
    """
    if isinstance(choice, ScoreChoice):
        return _of_tiles(read_score(slide, choice, follow_prediction=True))
    return _of_raster(read_raster(slide, choice), view_px)


def _of_tiles(score: SlideScore) -> HeatSource:
    mpp = score.slide.record.mpp
    name = _name(score.run, score.array, score.class_name)
    low, high = _valid(score.attrs)
    layer = TileScores(
        score.table,
        score.tile_level0,
        score.values,
        _label(score.what, score.run, score),
        low,
        high,
    )
    n = len(score.table)
    side = f"{score.tile_level0} px" if mpp is None else f"{score.tile_level0 * mpp:.0f} µm"
    numbers = f"{name}:  {n:,} tile{'s' * (n != 1)} of {side}{_quantiles(score.values)}"
    without = n - int(np.isfinite(score.values).sum())
    if without:
        numbers += f",  {without:,} without a value"
    return HeatSource(
        score.slide,
        score.grid,
        name,
        layer,
        numbers,
        _predicted(score.prediction),
        _likeliest(score.prediction),
        score,
        score.class_name,
    )


def _of_raster(raster: SlideRaster, view_px: int) -> HeatSource:
    record = raster.slide.record
    name = _name(raster.name, raster.array, raster.class_name)
    view_px_level0 = max(record.width, record.height) / view_px
    values, px_level0 = raster.read(view_px_level0)
    floats = values.astype(np.float32)
    low, high = _valid(raster.attrs)
    layer = RasterScores(
        floats, px_level0, raster.origin_level0, _label(raster.what, raster.name, raster), low, high
    )
    height, width = raster.values.shape
    px, unit = (
        (raster.px_level0, "px") if record.mpp is None else (raster.px_level0 * record.mpp, "µm")
    )
    numbers = f"{name}:  {width:,} by {height:,} px of {px:.3g} {unit}{_quantiles(floats)}"
    if px_level0 != raster.px_level0:
        numbers += "  (of the means that are drawn)"
    return HeatSource(raster.slide, raster.grid, name, layer, numbers, class_name=raster.class_name)


def _name(run: str, array: str, class_name: str | None) -> str:
    return f"{run}/{array}" if class_name is None else f"{array} for {class_name} ({run})"


def _label(what: str, run: str, read: SlideScore | SlideRaster) -> str:
    """Return the legend's words; ``what`` ends with the class where there is one."""
    if read.class_name is None:
        return f"{what} ({run}/{read.array})"
    if what.endswith(f"the class for {read.class_name}"):  # its long name speaks of a class already
        return _name(run, read.array, read.class_name)
    return f"{what} ({run})"


def _valid(attrs: Mapping[str, Any]) -> tuple[float | None, float | None]:
    low, high = attrs.get("valid_range", (attrs.get("valid_min"), attrs.get("valid_max")))
    return low, high


def _quantiles(values: npt.NDArray[np.floating]) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return ""
    low, middle, high = (f"{v:.3g}" for v in np.quantile(known, (0, 0.5, 1)))
    return f",  min {low},  median {middle},  max {high}"


def _predicted(prediction: Mapping[str, Any]) -> str | None:
    """Return what the run predicted of the slide, None where it predicts nothing."""
    if not prediction:
        return None
    pairs = zip(prediction["class_names"], prediction["probabilities"], strict=True)
    shares = ", ".join(f"{name} {value:.3f}" for name, value in pairs)
    text = f"predicted: {prediction['predicted'] or 'none of the classes'}    ({shares}"
    if prediction.get("threshold") is not None:
        text += f"; threshold {prediction['threshold']:.3f}"
    text += ")"
    if prediction.get("split"):
        text += f"    a {prediction['split']} slide of this model"
    return text


def _likeliest(prediction: Mapping[str, Any]) -> str:
    """Return the probability of the class that matters: the positive one of two, else the likeliest."""
    if not prediction:
        return ""
    classes, values = prediction["class_names"], prediction["probabilities"]
    index = len(classes) - 1 if len(classes) <= 2 else int(np.argmax(values))
    return f"p({classes[index]}) {values[index]:.2f}"
