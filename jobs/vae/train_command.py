"""``slidestream vae train``: options → frozen config → training → summary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dataflow.physical_size import MPP_RANGE
from jobs.option_types import FiniteRange
from jobs.options import stack, training_output_options
from jobs.training.options import fit_options, stain_options
from jobs.vae.training_options import (
    PATH,
    origin_options,
    preparation_options,
    training_settings,
)

if TYPE_CHECKING:
    from jobs.vae.config import VaeTrainConfig

T = TypeVar("T")

_model_options = stack(
    click.option(
        "--preset",
        type=click.Choice(["b1", "b2"]),
        help="Settings of a known experiment; options that are given win.  [default: b1, with early stopping]",
    ),
    click.option("--latent-channels", type=click.IntRange(1), help="[default: 64]"),
    click.option(
        "--skip-dropout",
        type=FiniteRange(0, 1),
        help="Probability with which a whole skip is zeroed in training.  [default: 0.25; b2: 0.5]",
    ),
    click.option(
        "--skip-levels",
        type=click.IntRange(0, 4),
        help="How many levels pass on a skip, the coarsest first.  [default: 4]",
    ),
    click.option("--reconstruction", type=click.Choice(["l1", "l2"]), help="Error.  [default: l1]"),
    click.option(
        "--reduction",
        type=click.Choice(["mean", "sum"]),
        help="Mean of a tile's values, as in B1, or their sum, as in the evidence bound.  [default: mean]",
    ),
    click.option(
        "--beta", type=FiniteRange(0), help="Weight of KL above C.  [default: 1; b2: 0.5]"
    ),
    click.option(
        "--beta-warmup-epochs", type=click.IntRange(0), help="Epochs of its rise.  [default: 5]"
    ),
    click.option(
        "--capacity", type=FiniteRange(0), help="C [nats a tile].  [default: 120; b2: 200]"
    ),
    click.option(
        "--capacity-epochs", type=click.IntRange(0), help="Epochs of its rise.  [default: 20]"
    ),
    click.option(
        "--denoise-sigma",
        type=FiniteRange(0),
        help="Noise that is added to training inputs.  [default: 0.03]",
    ),
    click.option("--epochs", type=click.IntRange(1), help="At the most.  [default: 20]"),
    click.option(
        "--patience",
        type=click.IntRange(0),
        help="Stop after so many epochs without a better one; 0 never.  [default: 5; b1: 0]",
    ),
    click.option("--batch-size", type=click.IntRange(1), help="[default: 256]"),
)


@click.command(
    help="Train a β-VAE on normal tiles of a store, of PatchCamelyon, or of a folder of images."
)
@origin_options
@stack(
    click.option("--images", type=PATH, help="A folder of images, instead of a store."),
    click.option("--mpp", type=FiniteRange(*MPP_RANGE), help="Pixel size of the images [µm]."),
    click.option(
        "--stain",
        type=click.Choice(["macenko", "reinhard", "none"]),
        default="macenko",
        show_default=True,
        help="Stain normalization; Macenko falls back to Reinhard.",
    ),
    stain_options,
    preparation_options,
    _model_options,
    fit_options(lr=1e-3, weight_decay=1e-4, augment="Flips, quarter turns and light colour"),
    training_output_options,
)
def train(**options: Any) -> int:
    """Train here."""
    from jobs.vae.summary import training_lines
    from jobs.vae.train import train_vae

    metrics = train_vae(config_of(options), quiet=options["as_json"])
    if options["as_json"]:
        click.echo(json.dumps(metrics, indent=2))
    else:
        click.echo("\n".join(training_lines(metrics)))
    return 0


def config_of(options: dict[str, Any]) -> VaeTrainConfig:
    """Freeze what click parsed; nothing after this knows of options."""
    from jobs.vae.config import VaeTrainConfig
    from models.tile_augment import NO_AUGMENTATION, AugmentSpec
    from models.vae import VaeConfig
    from models.vae_loss import VaeLossSpec
    from models.vae_presets import B1, PRESETS
    from models.vae_training import VaeTrainingSpec

    preset = B1 if options["preset"] is None else PRESETS[options["preset"]]

    def of(name: str, default: T) -> T:
        value: T | None = options[name]
        return default if value is None else value

    patience = of("patience", 5 if options["preset"] is None else preset.patience or 0)
    loss = preset.loss
    return VaeTrainConfig(
        common=training_settings(
            "vae-train", options, epochs=of("epochs", preset.epochs), patience=patience or None
        ),
        network=VaeConfig(
            latent_channels=of("latent_channels", preset.config.latent_channels),
            widths=preset.config.widths,
            groups=preset.config.groups,
            skip_dropout=of("skip_dropout", preset.config.skip_dropout),
            skip_levels=of("skip_levels", preset.config.skip_levels),
        ),
        training=VaeTrainingSpec(
            loss=VaeLossSpec(
                reconstruction=of("reconstruction", loss.reconstruction),
                reduction=of("reduction", loss.reduction),
                beta=of("beta", loss.beta),
                beta_warmup_epochs=of("beta_warmup_epochs", loss.beta_warmup_epochs),
                capacity=of("capacity", loss.capacity),
                capacity_epochs=of("capacity_epochs", loss.capacity_epochs),
                denoise_sigma=of("denoise_sigma", loss.denoise_sigma),
            ),
            augment=AugmentSpec() if options["augment"] else NO_AUGMENTATION,
            batch_size=of("batch_size", preset.batch_size),
        ),
        preset=options["preset"],
    )
