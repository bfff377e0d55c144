"""``slidestream vae finetune``: options → frozen config → training → summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.option_types import FiniteRange
from jobs.options import stack, training_output_options, truth_options
from jobs.training.options import fit_options, stain_options
from jobs.vae.training_options import (
    PATH,
    origin_options,
    preparation_options,
    training_settings,
)

if TYPE_CHECKING:
    from jobs.vae.config import VaeFinetuneConfig


@click.command(
    help="Train a classifier of tiles on the encoder of a trained VAE, which stays as it is. Slides are labelled by "
    "--truth; those that --labels call normal need none. PatchCamelyon brings its labels."
)
@click.option(
    "--run",
    required=True,
    type=PATH,
    metavar="RUN",
    help="Run directory of `vae train`, or its model.safetensors.",
)
@origin_options
@stack(
    truth_options,
    click.option(
        "--stain",
        type=click.Choice(["macenko", "reinhard", "none"]),
        help="Stain normalization.  [default: that of the VAE's tiles]",
    ),
    stain_options,
    click.option(
        "--allow-other-stain",
        is_flag=True,
        help="Take tiles of another stain normalization than the VAE was trained on.",
    ),
    preparation_options,
    click.option(
        "--hidden", type=click.IntRange(1), default=160, show_default=True,
        help="Width of the hidden layer.",
    ),
    click.option(
        "--dropout", type=FiniteRange(0, 1, max_open=True), default=0.25, show_default=True
    ),
    click.option(
        "--balanced", is_flag=True,
        help="Weigh tumour tiles by how much rarer they are; probabilities are then too high.",
    ),
    click.option("--epochs", type=click.IntRange(1), default=10, show_default=True),
    click.option(
        "--patience", type=click.IntRange(0), default=5, show_default=True,
        help="Stop after so many epochs without a better one; 0 never.",
    ),
    click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True),
    fit_options(lr=1e-3, weight_decay=1e-2, augment="Flips, quarter turns and light colour"),
    training_output_options,
)  # fmt: skip
def finetune(**options: Any) -> int:
    """Train here."""
    from jobs.vae.finetune import finetune_vae
    from jobs.vae.summary import training_lines

    metrics = finetune_vae(config_of(options), quiet=options["as_json"])
    if options["as_json"]:
        click.echo(json.dumps(metrics, indent=2))
    else:
        click.echo("\n".join(training_lines(metrics)))
    return 0


def config_of(options: dict[str, Any]) -> VaeFinetuneConfig:
    """Freeze what click parsed; nothing after this knows of options."""
    from jobs.vae.config import VaeFinetuneConfig
    from models.tile_augment import NO_AUGMENTATION, AugmentSpec
    from models.tile_head import TileHeadConfig
    from models.tile_head_training import TileHeadTrainingSpec

    run: Path = options["run"]
    return VaeFinetuneConfig(
        common=training_settings(
            "vae-finetune",
            options,
            epochs=options["epochs"],
            patience=options["patience"] or None,
        ),
        run=str(run.expanduser().absolute()),
        head=TileHeadConfig(options["hidden"], options["dropout"]),
        training=TileHeadTrainingSpec(
            augment=AugmentSpec() if options["augment"] else NO_AUGMENTATION,
            balanced=options["balanced"],
            batch_size=options["batch_size"],
        ),
        allow_other_stain=options["allow_other_stain"],
    )
