"""What is told of each epoch of a training: its log, its history, its pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.training.history import HISTORY, record_line
from store_schema.errors import StorageError

if TYPE_CHECKING:
    from models.fit import EpochRecord


class LogObserver:
    """Writes a line an epoch to the run's log, and each warning when it first comes; epochs count from 1.

    Parameters
    ----------
    logger
        Of the run.
    shown
        Names of the values that a line shows.
    unit
        What an epoch is called.
    """

    def __init__(self, logger: logging.Logger, shown: Sequence[str], unit: str = "epoch") -> None:
        self._logger = logger
        self._unit = unit
        self._shown = shown
        self._said: set[str] = set()

    def on_epoch(self, record: EpochRecord) -> None:
        """Log an epoch."""
        best = " (best)" if record.is_best else ""
        number = record.epoch + 1
        self._logger.info("%s %d%s: %s", self._unit, number, best, epoch_text(record, self._shown))
        for warning in record.warnings:
            kind = warning.partition(":")[0]
            if kind not in self._said:
                self._said.add(kind)
                self._logger.warning("%s %d: %s", self._unit, number, warning)


@dataclass(frozen=True)
class HistoryObserver:
    """Appends each epoch to ``history.jsonl``, so that it can be followed while a training goes on."""

    directory: Path

    def on_epoch(self, record: EpochRecord) -> None:
        """Append an epoch; StorageError if the disk is full."""
        path = self.directory / HISTORY
        try:
            with path.open("a") as file:
                file.write(f"{record_line(record)}\n")
        except OSError as error:
            raise StorageError(
                f"{path} can't be written ({error.strerror}): free some space and run the same command again, it goes "
                "on where it stopped"
            ) from error


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


def epoch_text(record: EpochRecord, shown: Sequence[str]) -> str:
    """Write the values of an epoch that one looks at first; names that it has not are left out."""
    return ", ".join(
        f"{name.replace('_', ' ')} {record.values[name]:.4g}"
        for name in shown
        if name in record.values
    )
