"""One call of ``slidestream calibrate``, with the directory that it leaves."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from jobs.calibration.apply import (
    ApplySettings,
    CalibratedSlide,
    apply_calibration,
)
from jobs.calibration.calibration import Calibration, read_calibration, write_calibration
from jobs.calibration.fit import FitPart, FitSettings, fit_calibration
from jobs.calibration.morphology import MorphologySpec
from jobs.calibration.summary import CalibrateOutcome, notes_of, summary_of
from jobs.calibration.threshold import Metric
from jobs.calibration.tile_truths import TruthSettings
from jobs.calibration.zscore import ZScore
from jobs.run_config import absolute_url, beside_store
from jobs.run_directory import new_run_path, run_directory
from jobs.score_reader import ScoreChoice, scored_grid, scored_slides
from models.overlap import Sweep
from store_schema import names
from store_schema.errors import InputError, StorageError
from store_schema.ids import check_name
from store_schema.store import Store, open_store

SLIDES_FILE: Final = "calibrated_slides.csv"
PLOT_FILE: Final = "threshold.png"


@dataclass(frozen=True)
class CalibrateCall:
    """What the command line asks for.

    Attributes
    ----------
    store
        Path or URL.
    choice
        What is calibrated; None takes what ``source`` is for.
    name
        Of the result; None is ``<run>-calibrated``, or ``<run>-oracle`` of an upper bound.
    zscore, metric, morphology
        How; not used with ``source``.
    threshold
        A given one.
    splits, part
        Whose slides choose the threshold.
    truth
        What they, or with ``oracle`` all slides, are judged by.
    oracle
        Each slide's own threshold, by its own truth.
    source
        Run directory of an earlier calibration, to be used again.
    slides, overwrite, run_dir
        As the options of these names say.
    """

    store: str
    choice: ScoreChoice | None
    name: str | None = None
    zscore: ZScore = "mean-std"
    metric: Metric = "iou"
    morphology: MorphologySpec = field(default_factory=MorphologySpec)
    threshold: float | None = None
    splits: Path | None = None
    part: FitPart = "val"
    truth: TruthSettings | None = None
    oracle: bool = False
    source: Path | None = None
    slides: tuple[str, ...] = ()
    overwrite: bool = False
    run_dir: Path | None = None


def calibrate_here(
    call: CalibrateCall, done: Callable[[int, int], None] = lambda _, __: None
) -> CalibrateOutcome:
    """Choose a threshold, or take one, and write z-scores and masks.

    Parameters
    ----------
    call
        The call.
    done
        Is told after each slide: how many are through, of how many.

    Raises
    ------
    SlidestreamError
        As of :func:`jobs.calibration.fit.fit_calibration`, :func:`jobs.calibration.calibration.read_calibration` and
        :func:`jobs.calibration.apply.apply_calibration`.
    """
    started = time.perf_counter()
    if call.name is not None:
        check_name(call.name, "scores name")
    store = open_store(absolute_url(call.store), mode="r+")
    calibration, counts = _calibration(call, store)
    suffix = "oracle" if calibration.is_upper_bound else "calibrated"
    name = call.name or f"{calibration.choice.run}-{suffix}"
    settings = ApplySettings(
        name, call.slides, call.truth if calibration.is_upper_bound else None, call.overwrite
    )
    report = apply_calibration(store, calibration, settings, done)
    directory = call.run_dir or new_run_path(beside_store(call.store, "runs"), "calibrate")
    config = {
        "command": "calibrate",
        "store": store.url,
        "name": name,
        "splits": None if call.splits is None else str(call.splits),
        "truth": None
        if call.truth is None
        else {**asdict(call.truth), "path": str(call.truth.path)},
        "from": None if call.source is None else str(call.source),
        "slides": list(call.slides),
        **calibration.to_json(),
    }
    outcome = CalibrateOutcome(calibration, name, report, directory)
    with run_directory(directory, config) as run:
        write_calibration(directory, calibration)
        _write_slides(directory / SLIDES_FILE, report.slides)
        if counts is not None:
            from jobs.calibration.threshold_plot import save_threshold_plot

            save_threshold_plot(directory / PLOT_FILE, calibration, counts)
        for line in notes_of(calibration, report):
            run.logger.warning("%s", line)
        for slide_id, problem in report.failed.items():
            run.logger.error("%s: %s", slide_id, problem)
        run.write_metrics(
            {
                "kind": "calibrate",
                **summary_of(outcome),
                "seconds": round(time.perf_counter() - started, 3),
            }
        )
    return outcome


def _calibration(call: CalibrateCall, store: Store) -> tuple[Calibration, Sweep | None]:
    if call.source is not None:
        return _used_again(call.source, call.choice), None
    if call.choice is None:
        raise InputError("name the scores to calibrate with --score, or a calibration with --from")
    if call.splits is not None and call.truth is not None:
        settings = FitSettings(
            call.choice, call.truth, call.splits, call.part, call.zscore, call.metric, call.morphology
        )  # fmt: skip
        return fit_calibration(store, settings)
    if (call.threshold is None) != call.oracle:
        raise InputError(
            "say where the threshold comes from: --splits with --truth, --threshold, --per-slide-oracle or --from"
        )
    choice = call.choice
    if choice.array is None:
        first = scored_slides(store, choice, call.slides)[0]
        grid = scored_grid(first, choice)
        if grid is not None:
            group = first.block_group(grid, names.SCORES, choice.run)
            choice = replace(choice, array=next(iter(group.arrays)))
    metric = call.metric if call.oracle else None
    return Calibration(choice, call.zscore, call.threshold, metric, call.morphology), None


def _used_again(source: Path, choice: ScoreChoice | None) -> Calibration:
    """Return an earlier calibration, maybe for scores of another name; not for another array of them."""
    found = read_calibration(source)
    if choice is None:
        return found
    if choice.array not in (None, found.choice.array):
        raise InputError(
            f"{source} calibrates {found.choice.run}/{found.choice.array}, and its threshold says nothing of "
            f"{choice.run}/{choice.array}: calibrate those for themselves"
        )
    return replace(found, choice=replace(found.choice, run=choice.run))


def _write_slides(path: Path, slides: Sequence[CalibratedSlide]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(field.name for field in fields(CalibratedSlide))
            for each in slides:
                writer.writerow((asdict(each) | {"flags": ";".join(each.flags)}).values())
    except OSError as error:
        raise StorageError(f"{path} can't be written ({error.strerror})") from error
