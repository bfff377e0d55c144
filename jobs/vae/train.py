"""A VAE, from its frozen settings to its checkpoint, metrics and pictures: what ``vae train`` calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import torch

from dataflow.stain import StainSpec
from jobs.run_directory import RunDirectory
from jobs.training.fit_run import Fitted, check_tensorboard, fit_in_run
from jobs.training.history import read_history
from jobs.training.progress import EpochProgress, StepProgress
from jobs.training.stains import training_stain
from jobs.training.tile_scale import PCAM
from jobs.vae.config import VaeTrainConfig
from jobs.vae.open_origin import check_scale, open_origin
from jobs.vae.pictures import save_curves, save_examples
from jobs.vae.training_data import TrainingData
from jobs.vae.training_run import train_on_tiles
from models.checkpoint import save_model
from models.determinism import repeatable, resolve_device
from models.fit import EpochRecord, checkpoint_paths
from models.vae import VaeConfig, VaeSkip96
from models.vae_checkpoint import vae_description
from models.vae_training import VaeTraining

KIND: Final = "vae-train"
SCHEMA: Final = 1
_SHOWN: Final = (
    "train_loss", "val_loss", "val_recon", "val_kl", "capacity", "beta", "active_units",
)  # fmt: skip


def train_vae(config: VaeTrainConfig, *, quiet: bool) -> dict[str, Any]:
    """Prepare tiles and train a VAE on them; a run that was interrupted goes on, a finished one is left as it is.

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
        Tiles or settings make no sense, or the directory was begun with others.
    """
    common = config.common
    check_tensorboard(wanted=common.tensorboard)
    origin = open_origin(common.origin, labelled=False)
    check_scale(origin.tiles, PCAM, allow_other=common.origin.allow_other_grid, made_for="the VAE")
    stain = training_stain(common.stain, knows_slides=origin.knows_slides)
    network = replace(config.network, tile_px=origin.tiles.tile_px)
    return train_on_tiles(
        common,
        origin,
        stain,
        config.to_json(),
        partial(_train, config, network, stain),
        quiet=quiet,
    )


def _train(
    config: VaeTrainConfig,
    network: VaeConfig,
    stain: StainSpec,
    data: TrainingData,
    run: RunDirectory,
    progress: StepProgress,
) -> dict[str, Any]:
    fit_spec = config.common.fit
    device = resolve_device(fit_spec.device)
    epochs = EpochProgress(progress, fit_spec.epochs, len(data.train), _SHOWN)
    with repeatable(device, fit_spec.threads):
        torch.manual_seed(fit_spec.seed)
        model = VaeSkip96(network)
        statistics = _set_pixel_statistics(model, data)
        counted = data.counted(epochs.read)
        job = VaeTraining(config.training, fit_spec, counted.train, counted.val, model)

        def draw(record: EpochRecord) -> None:
            path = run.path / "plots" / f"epoch_{record.epoch + 1:04d}.png"
            save_examples(path, f"Validation tiles after epoch {record.epoch + 1}", job.examples())

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
        _draw_final(job, fitted, run)
    trained_on = {
        **data.describe(),
        "pixels": statistics,
        "augment": config.to_json()["training"]["augment"],
        "best_epoch": fitted.result.best_epoch,
        "warnings": fitted.warnings_of_the_kept(),
        "seed": fit_spec.seed,
        "slidestream": version("slidestream"),
    }
    description = vae_description(
        model,
        config.training.loss,
        mpp=data.tiles.mpp,
        stain=stain.to_json(),
        trained_on=trained_on,
    )
    save_model(checkpoint_paths(run.path)[0], model, description)
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "status": "finished",
        "preset": config.preset,
        "tiles": data.counts,
        "pixels": statistics,
        "latent": list(network.latent_shape),
        **fitted.describe(fit_spec),
        "device": str(device),
    }


def _set_pixel_statistics(model: VaeSkip96, data: TrainingData) -> Mapping[str, list[float]]:
    mean, std = data.train.pixel_statistics()
    model.pixel_mean.copy_(torch.from_numpy(mean))
    model.pixel_std.copy_(torch.from_numpy(std))
    return {"mean": mean.tolist(), "std": std.tolist()}


def _draw_final(job: VaeTraining, fitted: Fitted, run: RunDirectory) -> None:
    """Draw the curves, and what the model that is kept makes of tiles."""
    best = fitted.result.best_epoch
    title = f"Validation tiles, epoch {best + 1} (kept)"
    save_examples(run.path / "plots" / "reconstructions.png", title, job.examples())
    title = "VAE · " + ", ".join(f"{name} {value:g}" for name, value in _headline(fitted).items())
    save_curves(run.path / "plots" / "curves.png", title, read_history(run.path), best)


def _headline(fitted: Fitted) -> dict[str, float]:
    values = fitted.result.history[fitted.result.best_epoch].values
    shown = {"KL": "val_kl", "C": "capacity", "reconstruction error": "val_recon"}
    return {label: float(f"{values[name]:.4g}") for label, name in shown.items()}
