"""``slidestream heatmap``: scores drawn over their slides."""

from __future__ import annotations

import json
from pathlib import Path

import click

from jobs.option_types import FiniteRange
from jobs.options import config_option, json_option, stack, store_option, verbose_option

score_options = stack(
    click.option(
        "--score",
        required=True,
        metavar="RUN[/ARRAY]",
        help="Which scores; the array is the run's main one if it isn't named.",
    ),
    click.option("--class", "class_name", metavar="NAME", help="Of scores by class."),
    click.option("--grid", metavar="NAME", help="Grid; needed when several have the run."),
    click.option(
        "--slides",
        multiple=True,
        metavar="ID",
        help="Only this slide; repeatable.  [default: all that have the run]",
    ),
)


@click.command(help="Draw scores over their slides: one PNG a slide.")
@store_option
@score_options
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the pictures.",
)
@click.option(
    "--percentile", is_flag=True, help="Colour by rank within the slide instead of by value."
)
@click.option(
    "--limits",
    type=FiniteRange(),
    nargs=2,
    metavar="LOW HIGH",
    help="Ends of the colour bar, the same on all slides.  [default: the score's range, or the slide's]",
)
@click.option("--cmap", default="viridis", show_default=True, help="A matplotlib colour map.")
@click.option(
    "--alpha",
    type=FiniteRange(0, 1),
    default=0.6,
    show_default=True,
    help="Opacity of the overlay.",
)
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    help="Folder of masks or annotations, named after the slides, to outline.",
)
@json_option
@verbose_option
@config_option
def heatmap(
    store: str,
    score: str,
    class_name: str | None,
    grid: str | None,
    slides: tuple[str, ...],
    out: Path,
    percentile: bool,
    limits: tuple[float, float] | None,
    cmap: str,
    alpha: float,
    truth: Path | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Draw heatmaps; exit code 1 if a slide could not be drawn."""
    from dataflow.heat_colours import HeatmapStyle
    from jobs.heatmaps import Heatmap, HeatmapSettings, draw_heatmaps
    from jobs.one_line import one_line
    from jobs.run_config import absolute_url
    from jobs.score_reader import ScoreChoice
    from store_schema.store import open_store

    settings = HeatmapSettings(
        ScoreChoice.parse(score, class_name, grid),
        out,
        slides,
        truth,
        HeatmapStyle(cmap, alpha, percentile, limits),
    )

    def tell(drawn: Heatmap) -> None:
        text = drawn.problem or f"{drawn.path}" + (
            f"  (blank ground: {drawn.note})" * bool(drawn.note)
        )
        if not as_json:
            click.echo(one_line(f"{drawn.slide_id}: {text}"), err=bool(drawn.problem))

    found = draw_heatmaps(open_store(absolute_url(store)), settings, tell)
    failed = [drawn for drawn in found if drawn.problem]
    if as_json:
        report = {
            "store": store,
            "score": score,
            "drawn": {d.slide_id: str(d.path) for d in found if d.path is not None},
            "blank_ground": {d.slide_id: d.note for d in found if d.note},
            "failed": {d.slide_id: d.problem for d in failed},
        }
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(f"{len(found) - len(failed)} of {len(found)} heatmaps in {out}")
    return 1 if failed else 0
