"""``slidestream evaluate``: predictions against labels, scores of tiles against a truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from jobs.option_types import SEED_RANGE, FiniteRange
from jobs.options import config_option, json_option, stack, verbose_option

if TYPE_CHECKING:
    from jobs.evaluation.slide_level import SplitChoice
    from jobs.mil.predictions import Predictions

_path = click.Path(path_type=Path)

_what = stack(
    click.option("--predictions", type=_path, help="A predictions.csv."),
    click.option("--run", type=_path, help="Folder of `mil train`, `mil cv` or `mil score`."),
    click.option("--store", metavar="PATH|URL", help="With --score: what is in the store."),
    click.option("--score", metavar="RUN[/ARRAY]", help="Scores of the store."),
    click.option("--class", "class_name", metavar="NAME", help="Of scores by class."),
    click.option("--grid", metavar="NAME", help="Grid; needed when several have the run."),
    click.option("--slides", multiple=True, metavar="ID", help="Only this slide; repeatable."),
)

_truth = stack(
    click.option(
        "--labels",
        type=_path,
        help="CSV with the columns slide_id, label[, patient_id].  [default: labels of the predictions]",
    ),
    click.option(
        "--truth",
        type=_path,
        help="Folder of masks or annotations named after the slides, of any scale: judges tiles.",
    ),
    click.option(
        "--positive-from",
        type=FiniteRange(0, 1),
        default=0.5,
        show_default=True,
        help="A tile is positive if more of its area than this is.",
    ),
    click.option(
        "--without-truth",
        type=click.Choice(["skip", "negative"]),
        default="skip",
        show_default=True,
        help="Slides without truth: leave them out, or take all of their tiles for negative.",
    ),
    click.option(
        "--split",
        type=click.Choice(["test", "val", "train", "all"]),
        default="test",
        show_default=True,
        help="Which predictions; test are those of slides that the model never met.",
    ),
    click.option(
        "--threshold",
        type=FiniteRange(0, 1),
        help="Decide anew at this probability.  [default: decisions as they were made]",
    ),
    click.option("--resamples", type=click.IntRange(1), default=1000, show_default=True),
    click.option("--seed", type=SEED_RANGE, default=0, show_default=True, help="Of the bootstrap."),
)


@click.command(
    help="Judge predictions of slides against labels (AUC, F1 … with patient-level intervals), and scores of tiles "
    "against a truth (AUC-ROC, PR-AUC, per slide and pooled)."
)
@_what
@_truth
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of evaluation.json, slide_metrics.csv and tile_metrics.csv.",
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
    labels: Path | None,
    truth: Path | None,
    positive_from: float,
    without_truth: Literal["skip", "negative"],
    split: SplitChoice,
    threshold: float | None,
    resamples: int,
    seed: int,
    out: Path | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Evaluate; exit code 1 if a slide could not be judged."""
    from jobs.evaluation.results import show_results, to_json, write_results
    from jobs.evaluation.slide_level import evaluate_slides
    from jobs.evaluation.tile_level import TileSettings, evaluate_tiles
    from jobs.run_config import absolute_url
    from jobs.score_reader import ScoreChoice
    from store_schema.store import open_store

    _check_what(predictions, run, store, score, truth)
    opened = None if store is None else open_store(absolute_url(store))
    choice = None if score is None else ScoreChoice.parse(score, class_name, grid)
    of_slides = of_tiles = None
    if opened is not None and choice is not None and truth is not None:
        settings = TileSettings(choice, truth, positive_from, without_truth, slides)
        of_tiles = evaluate_tiles(opened, settings)
    if truth is None or labels is not None:
        if opened is not None and choice is not None:
            from jobs.evaluation.slide_level import predictions_of_scores

            said = predictions_of_scores(opened, choice, slides)
        else:
            said = _read(predictions, run)
        of_slides = evaluate_slides(
            said, labels, split=split, threshold=threshold, resamples=resamples, seed=seed
        )
    if out is not None:
        write_results(out, of_slides, of_tiles)
    if as_json:
        click.echo(json.dumps(to_json(of_slides, of_tiles), indent=2))
    else:
        show_results(of_slides, of_tiles)
    return 1 if of_tiles is not None and of_tiles.problems else 0


def _check_what(
    predictions: Path | None,
    run: Path | None,
    store: str | None,
    score: str | None,
    truth: Path | None,
) -> None:
    if (store is None) != (score is None):
        raise click.UsageError("--store and --score go together.")
    if sum(value is not None for value in (predictions, run, store)) != 1:
        raise click.UsageError(
            "Name what is judged: --predictions, or --run, or --store and --score."
        )
    if truth is not None and store is None:
        raise click.UsageError("--truth judges tiles: name their scores with --store and --score.")


def _read(predictions: Path | None, run: Path | None) -> Predictions:
    from jobs.evaluation.slide_level import predictions_of_run
    from jobs.mil.predictions import read_predictions

    if predictions is not None:
        return read_predictions(predictions)
    assert run is not None
    return predictions_of_run(run)
