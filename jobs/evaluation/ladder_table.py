"""The ladder as rows for CSV and JSON, and as a table on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.table import Table

from jobs.counted import counted
from jobs.evaluation.bootstrap import interval_columns, interval_text
from jobs.evaluation.ladder import ALL, GroupResult, Ladder, LadderStep
from jobs.tables import new_table
from store_schema.labels import some

# column → what the interval of it is called
_KEYS: Final = {
    "mean_iou": "mean_iou",
    "pooled_iou": "pooled_iou",
    "precision": "pooled_precision",
    "recall": "pooled_recall",
}


def ladder_rows(found: Ladder) -> Iterator[dict[str, Any]]:
    """Yield one row a step and group of slides; what is not defined is None."""
    for step in found.steps:
        for each in step.groups:
            counts = each.overlap
            yield {
                "step": step.name,
                "burden": each.group,
                "upper_bound": step.upper_bound,
                "threshold": step.threshold,
                "n_slides": each.n_slides,
                "mean_iou": each.mean_iou,
                "pooled_iou": counts.iou,
                "tp": counts.tp,
                "fp": counts.fp,
                "fn": counts.fn,
                "tn": counts.tn,
                "precision": counts.precision,
                "recall": counts.recall,
                **_interval_columns(each),
            }


def ladder_table(found: Ladder) -> Table:
    """Return a table: one line a step and group of slides."""
    numbers = (
        "threshold",
        "slides",
        "mean IoU",
        "pooled IoU",
        "false positives",
        "precision",
        "recall",
    )
    table = new_table("step", "tumour burden", *numbers, right=numbers)
    for step in found.steps:
        for i, each in enumerate(step.groups):
            counts = each.overlap
            table.add_row(
                step.title if i == 0 else "",
                each.group,
                _threshold(step) if i == 0 else "",
                str(each.n_slides),
                _number(each.mean_iou),
                _number(counts.iou),
                f"{counts.fp:,}",
                _number(counts.precision),
                _number(counts.recall),
            )
            if each.group == ALL and each.intervals:
                ends = {name: interval_text(each.intervals.get(key)) for name, key in _KEYS.items()}
                table.add_row(
                    "", "95 % interval", "", "", ends["mean_iou"], ends["pooled_iou"], "",
                    ends["precision"], ends["recall"],
                )  # fmt: skip
    return table


def ladder_notes(found: Ladder) -> list[str]:
    """Return what must be known to read the table, in sentences."""
    notes = [
        f"thresholds are chosen on {counted(len(found.fit_slides), 'slide')} and judged on "
        f"{len(found.judged_slides)}; mean IoU is over slides with positive tiles",
        "F1 = 2 IoU / (1 + IoU) rises with IoU: of pooled counts both choose the same threshold",
    ]
    if found.bootstrap is not None:
        notes += found.bootstrap.notes(found.judged_slides)
        notes.append(
            "the intervals take the thresholds as they are: other slides would choose others"
        )
    if found.judged_twice:
        notes.append(
            f"{len(found.judged_twice)} of the judged slides chose the thresholds, too, so the numbers are better "
            f"than on new slides: {some(found.judged_twice)}"
        )
    for step in found.steps:
        if step.upper_bound:
            notes.append(
                f"{step.title}: looks at the truth of the slides that it is judged on, no method"
            )
        elif step.at_end and step.name in ("global", "iou"):
            notes.append(
                f"{step.title}: the threshold is the end of what was tried, a better one may lie beyond"
            )
    if found.n_without_score:
        tiles = counted(found.n_without_score, "judged tile has", "judged tiles have")
        notes.append(f"{tiles} no score and can't be flagged")
    return notes


def _interval_columns(group: GroupResult) -> dict[str, Any]:
    intervals = {
        column: group.intervals[key] for column, key in _KEYS.items() if key in group.intervals
    }
    return interval_columns(intervals, tuple(_KEYS))


def _threshold(step: LadderStep) -> str:
    if step.threshold is not None:
        return f"{step.threshold:.4g}"
    return "its own" if step.upper_bound else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
