"""Scores of a store's slides, stitched: slide by slide, on threads of this process or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click
from dask.delayed import Delayed
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from dataflow.stitch import Stitched
from dataflow.stitch_spec import StitchSpec
from dataflow.stitch_store import Compute, StitchResult, in_threads, stitch_slide
from jobs.one_line import one_line
from jobs.run_places import lacking
from jobs.score_reader import ScoreChoice, scored_grid, scored_slides
from store_schema import names
from store_schema.errors import ClusterError, NotInStoreError, SlidestreamError
from store_schema.ids import check_name
from store_schema.slide_view import SlideView
from store_schema.store import Store

if TYPE_CHECKING:
    from distributed import Client

_LINE_EVERY_S: Final = 10.0

Tell = Callable[[str, int, int], None]  # slide id, chunks painted, of how many


@dataclass(frozen=True)
class StitchSettings:
    """One call of ``stitch``.

    Attributes
    ----------
    choice
        Which array of which run.
    name
        Of the result, ``masks/<name>``.
    spec
        How.
    slides
        Only these; empty takes all that have the run.
    overwrite
        Replace what is there under that name but was made otherwise.
    verify
        Check what is there.
    """

    choice: ScoreChoice
    name: str
    spec: StitchSpec = field(default_factory=StitchSpec)
    slides: tuple[str, ...] = ()
    overwrite: bool = False
    verify: bool = True


@dataclass(frozen=True)
class StitchedSlide:
    """What came of one slide: a result, or a problem."""

    slide_id: str
    result: StitchResult | None
    problem: str = ""


def stitch_slides(
    store: Store, settings: StitchSettings, compute: Compute = in_threads, *, quiet: bool = True
) -> list[StitchedSlide]:
    """Stitch the slides of a store; one that can't be stitched does not stop the others.

    Parameters
    ----------
    store
        Open for writing.
    settings
        What is asked for.
    compute
        Computes Dask tasks.
    quiet
        Show no progress.

    Raises
    ------
    NotInStoreError
        A slide was named that the store hasn't, or no slide has the run.
    ClusterError, StorageError
        Nothing can be computed, or written, any more.
    """
    check_name(settings.name, "masks name")
    slides = scored_slides(store, settings.choice, settings.slides)
    found = []
    with _shown(len(slides), quiet=quiet) as tell:
        for slide in slides:
            try:
                outcome = StitchedSlide(slide.slide_id, _stitch(slide, settings, compute, tell))
            except SlidestreamError as error:
                if error.fatal or isinstance(error, ClusterError):
                    raise
                outcome = StitchedSlide(slide.slide_id, None, str(error))
            found.append(outcome)
    return found


def _stitch(
    slide: SlideView, settings: StitchSettings, compute: Compute, tell: Tell
) -> StitchResult:
    choice = settings.choice
    grid = scored_grid(slide, choice)
    if grid is None:
        where = f"slide {slide.slide_id}"
        raise NotInStoreError(lacking(where, [slide], names.SCORES, choice.run, choice.grid))
    stitched = Stitched.of(slide, grid, names.SCORES, choice.run, choice.array, settings.spec)
    return stitch_slide(
        slide,
        stitched,
        settings.name,
        overwrite=settings.overwrite,
        verify=settings.verify,
        compute=compute,
        progress=lambda done, total: tell(slide.slide_id, done, total),
    )


@contextmanager
def computing_on(scheduler: str | None) -> Iterator[Compute]:
    """Return what computes tasks: threads of this process, or the cluster of a scheduler.

    Raises
    ------
    ClusterError
        The scheduler does not answer.
    """
    if scheduler is None:
        yield in_threads
        return
    from dataflow.cluster import connected  # imports torch, which threads don't need

    with connected(scheduler) as client:
        yield lambda tasks: _on_cluster(client, tasks)


def _on_cluster(client: Client, tasks: Sequence[Delayed]) -> Sequence[int]:
    from distributed import KilledWorker

    from dataflow.cluster import answering

    try:
        with answering(client):
            done: Sequence[int] = client.gather(client.compute(list(tasks)))
    except KilledWorker as error:
        raise ClusterError(
            "The workers that tried to stitch died (out of memory, or killed): give them more memory, and run the "
            "same command again; it goes on where it stopped."
        ) from error
    return done


@contextmanager
def _shown(n_slides: int, *, quiet: bool) -> Iterator[Tell]:
    """Show a bar on a terminal, a line a while elsewhere, or nothing."""
    console = Console(stderr=True)
    if quiet:
        yield lambda slide_id, done, total: None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda slide_id, done, total: bar.update(
                task, description=one_line(slide_id), completed=done, total=total
            )
    else:
        yield _lines(n_slides)


def _lines(n_slides: int) -> Tell:
    last, seen = time.monotonic(), set[str]()

    def tell(slide_id: str, done: int, total: int) -> None:
        nonlocal last
        seen.add(slide_id)
        if time.monotonic() - last > _LINE_EVERY_S:
            last = time.monotonic()
            click.echo(
                f"slide {len(seen)}/{n_slides}: {one_line(slide_id)}, {done}/{total} chunks",
                err=True,
            )

    return tell
