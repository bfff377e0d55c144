"""Options of ``mil train`` and ``mil cv``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from jobs.mil.config import PRESETS, Setting
from jobs.option_types import SEED_RANGE, FiniteRange, MemoryLimit, StorePlace
from jobs.options import scheduler_option, stack, training_output_options
from store_schema.errors import InputError


def _load_preset(ctx: click.Context, _: click.Parameter, value: str | None) -> str | None:
    """Take option defaults from a preset; a config file, the environment and the command line win over it."""
    if value is not None:
        ctx.default_map = {**PRESETS[value], **(ctx.default_map or {})}
    return value


def parse_settings(given: Sequence[str]) -> tuple[tuple[str, Setting], ...]:
    """Read ``name=value`` pairs; values are numbers, true/false, or text.

    Parameters
    ----------
    given
        As on the command line.

    Raises
    ------
    InputError
        A pair has no name or no value, or a name comes twice.
    """
    import yaml

    settings: dict[str, Setting] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not (name and equals and text):
            raise InputError(f"--set {pair!r} is not NAME=VALUE, e.g. --set hidden=256.")
        name = name.strip().replace("-", "_")
        if name in settings:
            raise InputError(f"--set {name} is given twice; keep one.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"The value of --set {pair!r} can't be read.") from error
        settings[name] = value if isinstance(value, str | int | float | bool) else text
    return tuple(settings.items())


# val_loss is the default: on the few bags that validate, AUC has ties and soon is 1, and stays high while every bag
# gets one class (the audit's fold 4: AUC 0.97, no positive predicted); the loss sees both
MONITORS: Final = (
    "val_loss",
    "val_auc",
    "val_average_precision",
    "val_f1",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_ece",
)

_path = click.Path(path_type=Path)

bag_options = stack(
    click.option(
        "--store",
        type=StorePlace(),
        metavar="PATH|URL",
        help="The Zarr store that has the features.",
    ),
    click.option("--features", metavar="NAME", help="Features; needed when there are several."),
    click.option("--grid", metavar="NAME", help="Grid; needed when the store has several."),
    click.option(
        "--labels", type=_path, help="CSV with the columns slide_id, label[, patient_id]."
    ),
    click.option(
        "--bags-csv",
        type=_path,
        help="CSV with the columns label, bag, features…, instead of --store and --labels.",
    ),
    click.option(
        "--selection", metavar="NAME", help="Only the tiles of this selection (`select top-k`)."
    ),
    click.option(
        "--bag-level",
        type=click.Choice(["slide", "patient"]),
        default="slide",
        show_default=True,
        help="What a bag is.",
    ),
    click.option(
        "--allow-incomplete",
        is_flag=True,
        help="Go without slides, and without blocks, whose features are not there yet.",
    ),
)

_model_options = stack(
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        is_eager=True,
        callback=_load_preset,
        help="Settings of a known training; options that are given win over it.",
    ),
    click.option(
        "--model",
        default="abmil",
        show_default=True,
        help="abmil, abmil-plain, dsmil, clam-sb, clam-mb, transmil, mean or max.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="A setting of the model, e.g. hidden=256. Repeatable.",
    ),
    click.option(
        "--loss",
        type=click.Choice(["ce", "focal", "ldam-drw"]),
        default="ce",
        show_default=True,
        help="On bag logits; docs/slide-models.md says why the last two are not advised.",
    ),
    click.option(
        "--class-weights/--no-class-weights", default=False, show_default=True,
        help="Weigh the loss by inverse frequency.",
    ),
    click.option(
        "--label-smoothing", type=FiniteRange(0, 1, max_open=True), default=0.0,
        show_default=True,
    ),
    click.option(
        "--balanced-sampling/--no-balanced-sampling",
        default=True,
        show_default=True,
        help="Draw training bags so that classes come equally often.",
    ),
    click.option(
        "--l2-normalize/--no-l2-normalize",
        default=True,
        show_default=True,
        help="Bring the features of each tile to unit length.",
    ),
    click.option(
        "--standardize/--no-standardize",
        default=True,
        show_default=True,
        help="Then bring each feature to mean 0 and deviation 1 over the training tiles.",
    ),
    click.option(
        "--bag-size",
        type=click.IntRange(1),
        help="Random tiles of each bag in a training epoch; evaluation takes all.  [default: all]",
    ),
)  # fmt: skip

_fit_options = stack(
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Bags per optimizer step.",
    ),
    click.option("--epochs", type=click.IntRange(1), default=50, show_default=True),
    click.option(
        "--early-stopping",
        type=click.IntRange(1),
        metavar="N",
        help="Stop after N epochs without a better one.  [default: never]",
    ),
    click.option(
        "--lr", type=FiniteRange(0, min_open=True), default=2e-4, show_default=True,
        help="Peak of the learning rate: linear warm-up, then a cosine to 0.",
    ),
    click.option("--weight-decay", type=FiniteRange(0), default=1e-4, show_default=True),
    click.option("--warmup-epochs", type=FiniteRange(0), default=1.0, show_default=True),
    click.option("--amp/--no-amp", default=False, show_default=True, help="Mixed precision."),
    click.option(
        "--monitor",
        type=click.Choice(MONITORS),
        default="val_loss",
        show_default=True,
        help="Which value of the validation bags chooses the epoch.",
    ),
    click.option(
        "--threshold",
        type=click.Choice(["youden", "f1", "argmax"]),
        default="youden",
        show_default=True,
        help="How the threshold is chosen, on validation bags; argmax needs none.",
    ),
    click.option(
        "--protocol",
        type=click.Choice(["strict", "published"]),
        default="strict",
        show_default=True,
        help="published: best epoch and threshold of the TEST fold, as some papers do. Leaky.",
    ),
    click.option(
        "--seed",
        type=SEED_RANGE,
        default=0,
        show_default=True,
        help="Of folds and training.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="CPU threads of a training; the last bits of results depend on it.",
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
    ),
)  # fmt: skip

_val_fraction = click.option(
    "--val-fraction",
    type=FiniteRange(0, 0.5, min_open=True),
    default=0.2,
    show_default=True,
    help="Share of the bags outside the test fold that validates.",
)

train_options = stack(
    bag_options,
    click.option(
        "--splits",
        type=_path,
        help="CSV with the columns train, val, test.  [default: folds by patient]",
    ),
    click.option("--folds", type=click.IntRange(2), default=5, show_default=True),
    click.option(
        "--fold",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Which of the folds to train.",
    ),
    _val_fraction,
    _model_options,
    _fit_options,
    training_output_options,
)

cv_options = stack(
    bag_options,
    click.option(
        "--splits",
        type=_path,
        multiple=True,
        help="CSV with the columns train, val, test; one for each fold.  [default: folds by patient]",
    ),
    click.option("--folds", type=click.IntRange(2), default=5, show_default=True),
    click.option(
        "--repeats",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Times that everything is split and trained anew.",
    ),
    _val_fraction,
    _model_options,
    _fit_options,
    scheduler_option,
    click.option(
        "--workers",
        type=click.IntRange(1),
        help="Folds at a time on the embedded cluster.  [default: one a core, or one a GPU]",
    ),
    click.option(
        "--memory",
        type=MemoryLimit(),
        default="auto",
        show_default=True,
        help="Memory limit per worker.",
    ),
    click.option(
        "--dashboard-port",
        type=click.IntRange(0, 65535),
        help="Port of the dashboard on 127.0.0.1.",
    ),
    training_output_options,
)
