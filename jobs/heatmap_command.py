"""``slidestream heatmap``: scores drawn over their slides."""

from __future__ import annotations

import json
from pathlib import Path

import click

from jobs.option_types import FiniteFloat, FiniteRange
from jobs.options import config_option, json_option, stack, store_option, verbose_option
from store_schema.names import MASK

source_options = stack(
    click.option(
        "--score",
        metavar="RUN[/ARRAY]",
        help="Scores of tiles; the array is the run's main one if it isn't named.",
    ),
    click.option(
        "--raster",
        metavar="NAME[/ARRAY]",
        help="A stitched map, instead of --score.",
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


@click.command(
    help="Draw scores over their slides: one PNG a slide, and a contact sheet of them all."
)
@store_option
@source_options
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
    type=FiniteFloat(),
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
@click.option(
    "--mask",
    metavar="NAME",
    help="Mask of the store to outline, e.g. of `calibrate`.",
)
@click.option(
    "--sheet/--no-sheet",
    default=True,
    show_default=True,
    help="Draw contact_sheet.png where there are several slides.",
)
@click.option("--overwrite", is_flag=True, help="Replace pictures that are there already.")
@json_option
@verbose_option
@config_option
def heatmap(
    store: str,
    score: str | None,
    raster: str | None,
    class_name: str | None,
    grid: str | None,
    slides: tuple[str, ...],
    out: Path,
    percentile: bool,
    limits: tuple[float, float] | None,
    cmap: str,
    alpha: float,
    truth: Path | None,
    mask: str | None,
    sheet: bool,
    overwrite: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """Draw heatmaps; exit code 1 if a slide could not be drawn."""
    from dataflow.heat_colours import HeatmapStyle
    from jobs.heatmaps import Heatmap, HeatmapSettings, draw_heatmaps
    from jobs.one_line import one_line
    from jobs.problem_lines import problem_lines
    from jobs.raster_reader import RasterChoice
    from jobs.run_config import absolute_url
    from jobs.score_reader import ScoreChoice
    from store_schema.store import open_store

    if (score is None) == (raster is None):
        raise click.UsageError("give either --score or --raster: what is to be drawn")
    settings = HeatmapSettings(
        ScoreChoice.parse(score, class_name, grid)
        if score is not None
        else RasterChoice.parse(str(raster), class_name, grid),
        out,
        slides,
        truth,
        HeatmapStyle(cmap, alpha, percentile, limits),
        None if mask is None else RasterChoice(mask, MASK, grid=grid),
        sheet,
        overwrite,
    )

    def tell(drawn: Heatmap) -> None:
        if as_json or drawn.problem:  # problems come at the end, together
            return
        text = f"{drawn.path}" + f"  ({drawn.note})" * bool(drawn.note)
        click.echo(one_line(f"{drawn.slide_id}: {text}"))

    found = draw_heatmaps(open_store(absolute_url(store)), settings, tell)
    failed = [drawn for drawn in found.slides if drawn.problem]
    if as_json:
        report = {
            "store": store,
            "score": score,
            "raster": raster,
            "drawn": {d.slide_id: str(d.path) for d in found.slides if d.path is not None},
            "contact_sheets": [str(path) for path in found.sheets],
            "notes": {d.slide_id: d.note for d in found.slides if d.note},
            "failed": {d.slide_id: d.problem for d in failed},
        }
        click.echo(json.dumps(report, indent=2))
    else:
        for path in found.sheets:
            click.echo(str(path))
        for line in problem_lines({drawn.slide_id: drawn.problem for drawn in failed}):
            click.echo(line, err=True)
        n_slides = len(found.slides)
        click.echo(f"{n_slides - len(failed)} of {n_slides} heatmaps in {out}")
    return 1 if failed else 0
