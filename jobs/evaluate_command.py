"""``slidestream evaluate``: predictions against labels; scores of tiles and maps against a truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from jobs.option_types import SEED_RANGE, FiniteFloat
from jobs.options import (
    config_option,
    json_option,
    stack,
    truth_options,
    verbose_option,
    without_truth_option,
)

if TYPE_CHECKING:
    from jobs.evaluation.evaluate import EvaluateConfig
    from jobs.evaluation.slide_level import SplitChoice

_path = click.Path(path_type=Path)

_what = stack(
    click.option("--predictions", type=_path, help="A predictions.csv."),
    click.option("--run", type=_path, help="Folder of `mil train`, `mil cv` or `mil score`."),
    click.option("--store", metavar="PATH|URL", help="With --score: what is in the store."),
    click.option("--score", metavar="RUN[/ARRAY]", help="Scores of the store."),
    click.option("--class", "class_name", metavar="NAME", help="Of scores by class."),
    click.option("--grid", metavar="NAME", help="Grid; needed when several have the run."),
    click.option("--slides", multiple=True, metavar="ID", help="Only this slide; repeatable."),
    click.option(
        "--raster",
        metavar="NAME[/ARRAY]",
        help="Stitched map of the store: its pixels are judged, too.",
    ),
)

_truth = stack(
    click.option(
        "--labels",
        type=_path,
        help="CSV with the columns slide_id, label[, patient_id]: whose patients are drawn for intervals, and what "
        "slides are judged by.  [default: labels of the predictions; each slide a patient]",
    ),
    truth_options,
    without_truth_option,
)

_decision = stack(
    click.option(
        "--threshold",
        type=FiniteFloat(),
        help="With --truth: tiles and pixels that score more are flagged. Without: slides of at least this probability "
        "are positive, instead of the decisions as they were made.",
    ),
    click.option(
        "--mask",
        metavar="NAME",
        help="Mask of the store, e.g. of `calibrate`: what is in it is flagged.",
    ),
    click.option(
        "--splits",
        type=_path,
        help="CSV with the columns train, val[, test]: judge tiles of the slides of --split only.",
    ),
    click.option(
        "--split",
        type=click.Choice(["test", "val", "train", "all"]),
        default="test",
        show_default=True,
        help="Which predictions, or which slides of --splits; test are those that the model never met.",
    ),
    click.option(
        "--ladder",
        is_flag=True,
        help="What each step is worth: global threshold, per-slide z-score, threshold by IoU, morphology. Thresholds "
        "are chosen on --fit-split of --splits.",
    ),
    click.option(
        "--fit-split", type=click.Choice(["val", "train"]), default="val", show_default=True
    ),
    click.option(
        "--per-slide-oracle",
        is_flag=True,
        help="Add each slide's own best threshold to the ladder: an upper bound, and no method.",
    ),
    click.option(
        "--resamples",
        type=click.IntRange(1),
        default=1000,
        show_default=True,
        help="Draws of patients for the 95 % intervals.",
    ),
    click.option(
        "--seed",
        type=SEED_RANGE,
        default=0,
        show_default=True,
        help="Of these draws, and of the FROC of shuffled scores.",
    ),
)


@click.command(
    help="Judge predictions of slides against labels (AUC, F1 … with patient-level intervals), and scores of a store "
    "against what is true of tiles, pixels and lesions (AUC-ROC, PR-AUC, IoU, Dice, FROC; per slide, pooled, and by "
    "tumour burden; with intervals)."
)
@_what
@_truth
@_decision
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of evaluation.json, tables as CSV (heatmap_summary.csv …) and report.html.",
)
@json_option
@verbose_option
@config_option
def evaluate(
    predictions: Path | None,
    run: Path | None,
    store: str | None,
    score: str | None,
    class_name: str | None,
    grid: str | None,
    slides: tuple[str, ...],
    raster: str | None,
    labels: Path | None,
    truth: Path | None,
    positive_from: float,
    without_truth: Literal["skip", "negative"],
    threshold: float | None,
    mask: str | None,
    splits: Path | None,
    split: SplitChoice,
    ladder: bool,
    fit_split: Literal["val", "train"],
    per_slide_oracle: bool,
    resamples: int,
    seed: int,
    out: Path | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Evaluate; exit code 1 if a slide could not be judged."""
    from jobs.evaluation.evaluate import EvaluateConfig, evaluate_all
    from jobs.evaluation.result_tables import show_results
    from jobs.evaluation.results import to_json

    config = EvaluateConfig(
        predictions, run, store, score, class_name, grid, slides, raster, labels, truth, positive_from, without_truth,
        threshold, mask, splits, split, ladder, fit_split, per_slide_oracle, resamples, seed, out,
    )  # fmt: skip
    _check(config)
    found = evaluate_all(config)
    if as_json:
        click.echo(json.dumps(to_json(found), indent=2))
    else:
        show_results(found)
        if out is not None:
            click.echo(f"{out}")
    return 1 if found.problems else 0


def _check(config: EvaluateConfig) -> None:
    """Refuse what doesn't go together."""
    if (config.store is None) != (config.score is None):
        raise click.UsageError("--store and --score go together.")
    judged = (config.predictions, config.run, config.store)
    if sum(value is not None for value in judged) != 1:
        raise click.UsageError(
            "Name what is judged: --predictions, or --run, or --store and --score."
        )
    if config.truth is not None and config.store is None:
        raise click.UsageError("--truth judges tiles: name their scores with --store and --score.")
    of_tiles = {
        "--raster": config.raster,
        "--mask": config.mask,
        "--splits": config.splits,
        "--ladder": config.ladder or None,
    }
    for option, value in of_tiles.items():
        if value is not None and config.truth is None:
            raise click.UsageError(f"{option} is of tiles: name their --truth.")
    if config.mask is not None and config.threshold is not None:
        raise click.UsageError("--mask and --threshold both say what is flagged: give one.")
    if config.ladder and config.splits is None:
        raise click.UsageError("--ladder chooses its thresholds on other slides: give --splits.")
    if config.per_slide_oracle and not config.ladder:
        raise click.UsageError("--per-slide-oracle is a step of --ladder: give it, too.")
    if config.truth is None and config.threshold is not None and not 0 <= config.threshold <= 1:
        raise click.UsageError("--threshold of slides is a probability, 0 to 1.")
