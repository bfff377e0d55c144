"""One fold, from its frozen settings to its metrics: what ``mil train`` runs here and ``mil cv`` on workers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from jobs.mil import fold_plots
from jobs.mil.bag_sources import StoreCohort
from jobs.mil.cohort import Cohort, FoldBags, fold_bags, open_bags
from jobs.mil.config import LEAKY, MilConfig
from jobs.mil.fold_metrics import FOLD_KIND, LEAKY_SELECTION, SCHEMA, flags_of
from jobs.mil.fold_observers import SHOWN
from jobs.mil.judging import find_threshold, judge, prediction_rows
from jobs.mil.predictions import write_predictions
from jobs.mil.published import PublishedTraining
from jobs.mil.run_files import FREE, PREDICTIONS, SPLITS
from jobs.mil.selection_leak import selection_leak
from jobs.mil.splits import Split, read_splits, write_splits
from jobs.run_directory import RunDirectory, run_directory
from jobs.run_lock import alone_in
from jobs.training.history import (
    begin_history,
    read_history,
    warning_of_all_epochs,
    warnings_of,
    write_history,
)
from jobs.training.observers import EveryObserver, HistoryObserver, LogObserver
from jobs.training.run_files import check_same_settings, read_metrics
from models.checkpoint import load_description, save_model
from models.determinism import repeatable, resolve_device
from models.fit import EpochRecord, FitObserver, FitResult, checkpoint_paths, fit
from models.metrics import classification_metrics
from models.mil_training import MilSpec, MilTraining
from models.slide_model import SlideModel
from models.slide_models import build_slide_model
from store_schema.errors import ModelError, SettingsConflictError

_DIAGNOSTICS = (
    "attention_entropy", "effective_instances", "top1_mass", "top10_mass", "same_critical",
    "stream_agreement",
)  # fmt: skip


def train_fold(
    config: MilConfig,
    split: Split,
    fold: int,
    directory: Path,
    observers: Sequence[FitObserver] = (),
) -> dict[str, Any]:
    """Train and judge one fold; all that it does follows from its arguments.

    Epoch and threshold are chosen on the validation bags, and the test bags are looked at once, after that. A fold
    that was interrupted goes on; one that is finished is left as it is.

    Parameters
    ----------
    config
        The settings.
    split
        Slides of the three parts.
    fold
        Its number.
    directory
        Of its files.
    observers
        Told of its epochs, besides its own log, history and pictures.

    Returns
    -------
    dict
        The metrics, as in ``metrics.json``; see docs/slide-models.md.

    Raises
    ------
    SlidestreamError
        Data or settings make no sense, or the directory was begun with others.
    """
    started = time.perf_counter()
    cohort = open_bags(config.bags)
    described = {**config.to_json(), "inputs": cohort.inputs()}
    check_same_settings(directory, described, FREE)
    _check_same_split(directory, split, cohort)
    finished = finished_metrics(directory)
    if finished is not None:
        return finished
    bags = fold_bags(config, cohort, split)
    with alone_in(directory), run_directory(directory, described) as run:
        for note in cohort.bags.notes():
            run.logger.warning("%s", note)
        if config.leaky:
            run.logger.warning("%s; it is what the epochs call val", LEAKY)
        write_splits(directory / SPLITS, split)
        leak = _leak(cohort, config, split)
        if leak is not None:
            run.logger.warning("%s", leak)
        metrics = _train(config, cohort, bags, split, fold, run, observers, started)
        if leak is not None:
            metrics["flags"].insert(0, LEAKY_SELECTION)
            metrics["warnings"].insert(0, warning_of_all_epochs(LEAKY_SELECTION, leak))
        run.write_metrics(metrics)
        run.logger.info("finished in %.1f s", metrics["seconds"]["total"])
    return metrics


def finished_metrics(directory: Path) -> dict[str, Any] | None:
    """Return the metrics of a fold that is finished, and still has the files that others read; None otherwise."""
    metrics = read_metrics(directory)
    if metrics is None or metrics.get("status") != "finished":
        return None
    try:
        load_description(checkpoint_paths(directory)[0])
    except ModelError:  # going on says what is wrong, or mends it
        return None
    return metrics if (directory / PREDICTIONS).is_file() else None


def mil_spec(config: MilConfig, cohort: Cohort) -> MilSpec:
    """Return what is trained on a cohort."""
    return MilSpec(
        task=cohort.labels.task,
        class_names=cohort.labels.class_names,
        model=config.model,
        model_settings=dict(config.model_settings),
        loss=config.loss,
        balanced_sampler=config.balanced_sampling,
        bag_size=config.bag_size,
        batch_size=config.batch_size,
        l2_normalize=config.l2_normalize,
        standardize=config.standardize,
    )


def _train(
    config: MilConfig,
    cohort: Cohort,
    bags: FoldBags,
    split: Split,
    fold: int,
    run: RunDirectory,
    observers: Sequence[FitObserver],
    started: float,
) -> dict[str, Any]:
    device = resolve_device(config.fit.device)
    with repeatable(device, config.fit.threads):
        torch.manual_seed(config.fit.seed)
        spec = mil_spec(config, cohort)
        model = build_slide_model(
            config.model, bags.train.n_features, len(spec.class_names), spec.model_settings
        )
        kind = PublishedTraining if config.leaky else MilTraining
        job = kind(spec, config.fit, bags.train, bags.val, model)
        resumed = begin_history(run)
        own, close = _observers(config, spec, job, fold, run)
        try:
            result = fit(job, config.fit, run.path, [*own, *observers])
        finally:
            close()
        write_history(run.path, result.history)
        trained = time.perf_counter()
        val = judge(config, model, bags.val, spec)
        threshold = find_threshold(config, spec, val, run.logger)
        # the one look at the test fold
        parts = {"test": val} if config.leaky else {"val": val}
        if bags.test is not None and not config.leaky:
            parts["test"] = judge(config, model, bags.test, spec)
    scores = {
        part: classification_metrics(
            each.probabilities, each.source.targets, spec.class_names, spec.task, threshold["value"]
        )
        for part, each in parts.items()
    }
    _save(config, cohort, model, split, fold, threshold["value"], run)
    write_predictions(
        run.path / PREDICTIONS,
        spec.class_names,
        [
            row
            for part, each in parts.items()
            for row in prediction_rows(part, each, spec, fold, threshold)
        ],
    )
    fold_plots.save_final(
        run.path / "plots",
        _title(config, fold),
        read_history(run.path),
        result.best_epoch,
        {p: (e.probabilities, e.source.targets, scores[p]) for p, e in parts.items()},
        spec.class_names,
        spec.task,
        leaky=config.leaky,
    )
    return {
        "kind": FOLD_KIND,
        "schema": SCHEMA,
        "status": "finished",
        "error": None,
        "model": config.model,
        "fold": fold,
        "repeat": config.splits.repeat,
        "seed": config.fit.seed,
        "protocol": config.protocol,
        "leaky": config.leaky,
        "note": LEAKY if config.leaky else None,
        "task": spec.task,
        "class_names": list(spec.class_names),
        "threshold": threshold,
        "epoch": {
            "best": result.best_epoch,
            "trained": len(result.history),
            "stopped_early": result.stopped_early,
            "monitor": config.fit.monitor,
            "value": result.best_value,
            "chosen_on": "test" if config.leaky else "val",
        },
        "val": scores.get("val"),
        "test": scores.get("test"),
        "flags": flags_of(scores["test"], spec.class_names) if "test" in scores else [],
        "diagnostics": _diagnostics(result),
        "warnings": warnings_of(result.history),
        "counts": {
            **cohort.counts,
            "bags": {
                "train": len(bags.train), "val": len(bags.val),
                "test": 0 if bags.test is None else len(bags.test),
            },
        },
        "device": str(device),
        "seconds": {
            "epochs": round(math.fsum(r.values["seconds"] for r in result.history), 3),
            "training": round(trained - started, 3),
            "total": round(time.perf_counter() - started, 3),
            "resumed_from_epoch": resumed,
        },
    }  # fmt: skip


def _check_same_split(directory: Path, split: Split, cohort: Cohort) -> None:
    path = directory / SPLITS
    if path.exists() and read_splits(path, cohort.labels) != split:
        raise SettingsConflictError(
            f"The run {directory} was begun with another split (its splits.csv); repeat that one with "
            "--splits, or choose another --run-dir."
        )


def _leak(cohort: Cohort, config: MilConfig, split: Split) -> str | None:
    if not isinstance(cohort.bags, StoreCohort):
        return None
    return selection_leak(cohort.bags.slides, config.bags.selection, split)


def _observers(
    config: MilConfig, spec: MilSpec, job: MilTraining, fold: int, run: RunDirectory
) -> tuple[list[FitObserver], Any]:
    """Return the fold's own observers, and what closes them."""
    found: list[FitObserver] = [LogObserver(run.logger, SHOWN), HistoryObserver(run.path)]
    if config.plot_every:
        found.append(
            EveryObserver(
                config.plot_every, lambda r: _draw_epoch(config, spec, job, fold, run.path, r)
            )
        )
    if not config.tensorboard:
        return found, lambda: None
    from jobs.tensorboard import TensorBoardObserver

    board = TensorBoardObserver(run.path / "tensorboard")
    return [*found, board], board.close


