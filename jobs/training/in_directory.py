"""A training's place: its directory, lock and metrics, the same whatever is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jobs.run_directory import RunDirectory, run_directory
from jobs.run_lock import alone_in
from jobs.training.progress import StepProgress, shown_steps
from jobs.training.run_files import check_same_settings, read_metrics


def train_in_directory(
    directory: Path,
    settings: Mapping[str, Any],
    free: tuple[str, ...],
    train: Callable[[RunDirectory, StepProgress], dict[str, Any]],
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Train; a run that was interrupted goes on, a finished one is left as it is.

    Parameters
    ----------
    directory
        Of the run.
    settings
        All that was asked, and what it came to, JSON-able; must be the same when the run goes on.
    free
        Names of those that needn't be, see :func:`jobs.training.run_files.check_same_settings`.
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
    with alone_in(directory):
        check_same_settings(directory, settings, free)
        finished = read_metrics(directory)
        if finished is not None and finished.get("status") == "finished":
            return {**finished, "run_dir": str(directory)}
        with shown_steps(quiet=quiet) as progress, run_directory(directory, settings) as run:
            metrics = train(run, progress)
            metrics["seconds"] = {"total": round(time.perf_counter() - started, 3)}
            run.write_metrics(metrics)
            run.logger.info("finished in %.1f s", metrics["seconds"]["total"])
    return {**metrics, "run_dir": str(directory)}
