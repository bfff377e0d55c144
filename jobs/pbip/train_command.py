"""``slidestream pbip train``: options → frozen config → training → summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.option_types import FiniteRange
from jobs.options import stack, store_option, training_file_options, truth_options
from jobs.pbip.prototypes_command import NameList
from jobs.pbip.reference_yaml import reference_config_option
from jobs.training.options import absolute, fit_options, fit_spec_of, run_dir_of, stain_options

if TYPE_CHECKING:
    from jobs.pbip.train_config import PbipTrainConfig

_path = click.Path(path_type=Path)
_weight = FiniteRange(0)

_tiles = stack(
    store_option,
    click.option("--grid", metavar="NAME", help="Grid of the tiles.  [default: the bank's]"),
    click.option(
        "--prototypes", default="prototypes", show_default=True, metavar="NAME",
        help="Bank of the store, of `slidestream pbip prototypes`.",
    ),
    click.option(
        "--labels", type=_path, required=True,
        help="CSV with the columns slide_id, label[, patient_id].",
    ),
    click.option("--splits", type=_path, required=True, help="CSV with the columns train, val."),
    click.option(
        "--class-order", type=NameList(), metavar="NAME,NAME",
        help="Classes in their order, which must be that of the bank.  [default: the bank's]",
    ),
    click.option(
        "--tile-labels", type=_path,
        help="Tiles hold what this truth says of them, in place of their slide's label; as --truth.",
    ),
    truth_options,
    click.option(
        "--sampling", type=click.Choice(["slide", "tile"]), default="slide", show_default=True,
        help="A new random tile of each slide, or every tile, once an epoch.",
    ),
    click.option(
        "--val-tiles", type=click.IntRange(1), default=64, show_default=True, metavar="N",
        help="Validation tiles of a slide, the same in every round.",
    ),
    click.option(
        "--stain", type=click.Choice(["none", "macenko", "reinhard"]),
        help="Stain normalization.  [default: as of the bank]",
    ),
    stain_options,
    click.option(
        "--encoder",
        help="Of the bank, where it isn't to be found by the name that the bank gives it.",
    ),
    click.option(
        "--allow-other-grid", is_flag=True,
        help="Take tiles of another size or pixel size than the bank is of.",
    ),
    click.option(
        "--allow-other-stain", is_flag=True,
        help="Take tiles of another normalization than the bank is of.",
    ),
)  # fmt: skip

_network = stack(
    click.option(
        "--backbone", default="mit_b1", show_default=True, metavar="NAME",
        help="mit_b0 to mit_b5, or a model of timm with maps at strides 4 to 32.",
    ),
    click.option(
        "--backbone-weights", default="published", show_default=True, metavar="published|none|FILE",
        help="Published ones, random ones, or those of a file.",
    ),
    click.option(
        "--similarity", type=click.Choice(["cosine", "projected"]), default="cosine",
        show_default=True, help="As in the paper, or as in the authors' code.",
    ),
    click.option(
        "--merge", type=click.Choice(["mean", "max", "softmax"]), default="softmax",
        show_default=True, help="How a class is made of its subclasses in validation.",
    ),
    click.option(
        "--init", type=_path, metavar="RUN|FILE", help="Go on from a trained network: fine-tuning."
    ),
)  # fmt: skip

_losses = stack(
    click.option(
        "--scale-weights", type=(_weight, _weight, _weight, _weight), default=(0.0, 0.1, 1.0, 1.0),
        show_default=True, help="Of the classification at strides 4, 8, 16, 32.",
    ),
    click.option(
        "--contrastive", type=_weight, default=0.1, show_default=True,
        help="Weight of the matching of foreground, and of background, with prototypes; 0 needs no encoder.",
    ),
    click.option("--cam-smooth", type=_weight, default=0.1, show_default=True),
    click.option("--cam-sparsity", type=_weight, default=0.01, show_default=True),
    click.option(
        "--temperature", type=FiniteRange(0, min_open=True), default=0.07, show_default=True,
        help="Of the matching.",
    ),
    click.option(
        "--mask-alpha", type=FiniteRange(0, 1, min_open=True), default=0.5, show_default=True,
        help="What reaches this share of a map's largest value is foreground.",
    ),
)  # fmt: skip

_loop = stack(
    click.option(
        "--epochs", type=click.IntRange(1), default=8, show_default=True,
        help="Passes over all slides, or with --sampling tile over all tiles.",
    ),
    click.option("--batch-size", type=click.IntRange(1), default=10, show_default=True),
    click.option(
        "--validation-interval", type=click.IntRange(1), default=100, show_default=True,
        metavar="N", help="Batches of a round, after which it is validated; the last round is full, too.",
    ),
    click.option(
        "--patience", type=click.IntRange(0), default=0, show_default=True,
        help="Stop after so many rounds without a better one; 0 never.",
    ),
    fit_options(lr=1e-3, weight_decay=5e-4, augment="Flips and quarter turns"),
    training_file_options,
    reference_config_option,
)  # fmt: skip


@click.command(
    help="Train a network that segments, on labels of whole slides or tiles: its maps are similarities to the "
    "prototypes of a bank. Tiles are read from the slides as they are needed."
)
@stack(_tiles, _network, _losses, _loop)
def train(**options: Any) -> int:
    """Train here."""
    from jobs.pbip.train import train_pbip
    from jobs.pbip.train_summary import training_lines

    metrics = train_pbip(config_of(options), quiet=options["as_json"])
    if options["as_json"]:
        click.echo(json.dumps(metrics, indent=2))
    else:
        click.echo("\n".join(training_lines(metrics)))
    return 0


def config_of(options: dict[str, Any]) -> PbipTrainConfig:
    """Freeze what click parsed; nothing after this knows of options."""
    from jobs.pbip.train_config import NetworkSettings, PbipTrainConfig, WeakTilesSettings
    from jobs.training.stain_settings import StainSettings
    from models.pbip_losses import PbipLossSpec
    from models.pbip_training_spec import TURNS_ONLY, PbipTrainingSpec
    from models.tile_augment import NO_AUGMENTATION

    weights: str = options["backbone_weights"]
    if weights not in ("published", "none"):
        weights = str(Path(weights).expanduser().absolute())
    return PbipTrainConfig(
        store=options["store"],
        grid=options["grid"],
        prototypes=options["prototypes"],
        tiles=WeakTilesSettings(
            labels=str(absolute(options["labels"])),
            splits=str(absolute(options["splits"])),
            class_order=options["class_order"] or (),
            tile_labels=absolute(options["tile_labels"]),
            truth=absolute(options["truth"]),
            positive_from=options["positive_from"],
            val_tiles=options["val_tiles"],
        ),
        network=NetworkSettings(
            backbone=options["backbone"],
            weights=weights,
            similarity=options["similarity"],
            init=absolute(options["init"]),
        ),
        training=PbipTrainingSpec(
            loss=PbipLossSpec(
                scale_weights=options["scale_weights"],
                contrastive=options["contrastive"],
                cam_smooth=options["cam_smooth"],
                cam_sparsity=options["cam_sparsity"],
                temperature=options["temperature"],
                mask_alpha=options["mask_alpha"],
            ),
            augment=TURNS_ONLY if options["augment"] else NO_AUGMENTATION,
            sampling=options["sampling"],
            batch_size=options["batch_size"],
            round_batches=options["validation_interval"],
            merge=options["merge"],
        ),
        fit=fit_spec_of(options, epochs=options["epochs"], patience=options["patience"] or None),
        stain=StainSettings(
            options["stain"], options["stain_fit"], absolute(options["stain_target"])
        ),
        encoder=options["encoder"],
        allow_other_grid=options["allow_other_grid"],
        allow_other_stain=options["allow_other_stain"],
        plot_every=options["plot_every"],
        tensorboard=options["tensorboard"],
        run_dir=str(run_dir_of("pbip-train", options)),
    )
