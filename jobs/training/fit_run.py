"""The loop of a training in its run directory, with its history, pictures and progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.run_directory import RunDirectory
from jobs.training.history import begin_history, warnings_of, write_history
from jobs.training.observers import EveryObserver, HistoryObserver, LogObserver
from jobs.training.progress import EpochProgress
from models.fit import EpochRecord, FitObserver, FitResult, FitSpec, Trainable, fit


@dataclass(frozen=True)
class Fitted:
    """What the loop came to.

    Attributes
    ----------
    result
        Of ``fit``.
    resumed_from
        The first epoch that was trained by this call, None where that is 0.
    """

    result: FitResult
    resumed_from: int | None

    def describe(self, spec: FitSpec) -> dict[str, Any]:
        """Return the entries of metrics.json that every training has."""
        best = self.result.history[self.result.best_epoch].values
        epochs = [record.values["seconds"] for record in self.result.history]
        return {
            "epoch": {
                "best": self.result.best_epoch,
                "trained": len(self.result.history),
                "stopped_early": self.result.stopped_early,
                "monitor": spec.monitor,
                "value": self.result.best_value,
            },
            "best": {name: v if math.isfinite(v) else None for name, v in best.items()},
            "warnings": warnings_of(self.result.history),
            "epoch_seconds": round(math.fsum(epochs), 3),
            "resumed_from_epoch": self.resumed_from,
        }

    def warnings_of_the_kept(self) -> list[str]:
        """Return what was wrong with the epoch that is kept: who goes on with the model must know."""
        best = self.result.best_epoch
        return [
            str(warning["message"])
            for warning in warnings_of(self.result.history)
            if warning["first_epoch"] <= best <= warning["last_epoch"]
        ]


def check_tensorboard(*, wanted: bool) -> None:
    """Check before all else that what is asked for is installed.

    Raises
    ------
    InputError
        TensorBoard is wanted and not installed.
    """
    if wanted:
        from jobs.tensorboard import require_tensorboard

        require_tensorboard()


def fit_in_run(
    job: Trainable[Any],
    spec: FitSpec,
    run: RunDirectory,
    epochs: EpochProgress,
    shown: Sequence[str],
    draw: Callable[[EpochRecord], None],
    *,
    plot_every: int,
    tensorboard: bool,
) -> Fitted:
    """Train, or go on with it.

    Parameters
    ----------
    job
        What is trained.
    spec
        How.
    run
        Its directory.
    epochs
        Is told of epochs.
    shown
        Names of the values that the log shows of an epoch.
    draw
        Draws an epoch.
    plot_every
        Epochs between pictures; 0 draws none.
    tensorboard
        Whether to write event files.
    """
    resumed_from = begin_history(run)
    observers: list[FitObserver] = [
        LogObserver(run.logger, shown, epochs.unit), HistoryObserver(run.path), epochs,
    ]  # fmt: skip
    if plot_every:
        observers.append(EveryObserver(plot_every, draw))
    close: Callable[[], None] = lambda: None  # noqa: E731
    if tensorboard:
        from jobs.tensorboard import TensorBoardObserver

        board = TensorBoardObserver(run.path / "tensorboard")
        observers.append(board)
        close = board.close
    epochs.start_at(resumed_from or 0)
    try:
        result = fit(job, spec, run.path, observers)
    finally:
        close()
    write_history(run.path, result.history)
    return Fitted(result, resumed_from)
