"""What a calibration writes of a slide: ``scores/<name>`` with z-scores, and ``masks/<name>`` on the lattice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jobs.calibration.calibration import Calibration
from jobs.calibration.lattice import LatticePlace
from jobs.calibration.morphology import Lattice
from jobs.calibration.zscore import SlideZScores
from jobs.score_reader import CLASS_NAMES, SlideScore
from store_schema import names
from store_schema.errors import DamagedMetadataError, NotInStoreError
from store_schema.specs import ArraySpec, RasterSpec, fingerprint

ZSCORE: Final = "zscore"

UPPER_BOUND: Final = "upper_bound"
"""Attribute of a mask: whether its threshold looked at the truth of its slide. Say so wherever it is shown."""

# Raised when the same scores and settings give other numbers.
CALIBRATION_VERSION: Final = 1


@dataclass(frozen=True)
class SlideCalibration:
    """What one slide came to.

    Attributes
    ----------
    score
        What was read.
    z
        Its z-scores.
    threshold
        On them.
    mask
        bool (row, col), after morphology.
    """

    score: SlideScore
    z: SlideZScores
    threshold: float
    mask: Lattice


def write_slide(
    calibration: Calibration, found: SlideCalibration, name: str, *, overwrite: bool
) -> bool:
    """Write a slide's z-scores and mask; the same again is a no-op.

    Returns
    -------
    bool
        Whether anything had to be written.

    Raises
    ------
    SettingsConflictError
        There are scores or a mask of that name that were made otherwise.
    """
    of_scores = _provenance(calibration, found.score)
    of_mask = {
        **of_scores,
        "threshold": {
            "value": found.threshold,
            "metric": calibration.metric,
            "chosen_on": calibration.chosen_on,
            "slides": [] if calibration.fit is None else list(calibration.fit.slides),
        },
        "morphology": calibration.morphology.provenance,
    }
    stored = _stored_fingerprint(found.score, names.MASKS, name)
    # a mask that is there comes first: whatever conflicts is found before anything is written
    if stored is not None:
        mask = _write_mask(calibration, found, name, of_mask, overwrite=overwrite)
        return _write_scores(found, name, of_scores, overwrite=overwrite) or mask
    _write_scores(found, name, of_scores, overwrite=overwrite)
    return _write_mask(calibration, found, name, of_mask, overwrite=overwrite)


def _write_mask(
    calibration: Calibration,
    found: SlideCalibration,
    name: str,
    provenance: Mapping[str, Any],
    *,
    overwrite: bool,
) -> bool:
    score = found.score
    there = _stored_fingerprint(score, names.MASKS, name) == fingerprint(provenance)
    place = LatticePlace.of(score.slide, score.grid)
    spec = RasterSpec(
        (names.Y, names.X),
        place.shape,
        "uint8",
        place.px_level0,
        place.origin_level0,
        _mask_attrs(calibration, found),
    )
    arrays = {names.MASK: (spec, found.mask.astype(np.uint8))}
    score.slide.write_raster(score.grid, name, arrays, provenance, overwrite=overwrite)
    return not there


def _write_scores(
    found: SlideCalibration, name: str, provenance: Mapping[str, Any], *, overwrite: bool
) -> bool:
    score, z = found.score, found.z
    attrs = {key: value for key, value in score.attrs.items() if key != CLASS_NAMES}
    what = f"{score.run}/{score.array}"
    arrays = {
        ZSCORE: ArraySpec(
            (names.TILE,), (), "float32",
            {"long_name": f"z-score of {what} within the slide", "units": "1"},
        ),
        names.SCORE: ArraySpec((names.TILE,), (), "float32", {**attrs, "source": what}),
    }  # fmt: skip
    group = score.slide.create_tile_group(
        score.grid,
        names.SCORES,
        name,
        arrays,
        provenance,
        extra={
            "center": z.center,
            "scale": z.scale,
            "n_scored": z.n_scored,
            "flags": list(z.flags),
        },
        overwrite=overwrite,
    )
    missing = group.missing_blocks()
    values: dict[str, npt.NDArray[np.float32]] = {
        ZSCORE: z.values,
        names.SCORE: score.values.astype(np.float32),
    }
    for block in missing:
        span = group.block_slice(block)
        group.write_block(block, {array: part[span] for array, part in values.items()})
    return bool(missing)


def _provenance(calibration: Calibration, score: SlideScore) -> dict[str, Any]:
    slide = score.slide
    source = slide.run_attrs(score.grid, names.SCORES, score.run)
    return {
        "slide": slide.record.fingerprint,
        names.GRID_MADE_BY: slide.grid_attrs(score.grid)[names.FINGERPRINT],
        "scores": {
            "run": score.run,
            "array": score.array,
            "class": score.class_name,
            "fingerprint": source[names.FINGERPRINT],
        },
        "zscore": calibration.zscore,
        "calibration_version": CALIBRATION_VERSION,
    }


def _mask_attrs(calibration: Calibration, found: SlideCalibration) -> dict[str, Any]:
    metric, score = calibration.metric, found.score
    return {
        "long_name": f"tiles flagged by {score.run}/{score.array}",
        "flag_values": [0, 1],
        "flag_meanings": "background flagged",
        "comment": "one pixel a place of the tile lattice; a place without a tile is background",
        "threshold": found.threshold,
        "threshold_of": f"z-score ({calibration.zscore})",
        "threshold_metric": "given" if metric is None else metric,
        "threshold_chosen_on": calibration.chosen_on,
        UPPER_BOUND: calibration.is_upper_bound,
        "morphology": calibration.morphology.provenance,
    }


def _stored_fingerprint(score: SlideScore, kind: str, name: str) -> str | None:
    """Return that of a group which is there and whole, an empty string if it can't be read, None if there is none."""
    try:
        attrs = score.slide.run_attrs(score.grid, kind, name)
    except NotInStoreError:
        return None
    except DamagedMetadataError:
        return ""
    return str(attrs[names.FINGERPRINT]) if attrs[names.COMPLETE] else ""