def _draw_epoch(
    config: MilConfig,
    spec: MilSpec,
    job: MilTraining,
    fold: int,
    directory: Path,
    record: EpochRecord,
) -> None:
    assert job.judged is not None
    p, targets = job.judged
    names, task = spec.class_names, spec.task
    history = read_history(directory)
    fold_plots.save_epoch(
        directory / "plots" / f"epoch_{record.epoch + 1:04d}.png",
        f"{_title(config, fold)} · epoch {record.epoch + 1}",
        history,
        max(epoch["epoch"] for epoch in history if epoch["is_best"]),
        (p, targets),
        classification_metrics(p, targets, names, task),
        names,
        task,
        leaky=config.leaky,
    )


def _title(config: MilConfig, fold: int) -> str:
    return f"{config.label} · fold {fold}"


def _save(
    config: MilConfig,
    cohort: Cohort,
    model: SlideModel,
    split: Split,
    fold: int,
    threshold: float | None,
    run: RunDirectory,
) -> None:
    description = {
        "kind": "mil",
        "slidestream": version("slidestream"),
        "model": config.model,
        "model_config": asdict(model.config),
        "task": cohort.labels.task,
        "class_names": list(cohort.labels.class_names),
        "n_features": model.config.n_features,
        "l2_normalize": config.l2_normalize,
        "amp": config.fit.amp,
        "features": cohort.features,
        "selection": config.bags.selection,
        "bag_level": config.bags.bag_level,
        "threshold": threshold,
        "fold": fold,
        "repeat": config.splits.repeat,
        "protocol": config.protocol,
        "leaky": config.leaky,
        # of the published protocol the validation slides train
        "train_slide_ids": [*split.train, *(split.val if config.leaky else ())],
        "val_slide_ids": [] if config.leaky else list(split.val),
        "test_slide_ids": list(split.test),
    }
    save_model(checkpoint_paths(run.path)[0], model, description)


def _diagnostics(result: FitResult) -> dict[str, float | None]:
    """Return the diagnostics of the epoch whose weights are kept."""
    values = result.history[result.best_epoch].values
    names = [f"{part}_{name}" for part in ("train", "val") for name in _DIAGNOSTICS]
    found = {name: values.get(name) for name in ("train_loss", "val_loss", "loss_gap", *names)}
    return {n: None if v is None or not math.isfinite(v) else v for n, v in found.items()}
