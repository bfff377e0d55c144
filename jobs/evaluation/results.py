"""What an evaluation leaves: JSON and CSV files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from jobs.evaluation.earlier_report import (
    BURDEN_SUMMARY,
    EVALUATION,
    FILES,
    FROC,
    FROC_SCORE,
    HEATMAP_SUMMARY,
    LADDER,
    SLIDE_METRICS,
    remove_earlier,
)
from jobs.evaluation.ladder import Ladder
from jobs.evaluation.ladder_table import ladder_notes, ladder_rows
from jobs.evaluation.localization import Localization
from jobs.evaluation.localization_rows import froc_rows, group_rows, localization_json, slide_rows
from jobs.evaluation.pictures import FOLDER, telling_slides
from jobs.evaluation.slide_level import SlideEvaluation
from models.metrics import SCORES
from store_schema.errors import StorageError

_SCHEMA: Final = 2

_Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[Any]]]


@dataclass(frozen=True)
class Evaluation:
    """All that was judged; what wasn't is None.

    Attributes
    ----------
    slides
        Predictions of slides against labels.
    localization
        Tiles, pixels and lesions against a truth.
    ladder
        What each step from scores to a mask is worth.
    without_scores
        Slides of the split that have no such scores.
    settings
        What was asked, JSON-able.
    """

    slides: SlideEvaluation | None = None
    localization: Localization | None = None
    ladder: Ladder | None = None
    without_scores: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def problems(self) -> Mapping[str, str]:
        """Slide id → why it could not be judged."""
        return {} if self.localization is None else self.localization.problems


def to_json(found: Evaluation) -> dict[str, Any]:
    """Return all that was found, JSON-able."""
    said: dict[str, Any] = {"schema": _SCHEMA, "settings": dict(found.settings)}
    if found.slides is not None:
        said["slides"] = asdict(found.slides)
    if found.localization is not None:
        said["localization"] = localization_json(found.localization)
        said["localization"]["without_scores"] = list(found.without_scores)
    if found.ladder is not None:
        said["ladder"] = {
            "steps": list(ladder_rows(found.ladder)),
            "fit_slides": list(found.ladder.fit_slides),
            "judged_slides": list(found.ladder.judged_slides),
            "notes": ladder_notes(found.ladder),
        }
    return said


def write_results(out: Path, found: Evaluation) -> None:
    """Write ``evaluation.json`` and, as far as there are any, tables; those of an earlier call are removed first.

    ``slide_metrics.csv`` of predictions; ``heatmap_summary.csv`` a slide, ``burden_summary.csv`` of slides together,
    ``froc.csv`` (the curve), ``froc_score.csv`` and ``ladder.csv``.

    Raises
    ------
    StorageError
        A file can't be written, or one of an earlier call can't be removed.
    """
    tables = _tables(found)
    shown = [] if found.localization is None else telling_slides(found.localization)
    files = [*tables, *(f"{FOLDER}/{slide_id}.png" for _, slide_id in shown)]
    remove_earlier(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        said = {**to_json(found), FILES: files}
        (out / EVALUATION).write_text(json.dumps(said, indent=2) + "\n")
        for name, (header, rows) in tables.items():
            _write_csv(out / name, header, rows)
    except OSError as error:
        raise StorageError(f"the results can't be written to {out}: {error.strerror}") from error


def _tables(found: Evaluation) -> dict[str, _Table]:
    """Return name of the file → header and rows."""
    tables: dict[str, _Table] = {}
    if found.slides is not None:
        tables[SLIDE_METRICS] = ("metric", "value", "low_95", "high_95"), metric_rows(found.slides)
    if found.localization is not None:
        tables[HEATMAP_SUMMARY] = _table(slide_rows(found.localization))
        tables[BURDEN_SUMMARY] = _table(group_rows(found.localization))
        if found.localization.froc is not None:
            curve = found.localization.froc
            points = list(zip(curve.false_alarms, curve.sensitivity, strict=True))
            tables[FROC] = ("false_alarms_per_slide", "sensitivity"), points
            tables[FROC_SCORE] = _table(froc_rows(curve))
    if found.ladder is not None:
        tables[LADDER] = _table(list(ladder_rows(found.ladder)))
    return tables


def metric_rows(slides: SlideEvaluation) -> list[tuple[Any, ...]]:
    """Return metric, value and ends of the interval of all metrics of slides."""
    rows: list[tuple[Any, ...]] = [("n", slides.metrics["n"], "", "")]
    for name in SCORES:
        interval = slides.intervals.get(name, {})
        rows.append((name, slides.metrics[name], interval.get("low"), interval.get("high")))
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> _Table:
    header = list(rows[0]) if rows else []
    return header, [[row[name] for name in header] for row in rows]


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
