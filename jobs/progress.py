"""What is shown while a run goes on: a bar on a terminal, plain lines elsewhere, everything in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from dataflow.receipts import BlockReceipt, SlidePlan
from dataflow.stream_report import SlideResult, StreamObserver
from jobs.one_line import one_line

_LINE_EVERY_S = 10.0
_NO_WORKERS = "no worker is left: waiting for a new one (what is stored is kept if you stop)"


class LogObserver(StreamObserver):
    """Writes plans, finished slides and failures to the run's log; the base of what is shown as well."""

    def __init__(self, n_slides: int, logger: logging.Logger) -> None:
        self.n_slides = n_slides
        self._logger = logger
        self.slides_done = 0
        self.slides_failed = 0
        self.tiles_done = 0
        self.tiles_known = 0
        self._start = time.monotonic()

    @property
    def rate(self) -> float:
        """Tiles per second since the run began."""
        return self.tiles_done / max(time.monotonic() - self._start, 1e-9)

    def planned(self, plan: SlidePlan) -> None:
        """Log a slide's plan."""
        if plan.failure is None:
            self._logger.info(
                "%s: %d tiles, %d of %d blocks to do",
                plan.slide_id, plan.n_tiles, len(plan.missing), plan.n_blocks,
            )  # fmt: skip
            if plan.n_blocks:
                self.tiles_known += round(plan.n_tiles * len(plan.missing) / plan.n_blocks)

    def block(self, receipt: BlockReceipt) -> None:
        """Count a block."""
        self.tiles_done += receipt.n_tiles

    def slide(self, result: SlideResult) -> None:
        """Log a finished slide and what went wrong with it."""
        self.slides_done += 1
        self.slides_failed += bool(result.failures)
        for note in result.notes:
            self._logger.info("%s: %s", result.slide_id, note)
        for failure in result.failures:
            self._logger.error(
                "%s block %s [%s]: %s",
                failure.slide_id,
                failure.block,
                failure.reason,
                failure.message,
            )
            if failure.traceback:
                self._logger.error("%s", failure.traceback)
        self._logger.info(
            "%s: %s", result.slide_id, "complete" if result.complete else "incomplete"
        )

    def no_workers(self) -> None:
        """Log that the run waits."""
        self._logger.warning(_NO_WORKERS)


class LineObserver(LogObserver):
    """Prints a line a while; for files, pipes and batch systems.

    Parameters
    ----------
    n_slides
        Slides of the run.
    logger
        Of the run's log.
    write
        Takes a line.
    """

    def __init__(self, n_slides: int, logger: logging.Logger, write: Callable[[str], None]) -> None:
        super().__init__(n_slides, logger)
        self._write = write
        self._last = time.monotonic()

    def block(self, receipt: BlockReceipt) -> None:
        """Say how far the run is, at most every ten seconds."""
        super().block(receipt)
        self._say(force=False)

    def slide(self, result: SlideResult) -> None:
        """Say how far the run is when the last slide is done; failures at once."""
        super().slide(result)
        for failure in result.failures:
            self._write(f"failed: {one_line(failure.slide_id)} [{failure.reason}]")
        self._say(force=self.slides_done == self.n_slides)

    def no_workers(self) -> None:
        """Say that the run waits."""
        super().no_workers()
        self._write(_NO_WORKERS)

    def _say(self, *, force: bool) -> None:
        now = time.monotonic()
        if force or now - self._last > _LINE_EVERY_S:
            self._last = now
            failed = f" ({self.slides_failed} failed)" if self.slides_failed else ""
            self._write(
                f"{self.slides_done}/{self.n_slides} slides{failed}, "
                f"{self.tiles_done:,} tiles, {self.rate:,.0f} tiles/s"
            )


class BarObserver(LogObserver):
    """Shows a progress bar with tiles/s and time to go."""

    def __init__(self, n_slides: int, logger: logging.Logger, console: Console) -> None:
        super().__init__(n_slides, logger)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]:,.0f} tiles/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=None, rate=0.0)

    def __enter__(self) -> BarObserver:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def planned(self, plan: SlidePlan) -> None:
        """Enlarge the bar by what the slide adds."""
        super().planned(plan)
        self._update()

    def block(self, receipt: BlockReceipt) -> None:
        """Move the bar."""
        super().block(receipt)
        self._update()

    def slide(self, result: SlideResult) -> None:
        """Count the slide; show failures above the bar at once."""
        super().slide(result)
        for failure in result.failures:
            self._progress.console.print(
                f"[red]failed[/red] {escape(one_line(failure.slide_id))} ({failure.reason}): "
                f"{escape(one_line(failure.message))}",
                highlight=False,
            )
        self._update()

    def no_workers(self) -> None:
        """Show above the bar that the run waits."""
        super().no_workers()
        self._progress.console.print(f"[yellow]{_NO_WORKERS}[/yellow]", highlight=False)

    def _update(self) -> None:
        self._progress.update(
            self._bar,
            description=f"{self.slides_done}/{self.n_slides} slides",
            completed=self.tiles_done,
            # slides that aren't planned yet are as large as those that are, for the estimate
            total=self.tiles_known or None,
            rate=self.rate,
        )


def say(text: str) -> None:
    """Print a line about the run's course; results go to stdout, this to stderr."""
    click.echo(text, err=True)
