"""What an evaluation leaves: tables on the terminal, CSV and JSON files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from jobs.evaluation.slide_level import SlideEvaluation
from jobs.evaluation.tile_level import TileEvaluation, TileMetrics
from jobs.tables import new_table, show
from models.metrics import SCORES
from store_schema.errors import StorageError
from store_schema.labels import some

_POOLED = "(all)"


def to_json(slides: SlideEvaluation | None, tiles: TileEvaluation | None) -> dict[str, Any]:
    """Return all that was found, JSON-able."""
    parts = {"slides": slides, "tiles": tiles}
    return {"schema": 1} | {name: asdict(part) for name, part in parts.items() if part is not None}


def write_results(out: Path, slides: SlideEvaluation | None, tiles: TileEvaluation | None) -> None:
    """Write ``evaluation.json``, and ``slide_metrics.csv`` and ``tile_metrics.csv`` as far as there are any.

    Raises
    ------
    StorageError
        A file can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "evaluation.json").write_text(json.dumps(to_json(slides, tiles), indent=2) + "\n")
        if slides is not None:
            _write_csv(
                out / "slide_metrics.csv", ("metric", "value", "low_95", "high_95"), _rows(slides)
            )
        if tiles is not None:
            header = [field.name for field in fields(TileMetrics)]
            _write_csv(out / "tile_metrics.csv", header, _tile_rows(tiles))
    except OSError as error:
        raise StorageError(f"the results can't be written to {out}: {error.strerror}") from error


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _rows(slides: SlideEvaluation) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = [("n", slides.metrics["n"], "", "")]
    for name in SCORES:
        interval = slides.intervals.get(name, {})
        rows.append((name, slides.metrics[name], interval.get("low"), interval.get("high")))
    return rows


def _tile_rows(tiles: TileEvaluation) -> list[tuple[Any, ...]]:
    every = [*tiles.slides, *([tiles.pooled] if tiles.pooled is not None else [])]
    return [
        tuple(asdict(replace(each, slide_id=each.slide_id or _POOLED)).values()) for each in every
    ]


def show_results(slides: SlideEvaluation | None, tiles: TileEvaluation | None) -> None:
    """Print tables."""
    if slides is not None:
        _show_slides(slides)
    if tiles is not None:
        _show_tiles(tiles)


def _show_slides(slides: SlideEvaluation) -> None:
    table = new_table("metric", "value", "95 % interval", right=("value", "95 % interval"))
    for name, value, low, high in _rows(slides)[1:]:
        interval = "" if low is None else f"{low:.3f} to {high:.3f}"
        table.add_row(name, _number(value), interval)
    metrics = slides.metrics
    balance = ", ".join(
        f"{name} {metrics['predicted_per_class'][name]} of {metrics['actual_per_class'][name]}"
        for name in slides.class_names
    )
    lines = [
        f"{metrics['n']} slides of {slides.n_patients} patients; predicted of actual: {balance}",
        *metrics["notes"],
    ]
    if slides.other_splits:
        lines.append(f"{slides.other_splits} predictions of other splits are left out")
    for what, ids in (
        ("were predicted but have no label", slides.without_label),
        ("have a label but no prediction", slides.without_prediction),
    ):
        if ids:
            lines.append(f"{len(ids)} slides {what}: {some(ids)}")
    show(table, *map(escape, lines))


def _show_tiles(tiles: TileEvaluation) -> None:
    numbers = ("tiles", "positive", "AUC-ROC", "PR-AUC")
    table = new_table("slide", *numbers, right=numbers)
    every = [*tiles.slides, *([tiles.pooled] if tiles.pooled is not None else [])]
    for each in every:
        table.add_row(
            escape(each.slide_id or _POOLED),
            f"{each.n_tiles:,}",
            f"{each.n_positive:,}",
            _number(each.auc_roc),
            _number(each.auc_pr),
        )
    table.add_row("mean of slides", "", "", _number(tiles.mean_auc_roc), _number(tiles.mean_auc_pr))
    lines = [f"{slide_id}: {problem}" for slide_id, problem in tiles.problems.items()]
    if tiles.without_truth:
        n = len(tiles.without_truth)
        lines.append(f"{n} slides have scores but no mask: {some(tiles.without_truth)}")
    show(table, *map(escape, lines))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
