"""``slidestream pbip prototypes``: a bank of prototypes of each class, into the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.option_types import SEED_RANGE
from jobs.options import (
    compute_options,
    json_option,
    stack,
    store_option,
    truth_options,
    verbose_option,
)
from jobs.pbip.reference_yaml import reference_config_option

if TYPE_CHECKING:
    from jobs.pbip.prototypes import PrototypesConfig

_path = click.Path(path_type=Path)


class NumberList(click.ParamType[tuple[int, ...]]):
    """Whole numbers from 1 on, separated by commas."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers, or fail."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r} is no list of whole numbers such as 3 or 3,2.", param, ctx)
        return numbers


class NameList(click.ParamType[tuple[str, ...]]):
    """Names, separated by commas."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names, or fail."""
        if isinstance(value, tuple):
            return value
        found = tuple(part.strip() for part in str(value).split(","))
        if not all(found):
            self.fail(f"{value!r} is no list of names such as benign,tumor.", param, ctx)
        return found


prototype_options = stack(
    store_option,
    click.option("--grid", metavar="NAME", help="Grid; needed when the store has several."),
    click.option(
        "--coordinates",
        type=_path,
        help="Folder of slide2vec or hs2p coordinates (.npy, .txt), one a slide: makes the grid, called --grid.",
    ),
    click.option(
        "--labels",
        type=_path,
        required=True,
        help="CSV with the columns slide_id, label[, patient_id].",
    ),
    click.option(
        "--splits", type=_path, help="CSV with the columns train, val: only slides of train."
    ),
    click.option(
        "--class-order",
        type=NameList(),
        metavar="NAME,NAME",
        help="Classes in their order; of numbered labels, 0 is the first.  [default: as of the labels]",
    ),
    truth_options,
    click.option(
        "--encoder",
        default="efficientnet-lite0",
        show_default=True,
        help="See `slidestream encoders`; features of it that the store has are used.",
    ),
    click.option(
        "--resize",
        type=click.Choice(["model", "fit", "none"]),
        help="How tiles become the encoder's input.  [default: as of the store's features, else model]",
    ),
    click.option(
        "--slides-per-class", type=click.IntRange(1), default=5, show_default=True, metavar="N"
    ),
    click.option(
        "--tiles-per-slide", type=click.IntRange(1), default=1000, show_default=True, metavar="N"
    ),
    click.option(
        "--k",
        type=NumberList(),
        default="3",
        show_default=True,
        metavar="K|K,K",
        help="Prototypes of every class, or of each.",
    ),
    click.option("--seed", type=SEED_RANGE, default=0, show_default=True),
    click.option(
        "--stain",
        type=click.Choice(["none", "macenko", "reinhard"]),
        help="Stain normalization before the encoder.  [default: as of the store's features, else none]",
    ),
    click.option(
        "--stain-fit",
        type=click.Choice(["slide", "tile"]),
        help="One stain basis per slide, or each tile by itself.  [default: slide]",
    ),
    click.option(
        "--stain-target",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Reference image instead of the shipped target.",
    ),
    compute_options,
    click.option(
        "--name",
        default="prototypes",
        show_default=True,
        help="Of the bank in the store.",
    ),
    click.option(
        "--exemplars",
        "n_exemplars",
        type=click.IntRange(1, 100),
        default=10,
        show_default=True,
        help="Nearest tiles to keep of each prototype, and to draw.",
    ),
    click.option(
        "--sheet",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Contact sheet (PNG).  [default: beside the store]",
    ),
    click.option("--overwrite", is_flag=True, help="Replace a bank of that name made otherwise."),
    json_option,
    verbose_option,
    reference_config_option,
)


@click.command(
    help="Make prototypes of each class: sample tiles of training slides, encode them (or take the store's features), "
    "cluster them by cosine, and write the centres as a bank into the store, with a contact sheet."
)
@prototype_options
def prototypes(as_json: bool, verbose: bool, **options: Any) -> int:
    """Make a bank."""
    from jobs.pbip.prototypes import make_prototypes, summary_lines

    summary = make_prototypes(_config(options), quiet=as_json)
    click.echo(json.dumps(summary, indent=2) if as_json else "\n".join(summary_lines(summary)))
    return 0


def _config(options: dict[str, Any]) -> PrototypesConfig:
    """Freeze what click parsed."""
    from jobs.pbip.class_tiles import SampleSpec
    from jobs.pbip.prototypes import PrototypesConfig
    from jobs.training.stain_settings import StainSettings
    from models.encoder import EncoderSpec

    ways: dict[str, Any] = {"resize": (options["resize"],)} if options["resize"] else {}
    return PrototypesConfig(
        store=options["store"],
        grid=options["grid"],
        labels=str(options["labels"]),
        splits=_text(options["splits"]),
        encoder=EncoderSpec(
            name=options["encoder"],
            precision=options["precision"],
            batch_size=options["batch_size"],
            device=options["device"],
            require_gpu=options["require_gpu"],
        ),
        class_order=options["class_order"] or (),
        k=options["k"],
        sample=SampleSpec(
            options["slides_per_class"],
            options["tiles_per_slide"],
            options["seed"],
            options["positive_from"],
        ),
        truth=_text(options["truth"]),
        coordinates=_text(options["coordinates"]),
        name=options["name"],
        stain=StainSettings(options["stain"], options["stain_fit"], _text(options["stain_target"])),
        n_exemplars=options["n_exemplars"],
        sheet=_text(options["sheet"]),
        overwrite=options["overwrite"],
        **ways,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
