"""A classifier of tiles on a trained VAE, from its frozen settings to its checkpoint: what ``vae finetune`` calls."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any, Final

import torch

from jobs.run_directory import RunDirectory
from jobs.training.fit_run import check_tensorboard, fit_in_run
from jobs.training.history import read_history, warning_of_all_epochs
from jobs.training.progress import EpochProgress, StepProgress
from jobs.training.stains import checkpoint_stain, scoring_stain
from jobs.training.tile_checkpoint import VAE_SLIDES, checkpoint_of, scale_of
from jobs.vae.config import VaeFinetuneConfig
from jobs.vae.open_origin import check_scale, open_origin
from jobs.vae.pictures import save_head_curves
from jobs.vae.training_data import TrainingData
from jobs.vae.training_run import train_on_tiles
from models.checkpoint import save_model
from models.determinism import repeatable, resolve_device
from models.fit import EpochRecord, checkpoint_paths
from models.tile_head import TileHead
from models.tile_head_training import TileHeadTraining
from models.vae import VaeSkip96
from models.vae_checkpoint import Description, head_description, load_vae

KIND: Final = "vae-finetune"
SCHEMA: Final = 1
_SHOWN: Final = ("train_loss", "val_loss", "val_auc", "val_average_precision")


def finetune_vae(config: VaeFinetuneConfig, *, quiet: bool) -> dict[str, Any]:
    """Train a head on labelled tiles; a run that was interrupted goes on, a finished one is left as it is.

    Parameters
    ----------
    config
        The call.
    quiet
        No progress (``--json``).

    Returns
    -------
    dict
        The metrics, as in ``metrics.json``, and ``run_dir``.

    Raises
    ------
    SlidestreamError
        Checkpoint, tiles or settings make no sense, or the directory was begun with others.
    """
    common = config.common
    check_tensorboard(wanted=common.tensorboard)
    vae, vae_description = load_vae(checkpoint_of(config.run))
    origin = open_origin(common.origin, labelled=True)
    check_scale(
        origin.tiles,
        scale_of(vae_description),
        allow_other=common.origin.allow_other_grid,
        made_for=config.run,
    )
    stain = scoring_stain(
        common.stain,
        checkpoint_stain(vae_description, config.run),
        knows_slides=origin.knows_slides,
        allow_other=config.allow_other_stain,
        where=config.run,
    )
    described = {**vae_description, "stain": stain.to_json()}
    return train_on_tiles(
        common,
        origin,
        stain,
        {**config.to_json(), "vae": vae_description["sha256"]},
        partial(_train, config, vae, described),
        quiet=quiet,
    )


def _train(
    config: VaeFinetuneConfig,
    vae: VaeSkip96,
    described: Description,
    data: TrainingData,
    run: RunDirectory,
    progress: StepProgress,
) -> dict[str, Any]:
    fit_spec = config.common.fit
    device = resolve_device(fit_spec.device)
    epochs = EpochProgress(progress, fit_spec.epochs, len(data.train), _SHOWN)
    of_the_vae = [f"of the VAE: {each}" for each in described["trained_on"].get("warnings", ())]
    for warning in of_the_vae:
        run.logger.warning(warning)
    with repeatable(device, fit_spec.threads):
        torch.manual_seed(fit_spec.seed)
        head = TileHead(vae, config.head)
        job = TileHeadTraining(
            config.training, fit_spec, data.counted(epochs.read).train, data.val, head
        )

        def draw(record: EpochRecord) -> None:
            history = read_history(run.path)
            best = max(epoch["epoch"] for epoch in history if epoch["is_best"])
            title = f"Classifier after epoch {record.epoch + 1}"
            save_head_curves(run.path / "plots" / "curves.png", title, history, best)

        fitted = fit_in_run(
            job,
            fit_spec,
            run,
            epochs,
            _SHOWN,
            draw,
            plot_every=config.common.plot_every,
            tensorboard=config.common.tensorboard,
        )
        draw(fitted.result.history[-1])
    trained_on = {
        **data.describe(),
        VAE_SLIDES: {
            part: described["trained_on"].get(part, []) for part in ("train_slides", "val_slides")
        },
        "best_epoch": fitted.result.best_epoch,
        "warnings": [*of_the_vae, *fitted.warnings_of_the_kept()],
        "seed": fit_spec.seed,
        "slidestream": version("slidestream"),
    }
    description = head_description(head, described, trained_on=trained_on)
    save_model(checkpoint_paths(run.path)[0], head, description)
    described_fit = fitted.describe(fit_spec)
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "status": "finished",
        "tiles": data.counts,
        **described_fit,
        "warnings": [
            *(warning_of_all_epochs("of the VAE", each) for each in of_the_vae),
            *described_fit["warnings"],
        ],
        "device": str(device),
    }
