"""A training on tiles that are prepared first, in its directory: the same for a VAE and for a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dataflow.stain import StainSpec
from jobs.run_directory import RunDirectory
from jobs.training.in_directory import train_in_directory
from jobs.training.progress import StepProgress
from jobs.vae.config import FREE, TrainingSettings
from jobs.vae.open_origin import OpenedOrigin
from jobs.vae.training_data import TrainingData, load_training_data


def train_on_tiles(
    common: TrainingSettings,
    origin: OpenedOrigin,
    stain: StainSpec,
    settings: Mapping[str, Any],
    train: Callable[[TrainingData, RunDirectory, StepProgress], dict[str, Any]],
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Prepare tiles and train; a run that was interrupted goes on, a finished one is left as it is.

    Parameters
    ----------
    common
        Settings that all trainings on tiles have.
    origin, stain
        Where tiles come from, and how they are normalized.
    settings
        All that was asked, JSON-able; must be the same when the run goes on.
    train
        Does it, and returns its metrics.
    quiet
        No progress (``--json``).

    Returns
    -------
    dict
        The metrics, as in ``metrics.json``, and ``run_dir``.

    Raises
    ------
    SettingsConflictError
        The directory was begun with other settings.
    BusyError
        Another process trains in it.
    """

    def prepare_and_train(run: RunDirectory, progress: StepProgress) -> dict[str, Any]:
        return train(load_training_data(origin, common, stain, run, progress), run, progress)

    described = {**settings, "inputs": origin.describe(), "stain": stain.to_json()}
    return train_in_directory(Path(common.run_dir), described, FREE, prepare_and_train, quiet=quiet)
