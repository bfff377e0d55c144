"""``mil train``: one fold in this process, from its config to its metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jobs.mil.cohort import Cohort, make_splits, open_bags
from jobs.mil.config import MilConfig
from jobs.mil.fold_observers import TellingObserver
from jobs.mil.train import train_fold
from jobs.mil.training_progress import shown
from jobs.progress import say
from models.slide_models import build_slide_model
from store_schema.errors import InputError


def train_here(config: MilConfig, *, quiet: bool) -> dict[str, Any]:
    """Train the fold that the config names, and show its epochs.

    Parameters
    ----------
    config
        The call.
    quiet
        No progress (``--json``).

    Returns
    -------
    dict
        Its metrics, and ``run_dir``.

    Raises
    ------
    SlidestreamError
        Data or settings make no sense.
    """
    check_options(config)
    cohort = open_bags(config.bags)
    check_model(config, cohort)
    splits = make_splits(config.splits, cohort, config.fit.seed)
    fold = config.splits.fold
    if not config.splits.files and fold >= len(splits):
        raise InputError(f"There is no fold {fold}: {len(splits)} folds are numbered from 0.")
    if not quiet:
        for note in cohort.bags.notes():
            say(f"note: {note}")
    split = splits[0] if config.splits.files else splits[fold]
    with shown(1, config.fit.epochs, quiet=quiet) as progress:
        telling = TellingObserver(fold, config.fit.epochs, progress.epoch, config.leaky)
        metrics = train_fold(config, split, fold, Path(config.run_dir), [telling])
        progress.fold(metrics)
    return {**metrics, "run_dir": config.run_dir}


def check_options(config: MilConfig) -> None:
    """Check what needs no data.

    Raises
    ------
    InputError
        TensorBoard is asked for and not installed.
    """
    if config.tensorboard:
        from jobs.tensorboard import require_tensorboard

        require_tensorboard()


def check_model(config: MilConfig, cohort: Cohort) -> None:
    """Check name and settings of the model before any fold starts.

    Raises
    ------
    ModelError, InputError
        There is no such model, or no such setting.
    """
    width = cohort.bags.bags(cohort.bags.table.slide_ids[:1]).n_features
    with torch.random.fork_rng(devices=[]):
        build_slide_model(
            config.model, width, len(cohort.labels.class_names), dict(config.model_settings)
        )
