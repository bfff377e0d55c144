"""The table that ``mil train`` and ``mil cv`` print at their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from jobs.mil.config import LEAKY
from jobs.mil.fold_metrics import (
    FOLD_KIND,
    chosen_epoch,
    class_counts,
    holds_at_an_end,
    shown,
    shown_mean,
    summarize,
    threshold_text,
)
from jobs.mil.out_of_fold import interval_text
from jobs.mil.run_results import other_slides
from jobs.tables import new_table, show

if TYPE_CHECKING:
    from jobs.mil.run_results import Run

_SHOWN = {"auc": "AUC", "f1": "F1", "accuracy": "acc", "balanced_accuracy": "bal acc"}


def show_results(metrics: Mapping[str, Any]) -> None:
    """Print folds, mean ± sd, warnings, and where everything is.

    Parameters
    ----------
    metrics
        Of a fold or of a cross-validation, with ``run_dir``.
    """
    folds = [metrics] if metrics["kind"] == FOLD_KIND else metrics["folds"]
    table = new_table(
        "fold", *_SHOWN.values(), "predicted (actual)", "threshold", "epoch", "",
        right=("fold", *_SHOWN.values()),
    )  # fmt: skip
    for fold in folds:
        table.add_row(*fold_row(fold))
    if metrics["kind"] != FOLD_KIND:
        table.add_section()
        means = [shown_mean(metrics["summary"][key]) for key in _SHOWN]
        table.add_row("mean ± sd", *means, "", "", "", "")
    lines = [f"[bold red]{LEAKY}[/]"] if metrics["leaky"] else []
    for fold in folds:
        lines += [
            f"[yellow]warning[/]  fold {fold['fold']}: {escape(warning['message'])}"
            for warning in fold["warnings"]
            if holds_at_an_end(warning, fold)
        ]
    show(f"{metrics['model']}, test folds", table, *lines, f"run_dir  {escape(metrics['run_dir'])}")


def fold_row(fold: Mapping[str, Any]) -> list[str]:
    """Return the cells of a fold."""
    test = fold["test"]
    number = str(fold["fold"])
    flags = escape("; ".join(fold["flags"]))
    if test is None:
        return [number, *("-" for _ in _SHOWN), "-", "-", "-", flags or "no test fold"]
    predicted, actual = class_counts(test, fold["class_names"])
    names = fold["class_names"]
    judged = names[1:] if fold["task"] == "multiclass" and len(names) == 2 else names
    return [
        number,
        *(shown(test[key]) for key in _SHOWN),
        escape(", ".join(f"class {name}: {predicted[name]} ({actual[name]})" for name in judged)),
        threshold_text(fold),
        chosen_epoch(fold),
        f"[red]{flags}[/]" if flags else "",
    ]


def show_runs(runs: Sequence[Run], page: Path) -> None:
    """Print runs side by side, and where the page is.

    Parameters
    ----------
    runs
        Of the report.
    page
        Its path.
    """
    table = new_table(
        "run", "model", *_SHOWN.values(), "folds", "slides", "patients", "flagged",
        right=("folds", "slides", "patients", "flagged"),
    )  # fmt: skip
    for run in runs:
        summary = summarize(run.folds)
        cells = [
            f"{shown_mean(summary[key])} {interval_text(run.intervals.get(key))}".strip()
            for key in _SHOWN
        ]
        flagged = sum(bool(fold["flags"]) for fold in run.folds)
        model = f"{run.folds[0]['model']}{' (LEAKY)' if run.leaky else ''}"
        counts = (len(run.folds), len(run.slide_ids), run.n_patients, flagged)
        table.add_row(escape(run.path.name), model, *map(escape, cells), *map(str, counts))
    lines = [f"[bold red]{LEAKY}[/]"] if any(run.leaky for run in runs) else []
    differing = other_slides(runs)
    if differing is not None:
        lines.append(f"[yellow]note[/]     {escape(differing)}")
    note = "mean ± sd over folds (ddof 1), and the 95 % interval of out-of-fold predictions"
    show(table, escape(note), *lines, f"report   {escape(str(page))}")
