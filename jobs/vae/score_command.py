"""``slidestream vae score``: a trained VAE, or its classifier, on the tiles of a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.options import cluster_options, compute_options, run_options, stack, store_option
from jobs.stream_call import dry_run_option, start, stored_grid_call
from jobs.training.options import stain_options
from jobs.vae.training_options import PATH, stain_settings

if TYPE_CHECKING:
    from jobs.run_config import RunConfig


@click.command(
    help="Score the tiles of indexed slides: l1, l2 and structural reconstruction error and KL, or a classifier's "
    "probability, into scores/<name> of the store. FILES are those of slides that have moved since."
)
@click.argument("slides", metavar="[FILES]...", nargs=-1)
@click.option(
    "--run",
    required=True,
    type=PATH,
    metavar="RUN",
    help="Run directory of `vae train` or `vae finetune`, or its model.safetensors.",
)
@store_option
@click.option(
    "--grid", "grid_name", metavar="NAME", help="Grid; needed when the store has several."
)
@click.option(
    "--slides",
    "slide_ids",
    multiple=True,
    metavar="ID",
    help="Only this slide; repeatable.  [default: all that have the grid]",
)
@click.option("--name", metavar="NAME", help="Of the scores in the store.  [default: the run's]")
@stack(
    dry_run_option,
    click.option(
        "--map-px",
        type=click.IntRange(1),
        metavar="N",
        help="Keep a map of errors of N x N values a tile; N divides the tile's side.",
    ),
    click.option(
        "--stain",
        type=click.Choice(["macenko", "reinhard", "none"]),
        help="Stain normalization.  [default: that of the training]",
    ),
    stain_options,
    click.option(
        "--allow-other-grid",
        is_flag=True,
        help="Score tiles of another pixel size than the model was trained on.",
    ),
    click.option(
        "--allow-other-stain",
        is_flag=True,
        help="Score tiles of another stain normalization than the model was trained on.",
    ),
    compute_options,
    click.option(
        "--verify/--no-verify",
        default=True,
        show_default=True,
        help="Check the checksums of blocks that are stored already.",
    ),
    cluster_options,
    run_options,
)
def score(**options: Any) -> int:
    """Score, here or on a cluster."""
    return start(_config(options), options)


def _config(options: dict[str, Any]) -> RunConfig:
    """Freeze what click parsed; nothing after this knows of options."""
    from jobs.training.tile_checkpoint import checkpoint_of
    from jobs.vae.score_settings import VaeScoreSettings

    run: Path = options["run"].expanduser().absolute()
    settings = VaeScoreSettings(
        checkpoint=str(checkpoint_of(str(run))),
        name=options["name"] or (run.name if run.is_dir() else run.parent.name),
        map_px=options["map_px"],
        stain=stain_settings(options),
        allow_other_grid=options["allow_other_grid"],
        allow_other_stain=options["allow_other_stain"],
        precision=options["precision"],
        batch_size=options["batch_size"],
        device=options["device"],
        require_gpu=options["require_gpu"],
        verify=options["verify"],
    )
    return stored_grid_call("vae score", options, settings)
