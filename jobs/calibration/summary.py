"""What a calibration came to, in JSON and in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.calibration.apply import ApplyReport
from jobs.calibration.calibration import Calibration
from jobs.calibration.zscore import FLAG_MEANINGS
from jobs.counted import counted
from models.overlap import Overlap
from store_schema.labels import some


@dataclass(frozen=True)
class CalibrateOutcome:
    """What came of it: the calibration, the name of scores and masks, the slides, and the run's directory."""

    calibration: Calibration
    name: str
    report: ApplyReport
    directory: Path


def summary_of(outcome: CalibrateOutcome) -> dict[str, object]:
    """Return what came of a call, JSON-able."""
    report = outcome.report
    return {
        "name": outcome.name,
        "calibration": outcome.calibration.to_json(),
        "upper_bound": outcome.calibration.is_upper_bound,
        "written": [each.slide_id for each in report.slides if each.written],
        "found": [each.slide_id for each in report.slides if not each.written],
        "without_truth": report.without_truth,
        "failed": report.failed,
        "flagged_slides": {each.slide_id: list(each.flags) for each in report.slides if each.flags},
        "tiles": {
            "all": sum(each.n_tiles for each in report.slides),
            "without_score": sum(each.n_without_score for each in report.slides),
            "above_threshold": sum(each.n_flagged for each in report.slides),
            "in_mask": sum(each.n_mask for each in report.slides),
        },
        "notes": notes_of(outcome.calibration, report),
        "run_dir": str(outcome.directory),
    }


def notes_of(calibration: Calibration, report: ApplyReport) -> list[str]:
    """Return what must be known of a calibration, in sentences."""
    notes = []
    if calibration.is_upper_bound:
        notes.append(
            "UPPER BOUND: each slide's threshold was chosen on its own truth; no number of these masks says what a "
            "method would give"
        )
    fit = calibration.fit
    if fit is not None:
        notes.extend(fit.notes)
        if fit.at_end:
            notes.append("the threshold is the end of what was tried: a better one may lie beyond")
        for why, ids in (("no truth", fit.without_truth), ("no such scores", fit.without_scores)):
            if ids:
                slides = counted(len(ids), f"{fit.split} slide has", f"{fit.split} slides have")
                notes.append(f"{slides} {why} and did not help to choose: {some(ids)}")
    if report.without_truth:
        notes.append(
            f"{counted(len(report.without_truth), 'slide has', 'slides have')} no truth, left out: "
            f"{some(report.without_truth)}"
        )
    for flag, meaning in FLAG_MEANINGS.items():
        flagged = [each.slide_id for each in report.slides if flag in each.flags]
        if flagged:
            notes.append(f"{flag} ({meaning}): {counted(len(flagged), 'slide')}: {some(flagged)}")
    unscored = [each for each in report.slides if each.n_without_score]
    if unscored:
        notes.append(
            f"{counted(sum(each.n_without_score for each in unscored), 'tile')} of "
            f"{counted(len(unscored), 'slide')} without a finite score, never flagged: "
            f"{some([each.slide_id for each in unscored])}"
        )
    return notes


def threshold_lines(calibration: Calibration) -> list[str]:
    """Return what the threshold is, and what it comes to on the slides that chose it."""
    fit = calibration.fit
    if calibration.threshold is None:
        return [f"thresholds: each slide's own, by {calibration.metric} on its truth: UPPER BOUND"]
    said = f"threshold: z > {calibration.threshold:.3f}, "
    if fit is None:
        return [said + "given"]
    flagged = fit.flagged
    tiles, positive = flagged.tp + flagged.fp + flagged.fn + flagged.tn, flagged.tp + flagged.fn
    where = f"{calibration.chosen_on} ({counted(tiles, 'tile')}, {positive:,} positive)"
    return [
        f"{said}by {calibration.metric} on {where}",
        f"  tiles above it, on those: {_ratios(flagged)}",
        f"  the mask, on those: {_ratios(fit.cleaned)}",
    ]


def _ratios(counts: Overlap) -> str:
    ratios = {
        "IoU": counts.iou,
        "F1": counts.dice,
        "precision": counts.precision,
        "recall": counts.recall,
        "specificity": counts.specificity,
        "Youden's J": counts.youden,
    }
    listed = ", ".join(f"{name} {'-' if v is None else f'{v:.3f}'}" for name, v in ratios.items())
    return f"{listed}, {counted(counts.fp, 'false positive')}"
