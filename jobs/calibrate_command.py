"""``slidestream calibrate``: per-slide z-scores, a threshold, morphology."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
from click.core import ParameterSource

from jobs.option_types import FiniteFloat
from jobs.options import (
    config_option,
    json_option,
    stack,
    store_option,
    truth_options,
    verbose_option,
    without_truth_option,
)

if TYPE_CHECKING:
    from jobs.calibration.summary import CalibrateOutcome

_LINE_EVERY_S: Final = 10.0
_path = click.Path(path_type=Path)

_what = stack(
    store_option,
    click.option(
        "--score", metavar="RUN[/ARRAY]", help="Scores to calibrate; more of it means positive."
    ),
    click.option("--class", "class_name", metavar="NAME", help="Of scores by class."),
    click.option("--grid", metavar="NAME", help="Grid; needed when several have the run."),
    click.option(
        "--slides",
        multiple=True,
        metavar="ID",
        help="Write only this slide; repeatable.  [default: all that have the scores]",
    ),
    click.option(
        "--name",
        metavar="NAME",
        help="Of scores and masks in the store.  [default: RUN-calibrated]",
    ),
    click.option(
        "--zscore",
        type=click.Choice(["mean-std", "median-mad"]),
        default="mean-std",
        show_default=True,
        help="How a slide's scores are normalized; median-mad is hardly moved by large lesions.",
    ),
)

_threshold = stack(
    click.option(
        "--splits", type=_path, help="CSV with the columns train, val[, test]: whose slides choose."
    ),
    click.option(
        "--fit-split",
        type=click.Choice(["val", "train"]),
        default="val",
        show_default=True,
        help="Slides that choose the threshold, pooled.",
    ),
    truth_options,
    without_truth_option,
    click.option(
        "--metric",
        type=click.Choice(["iou", "f1", "youden"]),
        default="iou",
        show_default=True,
        help="What the threshold is chosen by.",
    ),
    click.option("--threshold", type=FiniteFloat(), help="A given threshold on z-scores."),
    click.option(
        "--per-slide-oracle",
        is_flag=True,
        help="Each slide's own threshold, by its own truth: an upper bound, and no method.",
    ),
    click.option(
        "--from",
        "source",
        type=click.Path(file_okay=False, path_type=Path),
        help="Run folder of a calibration: use its z-score, threshold and morphology again.",
    ),
)

_morphology = stack(
    click.option(
        "--min-tiles",
        type=click.IntRange(1),
        default=5,
        show_default=True,
        help="Drop components of fewer tiles.",
    ),
    click.option(
        "--fill-holes/--no-fill-holes",
        default=True,
        show_default=True,
        help="Flag tiles that flagged ones enclose.",
    ),
    click.option(
        "--opening",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Radius of a binary opening before [tiles].",
    ),
    click.option(
        "--closing",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Radius of a binary closing before [tiles].",
    ),
    click.option(
        "--connectivity",
        type=click.Choice(["4", "8"]),
        default="8",
        show_default=True,
        help="Neighbours of a tile in a component; holes have the other one.",
    ),
)

_NOT_WITH_FROM: Final = (
    "class_name", "grid", "zscore", "splits", "fit_split", "truth", "metric", "threshold", "per_slide_oracle",
    "positive_from", "without_truth", "min_tiles", "fill_holes", "opening", "closing", "connectivity",
)  # fmt: skip


@click.command(
    help="Bring scores of tiles to z-scores of their slide, choose the threshold on the slides of a validation split, "
    "and clean the mask on the lattice of tiles: scores/NAME and masks/NAME of every slide."
)
@_what
@_threshold
@_morphology
@click.option(
    "--overwrite", is_flag=True, help="Replace what has that name and was made otherwise."
)
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of calibration.json, table, plot and log.  [default: beside the store]",
)
@json_option
@verbose_option
@config_option
@click.pass_context
def calibrate(
    ctx: click.Context,
    store: str,
    score: str | None,
    class_name: str | None,
    grid: str | None,
    slides: tuple[str, ...],
    name: str | None,
    zscore: Literal["mean-std", "median-mad"],
    splits: Path | None,
    fit_split: Literal["val", "train"],
    truth: Path | None,
    metric: Literal["iou", "f1", "youden"],
    threshold: float | None,
    per_slide_oracle: bool,
    source: Path | None,
    positive_from: float,
    without_truth: Literal["skip", "negative"],
    min_tiles: int,
    fill_holes: bool,
    opening: int,
    closing: int,
    connectivity: str,
    overwrite: bool,
    run_dir: Path | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Calibrate; exit code 1 if a slide could not be."""
    from jobs.calibration.call import CalibrateCall, calibrate_here
    from jobs.calibration.morphology import MorphologySpec
    from jobs.calibration.summary import summary_of
    from jobs.calibration.tile_truths import TruthSettings
    from jobs.score_reader import ScoreChoice

    _check(ctx)
    call = CalibrateCall(
        store,
        None if score is None else ScoreChoice.parse(score, class_name, grid),
        name,
        zscore,
        metric,
        MorphologySpec(opening, closing, min_tiles, fill_holes, 4 if connectivity == "4" else 8),
        threshold,
        splits,
        fit_split,
        None if truth is None else TruthSettings(truth, positive_from, without_truth),
        per_slide_oracle,
        source,
        slides,
        overwrite,
        run_dir,
    )
    outcome = calibrate_here(call, _nothing if as_json else _lines())
    if as_json:
        click.echo(json.dumps(summary_of(outcome), indent=2))
    else:
        _show(outcome)
    return 1 if outcome.report.failed else 0


