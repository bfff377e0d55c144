"""A training's place: its directory, prepared tiles and metrics, the same whatever is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dataflow.stain import StainSpec
from jobs.run_directory import RunDirectory, run_directory
from jobs.run_lock import alone_in
from jobs.training.progress import StepProgress, shown_steps
from jobs.training.run_files import check_same_settings, read_metrics
from jobs.vae.config import FREE, TrainingSettings
from jobs.vae.open_origin import OpenedOrigin
from jobs.vae.training_data import TrainingData, load_training_data


def train_in_directory(
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
    started = time.perf_counter()
    directory = Path(common.run_dir)
    described = {**settings, "inputs": origin.describe(), "stain": stain.to_json()}
    with alone_in(directory):
        check_same_settings(directory, described, FREE)
        finished = read_metrics(directory)
        if finished is not None and finished.get("status") == "finished":
            return {**finished, "run_dir": str(directory)}
        with shown_steps(quiet=quiet) as progress, run_directory(directory, described) as run:
            data = load_training_data(origin, common, stain, run, progress)
            metrics = train(data, run, progress)
            metrics["seconds"] = {"total": round(time.perf_counter() - started, 3)}
            run.write_metrics(metrics)
            run.logger.info("finished in %.1f s", metrics["seconds"]["total"])
    return {**metrics, "run_dir": str(directory)}
