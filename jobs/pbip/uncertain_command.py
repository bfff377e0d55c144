"""``slidestream pbip uncertain``: the tiles that are worth an annotator's time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.options import json_option, stack, store_option, verbose_option
from jobs.pbip.reference_yaml import reference_config_option

if TYPE_CHECKING:
    from jobs.pbip.uncertain_files import Uncertain

_SHOWN = 10

_what = stack(
    store_option,
    click.option(
        "--name", required=True, metavar="NAME", help="Scores of the store, of `pbip segment`."
    ),
    click.option(
        "--grid", metavar="NAME", help="Of the scores; needed when several grids have them."
    ),
    click.option("--slides", multiple=True, metavar="ID", help="Only this slide; repeatable."),
    click.option(
        "--splits",
        type=click.Path(path_type=Path),
        help="CSV with the columns train, val[, test]: only the slides of --split.",
    ),
    click.option(
        "--split",
        type=click.Choice(["train", "val", "test", "all"]),
        default="all",
        show_default=True,
    ),
)

_how = stack(
    click.option("--top", type=click.IntRange(1), default=50, show_default=True, metavar="N"),
    click.option(
        "--per-slide",
        type=click.IntRange(1),
        metavar="N",
        help="At most so many tiles of a slide, so that not all are of one.",
    ),
    click.option(
        "--by",
        type=click.Choice(["both", "entropy", "disagreement"]),
        default="both",
        show_default=True,
        help="Entropy of the confidence; disagreement between scales, turned views and networks; or the mean of a "
        "tile's percentiles in both.",
    ),
    click.option(
        "--background",
        metavar="CLASS",
        help="The class that the sheet doesn't show.  [default: benign, normal … where there is such a one, else the "
        "first]",
    ),
    click.option(
        "--sheet/--no-sheet", default=True, show_default=True, help="Draw the tiles side by side."
    ),
    click.option(
        "--out",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of uncertain_tiles.csv, uncertain_regions.csv, geojson/ and uncertain_tiles.png.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace files that are there already."),
    json_option,
    verbose_option,
    reference_config_option,
)


@click.command(
    help="List the tiles that a segmentation is least sure of, and the regions that they make, as CSV and as GeoJSON "
    "for QuPath: the next to annotate."
)
@stack(_what, _how)
def uncertain(**options: Any) -> int:
    """List them; exit code 1 if a slide could not be read."""
    from jobs.pbip.uncertain_files import UncertainConfig, list_uncertain

    config = UncertainConfig(
        store=options["store"],
        name=options["name"],
        grid=options["grid"],
        by=options["by"],
        top=options["top"],
        per_slide=options["per_slide"],
        slides=options["slides"],
        splits=options["splits"],
        split=options["split"],
        background=options["background"],
        sheet=options["sheet"],
        out=options["out"],
        overwrite=options["overwrite"],
    )
    found = list_uncertain(config)
    if options["as_json"]:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        _show(found)
    return 1 if found.problems else 0


def _show(found: Uncertain) -> None:
    from rich.markup import escape

    from jobs.counted import counted
    from jobs.one_line import one_line
    from jobs.pbip.uncertain import DISAGREEMENT, ENTROPY
    from jobs.tables import new_table, show
    from store_schema.labels import some

    numbers = ("rank", "x", "y", "region", "uncertainty", ENTROPY, DISAGREEMENT)
    table = new_table("rank", "slide", *numbers[1:], right=numbers)
    for tile in found.tiles[:_SHOWN]:
        x, y = tile.corner
        measured = tile.numbers()
        table.add_row(
            str(tile.rank),
            escape(tile.slide_id),
            f"{x}",
            f"{y}",
            str(tile.region),
            f"{tile.uncertainty:.4g}",
            f"{measured[ENTROPY]:.4f}",
            f"{measured[DISAGREEMENT]:.4f}",
        )
    show(table)
    more = len(found.tiles) - _SHOWN
    if more > 0:
        click.echo(f"and {counted(more, 'more tile')}")
    click.echo(
        f"{counted(len(found.tiles), 'tile')} of {found.n_tiles:,}, on {counted(len(found.regions), 'region')} of "
        f"{counted(len({tile.slide_id for tile in found.tiles}), 'slide')} of {found.n_slides}"
    )
    if found.lacking:
        click.echo(f"without such scores: {some(found.lacking)}")
    for slide_id, problem in found.problems.items():
        click.echo(one_line(f"failed: {slide_id}: {problem}"), err=True)
    for path in found.paths[:2]:
        click.echo(str(path))
