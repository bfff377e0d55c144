"""``slidestream mil score``: trained slide models on slides, written into the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from jobs.options import config_option, json_option, stack, store_option, verbose_option

_options = stack(
    store_option,
    click.option(
        "--run",
        "runs",
        required=True,
        multiple=True,
        type=click.Path(path_type=Path),
        help="Run folder of `mil train` or `mil cv`; several are averaged.",
    ),
    click.option(
        "--name", metavar="NAME", help="Name of the scores in the store.  [default: the run's]"
    ),
    click.option("--features", metavar="NAME", help="Features.  [default: those of the training]"),
    click.option("--grid", metavar="NAME", help="Grid.  [default: that of the training]"),
    click.option(
        "--slides",
        multiple=True,
        metavar="ID",
        help="Only this slide; repeatable.  [default: all that have the features]",
    ),
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        help="CSV with the columns slide_id, label[, patient_id]: for predictions.csv, and to know patients.  "
        "[default: that of the training]",
    ),
    click.option(
        "--allow-incomplete",
        is_flag=True,
        help="Score slides whose features aren't complete; what is missing gets NaN.",
    ),
    click.option(
        "--overwrite", is_flag=True, help="Replace scores of that name that were made otherwise."
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
    ),
    click.option(
        "--threads",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="CPU threads of a model; the last bits depend on it.",
    ),
    click.option(
        "--run-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of predictions.csv, log and metrics.  [default: a new one in <store>_runs, beside the store]",
    ),
    json_option,
    verbose_option,
    config_option,
)


@click.command(
    help="Judge whole slides by trained models: attention, tile probabilities and predictions go into the store, "
    "predictions.csv into a folder of this run's own, beside the store. Slides of a test fold are judged by "
    "that fold's model only."
)
@_options
def score(
    store: str,
    runs: tuple[Path, ...],
    name: str | None,
    features: str | None,
    grid: str | None,
    slides: tuple[str, ...],
    labels: Path | None,
    allow_incomplete: bool,
    overwrite: bool,
    device: Literal["auto", "cpu", "cuda"],
    threads: int,
    run_dir: Path | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Score slides; exit code 1 if one could not be scored."""
    from jobs.mil.score_here import ScoreCall, score_here
    from jobs.mil.score_inputs import ScoreSettings
    from jobs.progress import say
    from store_schema.errors import InputError

    if name is None and len(runs) > 1:
        raise InputError("several runs are averaged: name the result with --name")
    settings = ScoreSettings(
        runs[0].absolute().name if name is None else name,
        features,
        grid,
        slides,
        None if labels is None else labels.expanduser().absolute(),
        allow_incomplete,
        overwrite,
        device,
        threads,
    )
    call = ScoreCall(store, tuple(run.expanduser().absolute() for run in runs), settings, run_dir)
    report, directory = score_here(call, quiet=as_json)
    if as_json:
        click.echo(json.dumps(_summary(report, settings.name, directory), indent=2))
    else:
        for note in report.notes:
            say(f"note: {note}")
        for slide_id, problem in report.failed.items():
            say(f"failed: {slide_id}: {problem}")
        click.echo(
            f"scores/{settings.name}: {len(report.written)} slides written, {len(report.found)} were there, "
            f"{len(report.failed)} failed\n{directory / 'predictions.csv'}"
        )
    return 1 if report.failed else 0


def _summary(report: Any, name: str, directory: Path) -> dict[str, Any]:
    return {
        "scores": name,
        "written": report.written,
        "found": report.found,
        "failed": report.failed,
        "notes": report.notes,
        "predictions": str(directory / "predictions.csv"),
    }
