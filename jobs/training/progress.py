"""What is shown while one model trains: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from jobs.progress import say
from jobs.training.observers import epoch_text

if TYPE_CHECKING:
    from models.fit import EpochRecord

_LINE_EVERY_S = 10.0


class StepProgress(Protocol):
    """Is told of steps that are counted in items: tiles that are prepared, tiles that are trained on."""

    def begin(self, what: str, total: int) -> None:
        """Hear of a stage of ``total`` items."""
        ...

    def at(self, done: int) -> None:
        """Hear how many items of the stage are done."""
        ...

    def note(self, line: str) -> None:
        """Hear of something to say at once."""
        ...


class Silence:
    """Shows nothing."""

    def begin(self, what: str, total: int) -> None:
        """Show nothing."""

    def at(self, done: int) -> None:
        """Show nothing."""

    def note(self, line: str) -> None:
        """Show nothing."""


class Lines:
    """Prints how far a stage is, every ten seconds."""

    def __init__(self) -> None:
        self._what, self._total = "", 0
        self._last = time.monotonic()

    def begin(self, what: str, total: int) -> None:
        """Go on to a stage."""
        self._what, self._total = what, total

    def at(self, done: int) -> None:
        """Print a line if the last one is some seconds old."""
        if time.monotonic() - self._last > _LINE_EVERY_S:
            self.note(f"{self._what}: {done:,} of {self._total:,}")

    def note(self, line: str) -> None:
        """Print a line."""
        self._last = time.monotonic()
        say(line)


class Bar:
    """Shows a bar for a stage, with the items a second and the time to go."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def begin(self, what: str, total: int) -> None:
        """Begin a new bar."""
        self._progress.reset(self._task, description=what, total=total)

    def at(self, done: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done)

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False)


@contextmanager
def shown_steps(*, quiet: bool) -> Iterator[StepProgress]:
    """Choose how steps are shown, for the time of a run.

    Parameters
    ----------
    quiet
        Show nothing.
    """
    console = Console(stderr=True)
    if quiet:
        yield Silence()
    elif not console.is_terminal:
        yield Lines()
    else:
        columns = (
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True) as progress:
            yield Bar(progress)


class EpochProgress:
    """Counts what all epochs of a training have read, and tells of each epoch that is over.

    Parameters
    ----------
    progress
        Is told.
    epochs, per_epoch
        At the most, and items that each of them reads.
    shown
        Names of the values that the line about an epoch shows.
    unit
        What an epoch is called.
    """

    def __init__(
        self,
        progress: StepProgress,
        epochs: int,
        per_epoch: int,
        shown: Sequence[str],
        unit: str = "epoch",
    ) -> None:
        self.unit = unit
        self._progress = progress
        self._epochs, self._per_epoch = epochs, per_epoch
        self._shown = shown
        self._epoch, self._done = 0, 0

    def start_at(self, epoch: int) -> None:
        """Begin with an epoch, from 0."""
        self._epoch, self._done = epoch, 0
        self._progress.begin(self._title(), self._epochs * self._per_epoch)
        self._progress.at(epoch * self._per_epoch)

    def read(self, n: int) -> None:
        """Hear that ``n`` more items of the epoch were read."""
        self._done = min(self._done + n, self._per_epoch)
        self._progress.at(self._epoch * self._per_epoch + self._done)

    def on_epoch(self, record: EpochRecord) -> None:
        """Tell of an epoch."""
        best = " (best)" if record.is_best else ""
        at = f"{self.unit} {record.epoch + 1}/{self._epochs}"
        seconds = record.values.get("seconds", 0.0)
        self._progress.note(f"{at}{best}: {epoch_text(record, self._shown)}, {seconds:.1f} s")
        if record.epoch + 1 < self._epochs:
            self.start_at(record.epoch + 1)

    def _title(self) -> str:
        return f"{self.unit} {self._epoch + 1}/{self._epochs}"
