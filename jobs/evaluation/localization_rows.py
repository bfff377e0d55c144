"""What a localization comes to, as flat rows for CSV and JSON; what is not defined is None."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final, TypeAlias

from jobs.evaluation.bootstrap import interval_columns
from jobs.evaluation.burden import stratum_of
from jobs.evaluation.froc import SCORE, Froc
from jobs.evaluation.localization import Localization
from jobs.evaluation.localization_intervals import INTERVALS
from jobs.evaluation.pixel_level import PixelMetrics
from jobs.evaluation.tile_level import GroupMetrics, TileMetrics
from models.overlap import Overlap

Row: TypeAlias = dict[str, Any]

JUDGED: Final = "judged"
WITHOUT_TRUTH: Final = "no truth"
FAILED: Final = "failed"

_RATIOS: Final = ("iou", "dice", "precision", "recall")
_PIXEL_AREAS: Final = (
    "n_pixels", "n_positive", "n_without_score", "auc_roc", "auc_resolution", "auc_pr", "auc_with_background",
)  # fmt: skip


def slide_rows(found: Localization) -> list[Row]:
    """Return one row a slide that has the score, in order of their ids: judged, without truth, or failed."""
    rows = []
    for slide in found.slides:
        rows.append(
            {
                "slide_id": slide.slide_id,
                "status": JUDGED,
                **_tiles(slide.tiles),
                "burden": slide.tiles.burden,
                "stratum": stratum_of(slide.tiles.burden),
                "n_lesions": slide.n_lesions,
                "n_isolated": slide.n_isolated,
                **_pixels(slide.pixels),
                "upper_bound": slide.upper_bound,
                "chose_threshold": slide.chose_threshold,
                "model_split": slide.model_split,
                "note": "; ".join(slide.notes),
            }
        )
    keys = list(rows[0]) if rows else ["slide_id", "status", "note"]
    others = dict.fromkeys(found.without_truth, (WITHOUT_TRUTH, ""))
    others |= {slide_id: (FAILED, why) for slide_id, why in found.problems.items()}
    for slide_id, (status, note) in others.items():
        known = {"slide_id": slide_id, "status": status, "note": note}
        rows.append({key: known.get(key) for key in keys})
    return sorted(rows, key=lambda row: str(row["slide_id"]))


def group_rows(found: Localization) -> list[Row]:
    """Return one row for all judged slides, and one for each tumour burden that there is."""
    return [_group(group, found) for group in found.groups]


def _group(group: GroupMetrics, found: Localization) -> Row:
    return {
        "group": group.group,
        "n_slides": group.n_slides,
        "mean_auc_roc": group.mean_auc_roc,
        "mean_auc_pr": group.mean_auc_pr,
        "mean_iou": group.mean_iou,
        "mean_dice": group.mean_dice,
        "mean_precision": group.mean_precision,
        "mean_recall": group.mean_recall,
        "mean_iou_of_all": group.mean_iou_of_all,
        "pooled_iou_of_all": group.pooled.burden or None,
        **{f"pooled_{key}": value for key, value in _tiles(group.pooled).items()},
        **{f"pooled_{key}": value for key, value in _pixels(found.pixels.get(group.group)).items()},
        **interval_columns(found.intervals.get(group.group, {}), INTERVALS),
    }


def froc_rows(curve: Froc) -> list[Row]:
    """Return one row a rate of false alarms, and one for the score, their mean."""
    chance = None if curve.chance is None else {**curve.chance.at_rates, SCORE: curve.chance.score}
    rows = []
    for rate, value in {**curve.at_rates, SCORE: curve.score}.items():
        ends = interval_columns(curve.intervals, (rate,))
        rows.append(
            {
                "false_alarms_per_slide": "mean" if rate == SCORE else rate,
                "sensitivity": value,
                "low_95": ends[f"{rate}_low_95"],
                "high_95": ends[f"{rate}_high_95"],
                "chance": None if chance is None else chance[rate],
            }
        )
    return rows


def localization_json(found: Localization) -> Row:
    """Return all that was found, JSON-able."""
    return {
        "upper_bound": found.upper_bound,
        "intervals": None if found.bootstrap is None else found.bootstrap.to_json(found.slide_ids),
        "groups": group_rows(found),
        "froc": None if found.froc is None else asdict(found.froc),
        "slides": slide_rows(found),
        "without_truth": list(found.without_truth),
        "problems": found.problems,
    }


def _tiles(tiles: TileMetrics) -> Row:
    return {
        "n_tiles": tiles.n_tiles,
        "n_positive": tiles.n_positive,
        "n_without_score": tiles.n_without_score,
        "auc_roc": tiles.auc_roc,
        "auc_pr": tiles.auc_pr,
        **_overlap(tiles.overlap, ("tp", "fp", "fn", "tn", *_RATIOS)),
    }


def _pixels(pixels: PixelMetrics | None) -> Row:
    areas = {name: None if pixels is None else getattr(pixels, name) for name in _PIXEL_AREAS}
    counts = None if pixels is None else pixels.overlap
    return {f"pixel_{name}": value for name, value in (areas | _overlap(counts, _RATIOS)).items()}


def _overlap(overlap: Overlap | None, names: tuple[str, ...]) -> Row:
    return {name: None if overlap is None else getattr(overlap, name) for name in names}
