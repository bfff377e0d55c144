"""One call of ``mil score`` in this process, with the directory that it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from jobs.mil.predictions import write_predictions
from jobs.mil.run_files import PREDICTIONS
from jobs.mil.run_labels import labels_of_run
from jobs.mil.score import ScoreReport, score_slides
from jobs.mil.score_inputs import ScoreSettings
from jobs.mil.trained import load_trained
from jobs.progress import say
from jobs.run_config import absolute_url, beside_store
from jobs.run_directory import new_run_path, run_directory
from store_schema.ids import check_name
from store_schema.store import open_store

_LINE_EVERY_S: Final = 10.0


@dataclass(frozen=True)
class ScoreCall:
    """What the command line asks for; ``run_dir`` None takes a new folder beside the store."""

    store: str
    runs: tuple[Path, ...]
    settings: ScoreSettings
    run_dir: Path | None = None


def score_here(call: ScoreCall, *, quiet: bool = True) -> tuple[ScoreReport, Path]:
    """Score, and write ``predictions.csv``, log and metrics.

    Parameters
    ----------
    call
        The call.
    quiet
        No lines about how far it is.

    Returns
    -------
    ScoreReport, Path
        What came of it, and the run's directory.

    Raises
    ------
    SlidestreamError
        As of :func:`jobs.mil.trained.load_trained` and :func:`jobs.mil.score.score_slides`; nothing is written then.
    """
    started = time.perf_counter()
    check_name(call.settings.name, "scores name")
    runs = [load_trained(run) for run in call.runs]
    store = open_store(absolute_url(call.store), mode="r+")
    directory = call.run_dir or new_run_path(beside_store(call.store, "runs"), "mil-score")
    settings, note = call.settings, None
    if settings.labels is None:
        labels, note = labels_of_run(call.runs[0])
        settings = replace(settings, labels=labels)
    config = {
        "command": "mil score",
        "store": store.url,
        "runs": [str(run) for run in call.runs],
        **asdict(settings),
        "labels": _text(settings.labels),
    }
    say_progress = (lambda _, __: None) if quiet else _lines()
    report = score_slides(store, runs, settings, say_progress)
    if note is not None:
        report.notes.append(note)
    with run_directory(directory, config) as run:
        write_predictions(directory / PREDICTIONS, report.class_names, report.predictions)
        for note in report.notes:
            run.logger.warning("%s", note)
        for slide_id, problem in report.failed.items():
            run.logger.error("%s: %s", slide_id, problem)
        run.write_metrics(
            {
                "kind": "mil-score",
                "scores": call.settings.name,
                "written": len(report.written),
                "found": len(report.found),
                "failed": report.failed,
                "notes": report.notes,
                "seconds": round(time.perf_counter() - started, 3),
            }
        )
    return report, directory


def _lines() -> Callable[[int, int], None]:
    """Return what says how far the scoring is, every ten seconds."""
    last = time.monotonic()

    def tell(n_done: int, n_total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _LINE_EVERY_S:
            last = time.monotonic()
            say(f"{n_done} of {n_total} bags scored")

    return tell


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
