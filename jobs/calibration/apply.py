"""A calibration on slides: z-scores, masks, and what each slide came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from jobs.calibration.calibration import Calibration
from jobs.calibration.fit import made_by_of
from jobs.calibration.lattice import LatticePlace
from jobs.calibration.morphology import Lattice, cleaned_tiles
from jobs.calibration.oracle import best_threshold
from jobs.calibration.stored import SlideCalibration, write_slide
from jobs.calibration.threshold import above
from jobs.calibration.tile_truths import TileTruths, TruthSettings
from jobs.calibration.zscore import Flag, zscores
from jobs.score_reader import SlideScore, read_score, scored_slides
from store_schema import names
from store_schema.claims import differences
from store_schema.errors import (
    InputError,
    InvalidNameError,
    SettingsConflictError,
    SlidestreamError,
)
from store_schema.store import Store


@dataclass(frozen=True)
class CalibratedSlide:
    """What one slide came to.

    Attributes
    ----------
    slide_id
        The slide.
    n_tiles, n_without_score
        Its tiles, and those whose score isn't finite: never flagged.
    center, scale
        Of its scores, see :class:`jobs.calibration.zscore.SlideZScores`.
    flags
        Why its z-scores say less than they seem to.
    threshold
        On its z-scores.
    n_flagged, n_mask
        Tiles above the threshold; places of the mask, after morphology.
    written
        False if all was there already.
    """

    slide_id: str
    n_tiles: int
    n_without_score: int
    center: float | None
    scale: float | None
    flags: tuple[Flag, ...]
    threshold: float
    n_flagged: int
    n_mask: int
    written: bool


@dataclass
class ApplyReport:
    """What came of all.

    Attributes
    ----------
    slides
        That have scores and mask now.
    without_truth
        Slides that were left out of an upper bound, since nothing is known of them.
    failed
        Slide id → why it could not be calibrated; nothing is written of it.
    """

    slides: list[CalibratedSlide] = field(default_factory=list)
    without_truth: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ApplySettings:
    """Where a calibration goes.

    Attributes
    ----------
    name
        Of ``scores/<name>`` and ``masks/<name>``.
    slides
        Only these; empty takes all that have the scores.
    truth
        What each slide's own threshold is chosen by, of a calibration that is an upper bound.
    overwrite
        Replace what was made otherwise.
    """

    name: str
    slides: tuple[str, ...] = ()
    truth: TruthSettings | None = None
    overwrite: bool = False


def apply_calibration(
    store: Store,
    calibration: Calibration,
    settings: ApplySettings,
    done: Callable[[int, int], None] = lambda _, __: None,
) -> ApplyReport:
    """Write z-scores and masks of slides; a slide that can't be calibrated stops no other.

    Parameters
    ----------
    store
        Opened for writing.
    calibration, settings
        What to write, and where.
    done
        Is told after each slide: how many are through, of how many.

    Raises
    ------
    InputError
        The name is that of the scores themselves, or an upper bound has no truth to look at, of any slide.
    NotInStoreError
        A named slide, or any, has no such scores.
    SettingsConflictError
        There are scores or masks of that name that were made otherwise.
    """
    if settings.name == calibration.choice.run:
        raise InputError(f"scores {settings.name} are what is calibrated: choose another --name")
    if calibration.is_upper_bound != (settings.truth is not None):
        raise InputError("each slide's own threshold, and no other, looks at the truth: give it")
    truths = None if settings.truth is None else settings.truth.open()
    slides = scored_slides(store, calibration.choice, settings.slides)
    report = ApplyReport()
    for n_done, slide in enumerate(slides, start=1):
        try:
            score = read_score(slide, calibration.choice)
            _check_same_model(calibration, score)
            found = _calibrated(calibration, score, truths)
            if found is None:
                report.without_truth.append(slide.slide_id)
            else:
                wrote = write_slide(calibration, found, settings.name, overwrite=settings.overwrite)
                report.slides.append(_row(found, written=wrote))
        except SlidestreamError as error:
            if error.fatal or isinstance(error, SettingsConflictError | InvalidNameError):
                raise  # it would be the same with all others
            report.failed[slide.slide_id] = str(error)
        done(n_done, len(slides))
    if len(report.without_truth) == len(slides):
        raise InputError(
            f"none of the {len(slides)} slides has a truth, so nothing was written: name the files as the slides, or "
            "say with --without-truth negative that slides without one have no tumour"
        )
    return report


def _calibrated(
    calibration: Calibration, score: SlideScore, truths: TileTruths | None
) -> SlideCalibration | None:
    """Return a slide's z-scores and mask; None where its own threshold is asked for and its truth isn't known."""
    z = zscores(score.values, calibration.zscore)
    if len(z.values) and not z.n_scored:
        raise InputError(
            f"scores {score.run}/{score.array} of slide {score.slide.slide_id} have no finite number in "
            f"{len(z.values):,} tiles: score the slide again"
        )
    row, col = score.table.row, score.table.col
    shape = LatticePlace.of(score.slide, score.grid).shape

    def mask_of(flagged: npt.NDArray[np.bool_]) -> Lattice:
        return cleaned_tiles(flagged, row, col, shape, calibration.morphology)

    threshold = calibration.threshold
    if threshold is None:
        assert truths is not None
        assert calibration.metric is not None
        truth = truths.of(score)
        if truth is None:
            return None
        best = best_threshold(
            z.values, truth.tiles, calibration.metric, lambda flagged: mask_of(flagged)[row, col]
        )
        threshold = best.value
    return SlideCalibration(score, z, threshold, mask_of(above(z.values, threshold)))


def _check_same_model(calibration: Calibration, score: SlideScore) -> None:
    made_by = made_by_of(score.slide.run_attrs(score.grid, names.SCORES, score.run))
    if not calibration.made_by:
        return
    # "model.weights: stored …, asked …": the values are digests; the same words for all slides, to be told together
    found = [said.partition(":")[0] for said in differences(dict(calibration.made_by), made_by)]
    if found:
        raise InputError(
            f"scores {score.run} were made otherwise than those that the threshold was chosen on (other "
            f"{', '.join(found)}): score by the same model, or calibrate these scores anew"
        )


def _row(found: SlideCalibration, *, written: bool) -> CalibratedSlide:
    z = found.z
    return CalibratedSlide(
        found.score.slide.slide_id,
        len(z.values),
        z.n_without_score,
        z.center,
        z.scale,
        z.flags,
        found.threshold,
        int(np.count_nonzero(above(z.values, found.threshold))),
        int(np.count_nonzero(found.mask)),
        written,
    )
