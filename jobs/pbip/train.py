"""A PBIP network, from its frozen settings to its checkpoint, metrics and pictures: what ``pbip train`` calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from dataflow.stain import StainSpec
from jobs.pbip.classes import read_classes
from jobs.pbip.train_bank import bank_encoder, check_bank_scale, training_stain
from jobs.pbip.train_config import FREE, PbipTrainConfig
from jobs.pbip.train_network import Started, start_network
from jobs.pbip.train_pictures import example_tiles, save_curves, save_examples
from jobs.pbip.train_tiles import WeakData, open_weak_data
from jobs.run_config import absolute_url
from jobs.run_directory import RunDirectory
from jobs.training.fit_run import Fitted, check_tensorboard, fit_in_run
from jobs.training.history import read_history
from jobs.training.in_directory import train_in_directory
from jobs.training.progress import EpochProgress, StepProgress
from models.checkpoint import save_model
from models.determinism import repeatable, resolve_device
from models.fit import EpochRecord, FitSpec, checkpoint_paths
from models.pbip_checkpoint import pbip_description
from models.pbip_sampling import batches_an_epoch, rounds_of
from models.pbip_training import PbipTraining
from models.prompt_encoder import PromptEncoder
from store_schema.ids import check_name
from store_schema.labels import some
from store_schema.prototypes import PrototypeBank
from store_schema.store import open_store

KIND: Final = "pbip-train"
SCHEMA: Final = 1
_SHOWN: Final = ("train_loss", "val_loss", "val_auc", "val_iou", "val_dice")


@dataclass(frozen=True, eq=False)
class _Opened:
    """What was asked for, opened and found to fit each other."""

    config: PbipTrainConfig
    bank: PrototypeBank
    data: WeakData
    stain: StainSpec
    encoder: PromptEncoder | None
    started: Started
    fit_spec: FitSpec
    notes: tuple[str, ...]


def train_pbip(config: PbipTrainConfig, *, quiet: bool) -> dict[str, Any]:
    """Train a network; a run that was interrupted goes on, a finished one is left as it is.

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
        Bank, labels, tiles or settings don't fit each other, or the directory was begun with others.
    """
    check_tensorboard(wanted=config.tensorboard)
    opened = _open(config)
    described = {
        **config.to_json(),
        "inputs": {
            "train": opened.data.train.fingerprint,
            "val": opened.data.val.fingerprint,
            "bank": opened.bank.fingerprint,
            "init": opened.started.weights_digest,
        },
        "stain": opened.stain.to_json(),
    }
    return train_in_directory(
        Path(config.run_dir), described, FREE, partial(_train, opened), quiet=quiet
    )


def _open(config: PbipTrainConfig) -> _Opened:
    url = absolute_url(config.store)
    store = open_store(url)
    bank = store.prototypes(config.prototypes)
    grid = str(bank.grid["name"]) if config.grid is None else check_name(config.grid, "--grid")
    order = config.tiles.class_order or bank.class_names
    bank.require_classes(order)
    table, said = read_classes(Path(config.tiles.labels), order)
    stain = training_stain(config.stain, bank, allow_other=config.allow_other_stain)
    data = open_weak_data(store, grid, table, config.tiles, stain, config.fit.seed)
    check_bank_scale(bank, data.scale, allow_other=config.allow_other_grid)
    encoder = bank_encoder(bank, config.encoder) if config.training.loss.contrastive else None
    started = start_network(config.network, bank, data.scale, stain, config.fit.seed)
    notes = [said] if said else []
    notes += [*data.notes, *started.notes]
    if seen := sorted({*bank.slides} & {*data.val.slide_ids}):
        notes.append(
            f"the bank has tiles of {len(seen)} validation slides ({some(seen)}): validation flatters"
        )
    return _Opened(
        config, bank, data, stain, encoder, started, _fit_spec(config, data), tuple(notes)
    )


def _fit_spec(config: PbipTrainConfig, data: WeakData) -> FitSpec:
    """Return the loop's settings: rounds for epochs, and what is known to choose the best."""
    training = config.training
    a_pass = batches_an_epoch(data.train, training.sampling, training.batch_size)
    rounds, warmup = rounds_of(
        a_pass, training.round_batches, config.fit.epochs, config.fit.warmup_epochs
    )
    spec = replace(config.fit, epochs=rounds, warmup_epochs=warmup)
    if data.val_masks is not None:
        return replace(spec, monitor="val_iou", mode="max")
    labels = data.val.labels
    if (labels.any(0) & ~labels.all(0)).any():
        return replace(spec, monitor="val_auc", mode="max")
    return replace(spec, monitor="val_loss", mode="min")


