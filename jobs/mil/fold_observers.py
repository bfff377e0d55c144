"""What is told of each epoch of a fold: its log, its history, its pictures, and whoever watches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.mil.run_files import HISTORY, record_line

if TYPE_CHECKING:
    from models.fit import EpochRecord

EPOCH_TOPIC = "slidestream-mil-epoch"
_LOGGED = ("train_loss", "val_loss", "val_auc", "val_balanced_accuracy", "val_attention_entropy")


class LogObserver:
    """Writes a line an epoch to the run's log, and each warning when it first comes.

    Parameters
    ----------
    logger
        Of the run.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: set[str] = set()

    def on_epoch(self, record: EpochRecord) -> None:
        """Log an epoch."""
        self._logger.info(
            "epoch %d%s: %s", record.epoch, " (best)" if record.is_best else "", epoch_text(record)
        )
        for warning in record.warnings:
            kind = warning.partition(":")[0]
            if kind not in self._said:
                self._said.add(kind)
                self._logger.warning("epoch %d: %s", record.epoch, warning)


@dataclass(frozen=True)
class HistoryObserver:
    """Appends each epoch to ``history.jsonl``, so that it can be followed while a training goes on."""

    directory: Path

    def on_epoch(self, record: EpochRecord) -> None:
        """Append an epoch."""
        with (self.directory / HISTORY).open("a") as file:
            file.write(f"{record_line(record)}\n")


@dataclass(frozen=True)
class EveryObserver:
    """Draws every so many epochs.

    Attributes
    ----------
    every
        Epochs between pictures, ≥ 1.
    draw
        Told of the epoch.
    """

    every: int
    draw: Callable[[EpochRecord], None]

    def on_epoch(self, record: EpochRecord) -> None:
        """Draw if it is time."""
        if (record.epoch + 1) % self.every == 0:
            self.draw(record)


@dataclass(frozen=True)
class TellingObserver:
    """Tells of an epoch in plain values, which can travel between processes.

    Attributes
    ----------
    fold, epochs
        Which fold, and how many epochs it has at the most.
    tell
        Takes the event.
    leaky
        Whether what is called validation is the test fold.
    """

    fold: int
    epochs: int
    tell: Callable[[dict[str, Any]], None]
    leaky: bool = False

    def on_epoch(self, record: EpochRecord) -> None:
        """Tell of an epoch."""
        self.tell(
            {
                "fold": self.fold,
                "epoch": record.epoch,
                "epochs": self.epochs,
                "text": epoch_text(record),
                "best": record.is_best,
                "leaky": self.leaky,
            }
        )


def tell_cluster(event: dict[str, Any]) -> None:
    """Send an event from a Dask worker to the clients that listen."""
    from distributed import get_worker

    get_worker().log_event(EPOCH_TOPIC, event)


def epoch_text(record: EpochRecord) -> str:
    """Write the values of an epoch that one looks at first."""
    return ", ".join(
        f"{name.replace('_', ' ')} {record.values[name]:.4g}"
        for name in _LOGGED
        if name in record.values
    )
