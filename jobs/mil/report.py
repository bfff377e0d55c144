"""``mil report``: folds and runs together, as CSV and as one page that holds its pictures."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from jobs.mil.config import LEAKY
from jobs.mil.fold_metrics import (
    LEAKY_SELECTION,
    SUMMARIZED,
    chosen_epoch,
    class_counts,
    has_failed,
    shown,
    shown_mean,
    summarize,
    threshold_text,
)
from jobs.mil.fold_plots import draw_confusions, rankings
from jobs.mil.out_of_fold import interval_text, truth_of
from jobs.mil.run_results import Run, other_slides, read_run
from jobs.page import render_page
from jobs.plots import draw_lines, draw_pr, draw_roc, new_figure, png_data_url
from jobs.training.history import column, warning_text
from store_schema.errors import StorageError

REPORT: Final = "report.html"
_LEVEL: Final = "95 %"
_CURVES: Final = {
    "Training loss": ("train_loss", None),
    "Validation loss": ("val_loss", None),
    "Validation AUC": ("val_auc", (-0.02, 1.04)),
    "Attention entropy": ("val_attention_entropy", (-0.02, 1.04)),
}


def write_report(paths: Sequence[Path], out: Path, *, resamples: int = 1000) -> list[Run]:
    """Write ``report.csv`` and ``report.html`` of some runs.

    Parameters
    ----------
    paths
        Directories of runs.
    out
        Folder of the two files.
    resamples
        Of the bootstrap.

    Raises
    ------
    InputError
        A directory holds no finished run.
    StorageError
        The report can't be written.
    """
    runs = [read_run(path, resamples=resamples) for path in paths]
    page = _page(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / REPORT).write_text(page, encoding="utf-8")
        with (out / "report.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows(_csv_rows(runs))
    except OSError as error:
        raise StorageError(f"The report can't be written to {out} ({error.strerror}).") from error
    return runs


def _csv_rows(runs: Sequence[Run]) -> list[list[object]]:
    """Return one row a fold, and of each run rows of mean, sd (ddof 1), and the ends of the intervals."""
    names = list(dict.fromkeys(name for run in runs for name in run.class_names))
    counts = [f"{side}_{name}" for name in names for side in ("predicted", "actual")]
    header = ["run", "model", "protocol", "fold", "repeat", "status", *SUMMARIZED, "threshold",
              "best_epoch", *counts, "flags"]  # fmt: skip
    rows: list[list[object]] = [[*header]]
    for run in runs:
        for fold in run.folds:
            test = fold["test"] or {}
            cells = [shown_or_empty(test.get(key)) for key in SUMMARIZED]
            ends: list[object] = ["", ""]
            per_class: dict[str, object] = {}
            if fold["status"] == "finished":
                ends = [shown_or_empty(fold["threshold"]["value"]), fold["epoch"]["best"] + 1]
            if test:
                predicted, actual = class_counts(test, fold["class_names"])
                per_class = {f"predicted_{name}": n for name, n in predicted.items()}
                per_class |= {f"actual_{name}": n for name, n in actual.items()}
            rows.append(
                [run.path.name, fold["model"], _protocol(fold), fold["fold"], fold["repeat"],
                 fold["status"], *cells, *ends, *(per_class.get(c, "") for c in counts),
                 "; ".join(fold["flags"])]
            )  # fmt: skip
        summary = summarize(run.folds)
        lines = {
            "mean": [summary[key]["mean"] for key in SUMMARIZED],
            "sd": [summary[key]["sd"] for key in SUMMARIZED],
            "low 95 %": [run.intervals.get(key, {}).get("low") for key in SUMMARIZED],
            "high 95 %": [run.intervals.get(key, {}).get("high") for key in SUMMARIZED],
        }
        first = run.folds[0]
        for name, values in lines.items():
            start: list[object] = [run.path.name, first["model"], _protocol(first), name, "", ""]
            rest = ["" for _ in range(len(header) - len(start) - len(values))]
            rows.append([*start, *map(shown_or_empty, values), *rest])
    return rows


def shown_or_empty(value: float | None) -> object:
    """Return a number with all its digits, or an empty cell."""
    return "" if value is None else value


def _protocol(fold: Mapping[str, Any]) -> str:
    return f"{fold['protocol']} (LEAKY)" if fold["leaky"] else str(fold["protocol"])


def _page(runs: Sequence[Run]) -> str:
    models = sorted({str(fold["model"]) for run in runs for fold in run.folds})
    context = {
        "title": f"Slide models: {', '.join(models)}",
        "subtitle": f"slidestream {version('slidestream')} · {time.strftime('%Y-%m-%d %H:%M')}",
        "headings": SUMMARIZED,
        "level": _LEVEL,
        "leaky": LEAKY,
        "runs": [_run_context(run) for run in runs],
        "other_slides": other_slides(runs),
        "footer": (
            "Mean ± sample standard deviation (ddof 1) over test folds. Intervals: 95 % percentile bootstrap "
            "that draws patients, on the out-of-fold predictions taken together; AUC, AP and ECE are there of "
            "probabilities that several models gave, so they can lie beside the mean of the folds."
        ),
    }
    return render_page("mil/report.html.j2", context)


def _run_context(run: Run) -> dict[str, Any]:
    summary = summarize(run.folds)
    first = run.folds[0]
    counts = f"{len(run.folds)} fold{'s' if len(run.folds) > 1 else ''}"
    return {
        "name": run.path.name,
        "model": first["model"],
        "what": f"{first['model']} · {counts} · {len(run.slide_ids)} test slides of {run.n_patients} patients · "
        f"protocol {_protocol(first)}",
        "leaky": run.leaky,
        "n_slides": len(run.slide_ids),
        "n_patients": run.n_patients,
        "means": {key: shown_mean(summary[key]) for key in SUMMARIZED},
        "intervals": {key: interval_text(run.intervals.get(key)) for key in SUMMARIZED},
        "n_flagged": sum(bool(fold["flags"]) for fold in run.folds),
        "folds": [_fold_context(fold) for fold in run.folds],
        "class_names": run.class_names,
        "balance": _balance(run),
        "plots": _plots(run),
        "warnings": [
            f"fold {fold['fold']}, {warning_text(each)}"
            for fold in run.folds
            for each in fold["warnings"]
        ],
        "settings": _settings_text(run.path),
    }


def _fold_context(fold: Mapping[str, Any]) -> dict[str, Any]:
    test = fold["test"] or {}
    finished = fold["status"] == "finished"
    serious = any(flag.startswith("only ") or flag == LEAKY_SELECTION for flag in fold["flags"])
    return {
        "name": _fold_name(fold),
        "cells": [shown(test.get(key)) for key in SUMMARIZED],
        "threshold": threshold_text(fold) if finished else "-",
        "epoch": chosen_epoch(fold) if finished else "-",
        "flags": fold["flags"],
        "bad": not finished or serious or (bool(test) and has_failed(fold)),
    }


def _fold_name(fold: Mapping[str, Any]) -> str:
    return str(fold["fold"]) if not fold["repeat"] else f"{fold['fold']} (repeat {fold['repeat']})"


def _balance(run: Run) -> list[dict[str, Any]]:
    names = run.class_names
    judged = [(_fold_name(f), f["test"]) for f in run.finished if f["test"] is not None]
    if len(judged) > 1 and run.pooled:
        judged.append(("all", run.pooled))
    rows = []
    for name, test in judged:
        predicted, actual = class_counts(test, names)
        cells = [
            {
                "predicted": predicted[c],
                "actual": actual[c],
                "percent": round(100 * predicted[c] / max(1, test["n"])),
                "actual_percent": round(100 * actual[c] / max(1, test["n"])),
            }
            for c in names
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _plots(run: Run) -> list[dict[str, str]]:
    found = []
    mark = " — LEAKY" if run.leaky else ""
    if run.rows and run.pooled:
        found.append((f"Test folds together{mark}", _test_figure(run)))
    if run.histories:
        found.append(
            (f"Training: a line a fold, a dot at its chosen epoch{mark}", _curves_figure(run))
        )
    return [{"title": title, "url": png_data_url(figure, dpi=130)} for title, figure in found]


def _test_figure(run: Run) -> Figure:
    names, task = run.class_names, run.finished[0]["task"]
    figure, axes = new_figure(1, 3)
    together = rankings(*truth_of(run.rows, names, task), names, task)
    faint = []
    for fold in dict.fromkeys(row.fold for row in run.rows):
        rows = [row for row in run.rows if row.fold == fold]
        faint += rankings(*truth_of(rows, names, task), names, task)
    mark = ", LEAKY" if run.leaky else ""
    draw_roc(axes[0], together, title=f"ROC{mark} (thin: folds)", faint=faint)
    draw_pr(axes[1], together, title=f"Precision and recall{mark}")
    draw_confusions(axes[2], run.pooled, names)
    return figure


def _curves_figure(run: Run) -> Figure:
    figure, axes = new_figure(1, len(_CURVES), axes_inches=(2.9, 2.8))
    chosen = {f"fold {fold['fold']}": fold["epoch"]["best"] + 1 for fold in run.finished}
    for each, (title, (name, ylim)) in zip(axes, _CURVES.items(), strict=True):
        lines = {f"fold {fold}": column(h, name) for fold, h in run.histories.items()}
        epochs = range(1, 1 + max(len(values) for values in lines.values()))
        padded = {
            label: [*values, *[None] * (len(epochs) - len(values))]
            for label, values in lines.items()
            if any(value is not None for value in values)
        }
        shown_title = title.replace("Validation", "Test (LEAKY)") if run.leaky else title
        draw_lines(each, list(epochs), padded, title=shown_title, ylim=ylim, marks=chosen)
    return figure


def _settings_text(path: Path) -> str:
    config = path / "config.yaml"
    return config.read_text() if config.exists() else "config.yaml is missing"
