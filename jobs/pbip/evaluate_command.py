"""``slidestream pbip evaluate``: masks of a segmentation against what is true of pixels and tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.option_types import SEED_RANGE
from jobs.options import (
    json_option,
    stack,
    store_option,
    verbose_option,
    without_truth_option,
)
from jobs.pbip.reference_yaml import reference_config_option

if TYPE_CHECKING:
    from jobs.pbip.evaluate import PbipEvaluateConfig

_path = click.Path(path_type=Path)

_what = stack(
    store_option,
    click.option(
        "--name",
        required=True,
        metavar="NAME",
        help="Masks of the store, of `pbip segment`: NAME, NAME-crf or NAME-post.",
    ),
    click.option(
        "--grid", metavar="NAME", help="Of the masks; needed when several grids have them."
    ),
    click.option(
        "--tiles",
        metavar="GRID",
        help="Grid whose tiles are judged, so that masks of several grids are judged alike.  [default: the masks']",
    ),
    click.option(
        "--truth",
        "truths",
        required=True,
        multiple=True,
        metavar="[CLASS=]PATH",
        help="Where a class is: a folder of masks of any scale, GeoJSON or ASAP XML, named after the slides, or a CSV "
        "of tile labels (slide_id, x, y, label). Repeatable, a class each; of two classes the name may be left out.",
    ),
    without_truth_option,
    click.option(
        "--background",
        metavar="CLASS",
        help="The class of what no truth marks.  [default: benign, normal … where there is such a one, else the first]",
    ),
    click.option("--slides", multiple=True, metavar="ID", help="Only this slide; repeatable."),
    click.option(
        "--splits",
        type=_path,
        help="CSV with the columns train, val[, test]: judge the slides of --split only.",
    ),
    click.option(
        "--split",
        type=click.Choice(["test", "val", "train", "all"]),
        default="test",
        show_default=True,
    ),
)

_how = stack(
    click.option(
        "--protocol",
        type=click.Choice(["own", "published"]),
        default="own",
        show_default=True,
        help="own judges the masks. published judges as the public protocol does: the network's maps of each tile are "
        "told which classes its truth holds. LEAKY, and labelled so.",
    ),
    click.option(
        "--run",
        type=_path,
        help="With --protocol published: the network, a run directory of `pbip train`.",
    ),
    click.option(
        "--labels",
        type=_path,
        help="CSV with the columns slide_id, label, patient_id: intervals draw patients.",
    ),
    click.option(
        "--resamples",
        type=click.IntRange(1),
        default=1000,
        show_default=True,
        help="Draws of patients for the 95 % intervals.",
    ),
    click.option("--seed", type=SEED_RANGE, default=0, show_default=True, help="Of these draws."),
    click.option(
        "--samples",
        type=click.IntRange(0),
        default=6,
        show_default=True,
        help="Tiles that are drawn with truth and prediction.",
    ),
    click.option(
        "--out",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of metrics.json, confusion_matrix.csv, tables, prediction_samples/, evaluation_report.txt and "
        "report.html.",
    ),
    json_option,
    verbose_option,
    reference_config_option,
)


@click.command(
    help="Judge the masks of a segmentation: confusion of classes, IoU, Dice, precision and recall by class, of all "
    "pixels, of slides and of tiles, with intervals, beside what each class would come to if all tissue were of it."
)
@stack(_what, _how)
def evaluate(**options: Any) -> int:
    """Evaluate; exit code 1 if a slide could not be judged."""
    from rich.markup import escape

    from jobs.pbip.evaluate import evaluate_pbip
    from jobs.pbip.evaluation_files import evaluation_json
    from jobs.pbip.evaluation_tables import evaluation_parts
    from jobs.progress import say
    from jobs.tables import show

    config = _config(options)
    found = evaluate_pbip(config, (lambda _: None) if options["as_json"] else say)
    if options["as_json"]:
        click.echo(json.dumps(evaluation_json(found, config.to_json()), indent=2))
    else:
        for part in evaluation_parts(found):
            show(*part.tables, *map(escape, part.notes))
        click.echo(f"{config.out}")
    return 1 if found.problems else 0


def _config(options: dict[str, Any]) -> PbipEvaluateConfig:
    """Freeze what click parsed; nothing after this knows of options."""
    from jobs.pbip.evaluate import PbipEvaluateConfig
    from jobs.training.tile_checkpoint import checkpoint_of

    published, run = options["protocol"] == "published", options["run"]
    if published != (run is not None):
        raise click.UsageError("--protocol published and --run, its network, go together.")
    return PbipEvaluateConfig(
        store=options["store"],
        name=options["name"],
        grid=options["grid"],
        tiles=options["tiles"],
        truth=tuple(_truth(text) for text in options["truths"]),
        without_truth=options["without_truth"],
        background=options["background"],
        slides=options["slides"],
        splits=options["splits"],
        split=options["split"],
        protocol=options["protocol"],
        checkpoint=str(checkpoint_of(str(run))) if published else None,
        labels=options["labels"],
        resamples=options["resamples"],
        seed=options["seed"],
        samples=options["samples"],
        out=options["out"],
    )


def _truth(text: str) -> tuple[str | None, Path]:
    """Take a class from before the first equals sign, unless there is a file of the whole name."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    return name, Path(path)
