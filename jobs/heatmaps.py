"""Heatmaps of a store's scores: one PNG a slide."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from dataflow.ground import read_ground
from dataflow.heat_colours import HeatmapStyle
from dataflow.heat_layers import Outline, TileScores
from dataflow.heatmap import LONG_SIDE_PX, heatmap_picture
from dataflow.picture_parts import INK, save_png
from jobs.evaluation.truth import Truth, open_truth
from jobs.score_reader import ScoreChoice, SlideScore, read_score, scored_slides
from store_schema import names
from store_schema.errors import SlidestreamError
from store_schema.store import Store

_TRUTH: Final = (200, 0, 110)  # magenta: neither in viridis nor in the tissue's outline
_MOST_THREADS: Final = 8


@dataclass(frozen=True)
class HeatmapSettings:
    """What is drawn, and how.

    Attributes
    ----------
    choice
        Which number of which run.
    out
        Folder of the pictures, ``<slide id>.png``.
    slides
        Only these; empty takes all that have the run.
    truth
        What is true, of any kind, to outline; None draws none.
    style
        Colours.
    """

    choice: ScoreChoice
    out: Path
    slides: tuple[str, ...] = ()
    truth: Path | None = None
    style: HeatmapStyle = field(default_factory=HeatmapStyle)


@dataclass(frozen=True)
class Heatmap:
    """What came of one slide.

    Attributes
    ----------
    slide_id
        The slide.
    path
        The picture, None where there is none.
    note
        Why the slide isn't below it, or an empty string.
    problem
        Why there is no picture, or an empty string.
    """

    slide_id: str
    path: Path | None
    note: str = ""
    problem: str = ""


def draw_heatmaps(
    store: Store, settings: HeatmapSettings, done: Callable[[Heatmap], None] = lambda _: None
) -> list[Heatmap]:
    """Draw the heatmaps of a run; a slide that can't be drawn does not stop the others.

    Parameters
    ----------
    store
        Where the scores are.
    settings
        What to draw.
    done
        Is told of each slide, in order.

    Raises
    ------
    NotInStoreError
        A slide was named that the store hasn't, or no slide has the run.
    """
    slides = scored_slides(store, settings.choice, settings.slides)
    truth = None if settings.truth is None else open_truth(settings.truth)
    found = []
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for heatmap in pool.map(
            lambda slide: _draw(store, slide.slide_id, settings, truth), slides
        ):
            done(heatmap)
            found.append(heatmap)
    return found


def _draw(store: Store, slide_id: str, settings: HeatmapSettings, truth: Truth | None) -> Heatmap:
    try:
        score = read_score(store[slide_id], settings.choice, follow_prediction=True)
        record = score.slide.record
        outlines = _tissue(score)
        if truth is not None:
            mask = truth.mask(record)
            if mask is not None:
                outlines.append(
                    Outline(mask.mask.astype(np.uint8), mask.px_level0, _TRUTH, "truth")
                )
        ground = read_ground(record, LONG_SIDE_PX)
        picture = heatmap_picture(
            slide_id, _lines(score, record.mpp), ground, _tiles(score), outlines, settings.style
        )
        path = settings.out / f"{slide_id}.png"
        save_png(picture, path, "heatmap")
    except SlidestreamError as error:
        return Heatmap(slide_id, None, problem=str(error))
    return Heatmap(slide_id, path, note=ground.note)


def _tiles(score: SlideScore) -> TileScores:
    attrs = score.attrs
    low, high = attrs.get("valid_range", (attrs.get("valid_min"), attrs.get("valid_max")))
    label = f"{score.what} ({score.run}/{score.array})"
    return TileScores(score.table, score.tile_level0, score.values, label, low, high)


def _tissue(score: SlideScore) -> list[Outline]:
    """Return the outline of the mask that the grid was laid by, none where the grid has no mask."""
    if names.TISSUE_RUN not in score.slide.runs(score.grid, names.MASKS):
        return []
    attrs = score.slide.run_attrs(score.grid, names.MASKS, names.TISSUE_RUN)
    mask = score.slide.raster(score.grid, names.TISSUE_RUN)[names.MASK].values
    px = float(attrs[names.PX_LEVEL0])
    return [Outline(mask.astype(np.uint8), (px, px), INK, "tissue")]


def _lines(score: SlideScore, mpp: float | None) -> list[str]:
    """Return what stands below the title: what was predicted, and the score's numbers."""
    side = f"{score.tile_level0} px" if mpp is None else f"{score.tile_level0 * mpp:.0f} µm"
    n = len(score.table)
    numbers = f"{score.run}/{score.array}"
    if score.class_name is not None:
        numbers += f" for {score.class_name}"
    numbers += f":  {n:,} tile{'s' * (n != 1)} of {side}"
    known = score.values[np.isfinite(score.values)]
    if known.size:
        low, middle, high = (f"{v:.3g}" for v in np.quantile(known, (0, 0.5, 1)))
        numbers += f",  min {low},  median {middle},  max {high}"
    if known.size < n:
        numbers += f",  {n - known.size:,} without a value"
    said = predicted_line(score)
    return [numbers] if said is None else [said, numbers]


def predicted_line(score: SlideScore) -> str | None:
    """Return what the run predicted of the slide, None where it predicts nothing."""
    prediction = score.prediction
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