def _train(opened: _Opened, run: RunDirectory, progress: StepProgress) -> dict[str, Any]:
    spec, data = opened.fit_spec, opened.data
    for note in opened.notes:
        run.logger.warning("%s", note)
        progress.note(f"note: {note}")
    device = resolve_device(spec.device)
    with repeatable(device, spec.threads):
        fitted = _fit(opened, run, progress)
    model = opened.started.model
    save_model(checkpoint_paths(run.path)[0], model, _description(opened, fitted))
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "status": "finished",
        "bank": opened.bank.name,
        "classes": list(data.class_names),
        "tiles": data.counts(),
        "sampling": opened.config.training.sampling,
        "floor": data.floor(),
        **fitted.describe(spec),
        "backbone": model.config.backbone,
        "backbone_licence": model.backbone.licence,
        "device": str(device),
        "notes": list(opened.notes),
    }


def _fit(opened: _Opened, run: RunDirectory, progress: StepProgress) -> Fitted:
    config, data, spec = opened.config, opened.data, opened.fit_spec
    training = config.training
    per_round = training.round_batches * training.batch_size
    rounds = EpochProgress(progress, spec.epochs, per_round, _SHOWN, "round")
    data.train.tell = rounds.read
    model, encoder = opened.started.model, opened.encoder
    job = PbipTraining(training, spec, data.train, data.val, model, encoder, data.val_masks)
    masks = None if data.val_masks is None else data.val_masks.masks
    shown = example_tiles(data.val.labels, masks)
    plots = run.path / "plots"

    def draw(name: str, title: str) -> None:
        of_shown = None if masks is None else masks[shown]
        save_examples(plots / name, title, job.examples(shown), of_shown, data.class_names)

    def draw_round(record: EpochRecord) -> None:
        number = record.epoch + 1
        draw(f"round_{number:04d}.png", f"Validation tiles after round {number}")

    fitted = fit_in_run(
        job,
        spec,
        run,
        rounds,
        _SHOWN,
        draw_round,
        plot_every=config.plot_every,
        tensorboard=config.tensorboard,
    )
    best = fitted.result.best_epoch
    draw("examples.png", f"Validation tiles, round {best + 1} (kept)")
    title = f"PBIP · {spec.monitor} {fitted.result.best_value:.4g}"
    save_curves(plots / "curves.png", title, read_history(run.path), best, data.floor())
    return fitted


def _description(opened: _Opened, fitted: Fitted) -> Mapping[str, Any]:
    data, bank, started = opened.data, opened.bank, opened.started
    # of the bank's slides the network has seen the prototypes
    learned = {*data.train.slide_ids, *bank.slides, *started.train_slides}
    chose = {*data.val.slide_ids, *started.val_slides} - learned
    return pbip_description(
        started.model,
        opened.config.training.loss,
        mpp=data.scale.mpp,
        stain=opened.stain.to_json(),
        bank={
            "name": bank.name,
            "fingerprint": bank.fingerprint,
            "encoder": dict(bank.encoder),
        },
        trained_on={
            "tiles": data.counts(),
            "train_slides": sorted(learned),
            "val_slides": sorted(chose),
            "sampling": opened.config.training.sampling,
            "tile_labels": opened.config.tiles.tile_labels is not None,
            "init": opened.config.network.init,
            "best_round": fitted.result.best_epoch,
            "warnings": fitted.warnings_of_the_kept(),
            "seed": opened.fit_spec.seed,
            "slidestream": version("slidestream"),
            "torch": torch.__version__,
        },
    )
