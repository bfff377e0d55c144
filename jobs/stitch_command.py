"""``slidestream stitch``: tile arrays as slide arrays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from dataflow.physical_size import MPP_RANGE
from jobs.option_types import FiniteFloat, FiniteRange
from jobs.options import config_option, json_option, stack, store_option, verbose_option

if TYPE_CHECKING:
    from dataflow.stitch_spec import FloatDtype, Mode
    from jobs.stitching import StitchedSlide

_options = stack(
    store_option,
    click.option(
        "--score",
        required=True,
        metavar="RUN[/ARRAY]",
        help="Which scores; the array is the run's main one if it isn't named.",
    ),
    click.option("--grid", metavar="NAME", help="Grid; needed when several have the run."),
    click.option(
        "--slides",
        multiple=True,
        metavar="ID",
        help="Only this slide; repeatable.  [default: all that have the run]",
    ),
    click.option(
        "--name",
        metavar="NAME",
        help="Of the result, masks/NAME.  [default: RUN, or RUN_ARRAY where an array is named]",
    ),
    click.option(
        "--mode",
        type=click.Choice(["mean", "max", "gaussian", "vote"]),
        default="mean",
        show_default=True,
        help="What is said where tiles overlap; vote is what most of them say.",
    ),
    click.option("--mpp", type=FiniteRange(*MPP_RANGE), help="Pixel size of the result [µm]."),
    click.option(
        "--px",
        type=FiniteRange(0, min_open=True),
        help="Pixel size of the result in level-0 pixels, instead of --mpp.  "
        "[default: a pixel of the maps; of scalars the distance of tiles]",
    ),
    click.option(
        "--vote-from",
        type=FiniteFloat(),
        default=0.5,
        show_default=True,
        help="With --mode vote: a tile of one number votes for 1 from here on.",
    ),
    click.option(
        "--argmax",
        is_flag=True,
        help="Of scores by class: confidence (class, y, x), and mask (y, x) with the greatest class.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float16", "float32"]),
        help="Of the result.  [default: float32, with --argmax float16]",
    ),
    click.option(
        "--verify/--no-verify",
        default=True,
        show_default=True,
        help="Check the checksums of what is stored already.",
    ),
    click.option(
        "--overwrite", is_flag=True, help="Replace what has that name but was made otherwise."
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS|FILE",
        help="Dask scheduler to use (tcp://…, or a scheduler file); without it threads of this process.",
    ),
    json_option,
    verbose_option,
    config_option,
)


@click.command(
    help="Stitch scores of tiles, or maps of tiles, to arrays of whole slides: masks/NAME in the store. The same again "
    "does nothing, an interrupted call goes on."
)
@_options
def stitch(
    store: str,
    score: str,
    grid: str | None,
    slides: tuple[str, ...],
    name: str | None,
    mode: Mode,
    mpp: float | None,
    px: float | None,
    vote_from: float,
    argmax: bool,
    dtype: FloatDtype | None,
    verify: bool,
    overwrite: bool,
    scheduler: str | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Stitch; exit code 1 if a slide could not be stitched."""
    from dataflow.stitch_spec import StitchSpec
    from jobs.run_config import absolute_url, check_store_place
    from jobs.score_reader import ScoreChoice
    from jobs.stitching import StitchSettings, computing_on, stitch_slides
    from store_schema.store import open_store

    choice = ScoreChoice.parse(score, grid=grid)
    settings = StitchSettings(
        choice,
        name or "_".join(part for part in (choice.run, choice.array) if part),
        StitchSpec(mode, mpp, px, dtype, vote_from, argmax),
        slides,
        overwrite,
        verify,
    )
    if scheduler is not None:
        check_store_place(store)
    opened = open_store(absolute_url(store), mode="r+")
    with computing_on(scheduler) as compute:
        found = stitch_slides(opened, settings, compute, quiet=as_json)
    _show(store, settings.name, found, as_json=as_json)
    return 1 if any(slide.problem for slide in found) else 0


def _show(store: str, name: str, found: list[StitchedSlide], *, as_json: bool) -> None:
    from dataclasses import asdict

    from jobs.problem_lines import problem_lines

    done = {slide.slide_id: slide.result for slide in found if slide.result is not None}
    failed = {slide.slide_id: slide.problem for slide in found if slide.problem}
    if as_json:
        stitched = {slide_id: asdict(result) for slide_id, result in done.items()}
        report = {"store": store, "masks": name, "stitched": stitched, "failed": failed}
        click.echo(json.dumps(report, indent=2))
        return
    for line in problem_lines(failed):
        click.echo(line, err=True)
    n_new = sum(result.n_painted > 0 for result in done.values())
    n_bytes = sum(result.n_bytes for result in done.values())
    click.echo(
        f"masks/{name}: {n_new} slides stitched ({n_bytes / 2**20:,.1f} MiB), {len(done) - n_new} were there, "
        f"{len(failed)} failed"
    )
