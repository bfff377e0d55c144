"""Which slides show best what the numbers mean: the best, the median and the worst, with the truth over them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.evaluation.localization import Localization, LocalizationSettings, SlideResult
from jobs.heatmaps import HeatmapSettings, draw_heatmaps
from store_schema.store import Store

FOLDER: Final = "pictures"


@dataclass(frozen=True)
class Picture:
    """A heatmap and why it is shown.

    Attributes
    ----------
    title
        E.g. ``median: tumor_008, IoU 0.120``.
    path
        The PNG; None where it couldn't be drawn.
    note
        What is missing in it, or why there is none; may be empty.
    """

    title: str
    path: Path | None
    note: str


def telling_slides(found: Localization) -> list[tuple[str, str]]:
    """Return title and slide id of the best, the median and the worst slide, of fewer than three all there are.

    They are ordered by IoU or, where nothing was decided, by the AUC-ROC of their tiles; slides of which it isn't
    defined, such as those without anything positive, are not among them.
    """
    decided = found.decided
    name = "IoU" if decided else "AUC-ROC"
    known = [
        (value, slide.slide_id)
        for slide in found.slides
        if slide.tiles.n_positive and (value := _quality(slide, decided=decided)) is not None
    ]
    known.sort(key=lambda each: (-each[0], each[1]))
    titles = ("best", "median", "worst") if len(known) > 2 else ("best", "worst")[: len(known)]
    places = {"best": 0, "median": (len(known) - 1) // 2, "worst": len(known) - 1}
    return [
        (f"{title}: {slide_id}, {name} {value:.3f}", slide_id)
        for title in titles
        for value, slide_id in [known[places[title]]]
    ]


def draw_pictures(
    store: Store, settings: LocalizationSettings, found: Localization, out: Path
) -> list[Picture]:
    """Draw the heatmaps of :func:`telling_slides` into ``pictures/``.

    Raises
    ------
    InputError
        A picture can't be written.
    """
    chosen = telling_slides(found)
    if not chosen:
        return []
    drawn = draw_heatmaps(
        store,
        HeatmapSettings(
            settings.choice if settings.raster is None else settings.raster,
            out / FOLDER,
            slides=tuple(slide_id for _, slide_id in chosen),
            truth=settings.truth,
            mask=settings.mask,
            sheet=False,
            overwrite=True,
        ),
    )
    return [
        Picture(title, heatmap.path, heatmap.problem or heatmap.note)
        for (title, _), heatmap in zip(chosen, drawn.slides, strict=True)
    ]


def _quality(slide: SlideResult, *, decided: bool) -> float | None:
    if not decided:
        return slide.tiles.auc_roc
    return None if slide.tiles.overlap is None else slide.tiles.overlap.iou
