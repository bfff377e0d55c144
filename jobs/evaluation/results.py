"""What an evaluation leaves: JSON and CSV files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from jobs.evaluation.ladder import Ladder
from jobs.evaluation.ladder_table import ladder_notes, ladder_rows
from jobs.evaluation.localization import Localization
from jobs.evaluation.localization_rows import froc_rows, group_rows, localization_json, slide_rows
from jobs.evaluation.slide_level import SlideEvaluation
from models.metrics import SCORES
from store_schema.errors import StorageError

EVALUATION: Final = "evaluation.json"
_SCHEMA: Final = 2


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
    """Write ``evaluation.json`` and, as far as there are any, tables.

    ``slide_metrics.csv`` of predictions; ``heatmap_summary.csv`` a slide, ``burden_summary.csv`` of slides together,
    ``froc.csv`` (the curve), ``froc_score.csv`` and ``ladder.csv``.

    Raises
    ------
    StorageError
        A file can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / EVALUATION).write_text(json.dumps(to_json(found), indent=2) + "\n")
        if found.slides is not None:
            rows = metric_rows(found.slides)
            _write_csv(out / "slide_metrics.csv", ("metric", "value", "low_95", "high_95"), rows)
        if found.localization is not None:
            _write_rows(out / "heatmap_summary.csv", slide_rows(found.localization))
            _write_rows(out / "burden_summary.csv", group_rows(found.localization))
            if found.localization.froc is not None:
                curve = found.localization.froc
                points = zip(curve.false_alarms, curve.sensitivity, strict=True)
                _write_csv(out / "froc.csv", ("false_alarms_per_slide", "sensitivity"), points)
                _write_rows(out / "froc_score.csv", froc_rows(curve))
        if found.ladder is not None:
            _write_rows(out / "ladder.csv", list(ladder_rows(found.ladder)))
    except OSError as error:
        raise StorageError(f"the results can't be written to {out}: {error.strerror}") from error


def metric_rows(slides: SlideEvaluation) -> list[tuple[Any, ...]]:
    """Return metric, value and ends of the interval of all metrics of slides."""
    rows: list[tuple[Any, ...]] = [("n", slides.metrics["n"], "", "")]
    for name in SCORES:
        interval = slides.intervals.get(name, {})
        rows.append((name, slides.metrics[name], interval.get("low"), interval.get("high")))
    return rows


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    header = list(rows[0]) if rows else []
    _write_csv(path, header, ([row[name] for name in header] for row in rows))


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