def _check(ctx: click.Context) -> None:
    """Refuse options that contradict each other, or would do nothing."""
    given = {
        str(param.name): param.opts[0]
        for param in ctx.command.params
        if ctx.get_parameter_source(str(param.name)) not in (ParameterSource.DEFAULT, None)
    }
    if "source" in given:
        useless = [given[key] for key in _NOT_WITH_FROM if key in given]
        if useless:
            raise click.UsageError(
                f"--from brings its own settings: leave out {', '.join(useless)}."
            )
        return
    if "score" not in given:
        raise click.UsageError("Name the scores with --score, or a calibration with --from.")
    ways = [given[key] for key in ("splits", "threshold", "per_slide_oracle") if key in given]
    if len(ways) != 1:
        raise click.UsageError(
            "Say once where the threshold comes from: --splits with --truth, --threshold, --per-slide-oracle or "
            f"--from{' (not ' + ' and '.join(ways) + ')' if ways else ''}."
        )
    needs_truth = "threshold" not in given
    if needs_truth != ("truth" in given):
        raise click.UsageError(
            f"{ways[0]} needs --truth."
            if needs_truth
            else "--threshold looks at no --truth: leave it out."
        )
    if "metric" in given and not needs_truth:
        raise click.UsageError("--threshold is given, so no --metric chooses it: leave one out.")


def _nothing(n_done: int, n_total: int) -> None:
    """Say nothing."""


def _lines() -> Callable[[int, int], None]:
    """Return what says how far it is, every ten seconds."""
    last = time.monotonic()

    def tell(n_done: int, n_total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _LINE_EVERY_S:
            last = time.monotonic()
            click.echo(f"{n_done} of {n_total} slides calibrated", err=True)

    return tell


def _show(outcome: CalibrateOutcome) -> None:
    from jobs.calibration.summary import notes_of, threshold_lines
    from jobs.counted import counted
    from jobs.one_line import one_line
    from jobs.problem_lines import problem_lines

    report = outcome.report
    for note in notes_of(outcome.calibration, report):
        click.echo(one_line(f"note: {note}"), err=True)
    for line in problem_lines(report.failed):
        click.echo(line, err=True)
    for line in threshold_lines(outcome.calibration):
        click.echo(line)
    written = sum(each.written for each in report.slides)
    click.echo(
        f"scores/{outcome.name} and masks/{outcome.name}: {counted(written, 'slide')} written, "
        f"{len(report.slides) - written} were there, {len(report.failed)} failed\n{outcome.directory}"
    )
