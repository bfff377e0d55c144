"""What is shown while folds train: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from jobs.mil.fold_metrics import chosen_epoch
from jobs.mil.fold_metrics import shown as shown_number
from jobs.progress import say

_LINE_EVERY_S = 5.0


class TrainingProgress(Protocol):
    """Is told of epochs and folds."""

    def epoch(self, event: dict[str, Any]) -> None:
        """Hear of an epoch; see :class:`jobs.mil.fold_observers.TellingObserver`."""
        ...

    def fold(self, metrics: dict[str, Any]) -> None:
        """Hear of a fold that is over."""
        ...


class Silence:
    """Shows nothing."""

    def epoch(self, event: dict[str, Any]) -> None:
        """Show nothing."""

    def fold(self, metrics: dict[str, Any]) -> None:
        """Show nothing."""


class Lines:
    """Prints each new best epoch, another every few seconds, and every fold that is over."""

    def __init__(self, n_folds: int) -> None:
        self._n_folds = n_folds
        self._done = 0
        self._last = float("-inf")

    def epoch(self, event: dict[str, Any]) -> None:
        """Print an epoch if it is the best so far, the last, or the last line is some seconds old."""
        now = time.monotonic()
        is_last = event["epoch"] + 1 == event["epochs"]
        if event["best"] or is_last or now - self._last > _LINE_EVERY_S:
            self._last = now
            say(epoch_line(event))

    def fold(self, metrics: dict[str, Any]) -> None:
        """Print a fold."""
        self._done += 1
        say(f"{self._done}/{self._n_folds} {fold_line(metrics)}")


class Bar:
    """Shows one bar over all epochs of all folds, and above it each new best epoch."""

    def __init__(self, n_folds: int, epochs: int, progress: Progress) -> None:
        self._n_folds = n_folds
        self._epochs = epochs
        self._progress = progress
        self._at: dict[int, int] = {}
        self._done = 0
        self._task = progress.add_task(f"0/{n_folds} folds", total=n_folds * epochs, text="")

    def epoch(self, event: dict[str, Any]) -> None:
        """Move the bar."""
        if event["best"]:
            self._print(epoch_line(event))
        self._at[event["fold"]] = event["epoch"] + 1
        self._progress.update(self._task, completed=sum(self._at.values()), text=epoch_line(event))

    def fold(self, metrics: dict[str, Any]) -> None:
        """Count the fold; one that stopped early is as good as through."""
        self._done += 1
        self._at[metrics["fold"]] = self._epochs
        self._print(fold_line(metrics))
        self._progress.update(
            self._task,
            completed=sum(self._at.values()),
            description=f"{self._done}/{self._n_folds} folds",
        )

    def _print(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)


def epoch_line(event: dict[str, Any]) -> str:
    """Write an epoch as one line."""
    best = " (best)" if event["best"] else ""
    leaky = " (LEAKY: val is the test fold)" if event["leaky"] else ""
    at = f"fold {event['fold']} epoch {event['epoch'] + 1}/{event['epochs']}"
    return f"{at}{best}{leaky}: {event['text']}"


def fold_line(metrics: dict[str, Any]) -> str:
    """Write a fold that is over as one line."""
    name = f"fold {metrics['fold']}"
    if metrics["status"] == "failed":
        return f"{name} failed: {metrics['error']['message']}"
    test, leaky, epoch = metrics["test"], " (LEAKY)" if metrics["leaky"] else "", metrics["epoch"]
    chosen = (
        f"{name}{leaky}: chosen epoch {chosen_epoch(metrics)}, {epoch['monitor'].replace('_', ' ')} "
        f"{shown_number(epoch['value'])}"
    )
    if test is None:
        return f"{chosen}; no test fold"
    return (
        f"{chosen}; test AUC {shown_number(test['auc'])}, F1 {shown_number(test['f1'])}, "
        f"balanced accuracy {shown_number(test['balanced_accuracy'])}"
    )


@contextmanager
def shown(n_folds: int, epochs: int, *, quiet: bool) -> Iterator[TrainingProgress]:
    """Choose how progress is shown, for the time of a run.

    Parameters
    ----------
    n_folds, epochs
        How much there is to do.
    quiet
        Show nothing.
    """
    console = Console(stderr=True)
    if quiet:
        yield Silence()
    elif not console.is_terminal:
        yield Lines(n_folds)
    else:
        columns = (
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True) as progress:
            yield Bar(n_folds, epochs, progress)
