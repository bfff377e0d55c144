"""Finished runs as reports compare them: metrics of folds, predictions of test folds, histories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.mil.fold_metrics import CV_KIND, FOLD_KIND
from jobs.mil.out_of_fold import pooled_metrics
from jobs.mil.predictions import Prediction, read_predictions
from jobs.mil.run_files import PREDICTIONS, TWO_PASS
from jobs.training.history import read_history
from jobs.training.run_files import read_metrics
from store_schema.errors import InputError
from store_schema.labels import some


@dataclass(frozen=True)
class Run:
    """A finished ``mil train`` or ``mil cv``.

    Attributes
    ----------
    path
        Its directory.
    folds
        Metrics of its folds.
    rows
        Predictions of test folds.
    histories
        Fold → epochs, of folds that have any.
    pooled, intervals
        Of ``rows``; empty where there are none.
    """

    path: Path
    folds: Sequence[Mapping[str, Any]]
    rows: Sequence[Prediction]
    histories: Mapping[int, Sequence[Mapping[str, Any]]]
    pooled: Mapping[str, Any]
    intervals: Mapping[str, Mapping[str, float | None]]

    @property
    def finished(self) -> list[Mapping[str, Any]]:
        """Folds that have metrics."""
        return [fold for fold in self.folds if fold["status"] == "finished"]

    @property
    def class_names(self) -> list[str]:
        """Of the task; empty where no fold finished."""
        return list(self.finished[0]["class_names"]) if self.finished else []

    @property
    def slide_ids(self) -> frozenset[str]:
        """Slides (or patients, where these are the bags) of the test folds."""
        return frozenset(row.slide_id for row in self.rows)

    @property
    def n_patients(self) -> int:
        """How many patients the test folds hold."""
        return len({row.patient_id or row.slide_id for row in self.rows})

    @property
    def leaky(self) -> bool:
        """Whether it was trained by the published protocol."""
        return any(fold["leaky"] for fold in self.folds)


def read_run(path: Path, *, resamples: int = 1000, seed: int = 0) -> Run:
    """Read a run.

    Parameters
    ----------
    path
        Its directory.
    resamples, seed
        Of the bootstrap.

    Raises
    ------
    InputError
        The directory holds no finished run of ``mil train`` or ``mil cv``.
    """
    metrics = read_metrics(path)
    kind = None if metrics is None else metrics.get("kind")
    whole = metrics is not None and (kind == FOLD_KIND or metrics.get("folds"))
    if metrics is None or kind not in (FOLD_KIND, CV_KIND) or not whole:
        hint = "name the folder that such a run printed"
        if (path / TWO_PASS).exists():
            hint = "it is one of `mil two-pass`: name pass2 or pass4 in it"
        raise InputError(f"{path} is no finished run of `mil train` or `mil cv`; {hint}.")
    folds = [metrics] if kind == FOLD_KIND else metrics["folds"]
    places = {
        fold["fold"]: path if kind == FOLD_KIND else path / f"fold_{fold['fold']}" for fold in folds
    }
    histories = {fold: read_history(place) for fold, place in places.items()}
    rows: list[Prediction] = []
    if (path / PREDICTIONS).exists():
        rows = [row for row in read_predictions(path / PREDICTIONS).rows if row.split == "test"]
    pooled: dict[str, Any] = {}
    intervals: dict[str, dict[str, float | None]] = {}
    done = [fold for fold in folds if fold["status"] == "finished"]
    if rows and done:
        pooled, intervals = pooled_metrics(
            rows, done[0]["class_names"], done[0]["task"], resamples=resamples, seed=seed
        )
    return Run(path, folds, rows, {f: h for f, h in histories.items() if h}, pooled, intervals)


def other_slides(runs: Sequence[Run]) -> str | None:
    """Say that runs were tested on different slides, so that their numbers don't compare; None if they weren't."""
    common = frozenset.intersection(*(run.slide_ids for run in runs))
    beyond = {run.path.name: sorted(run.slide_ids - common) for run in runs}
    if not any(beyond.values()):
        return None
    listed = "; ".join(
        f"{name} has {len(ids)} others ({some(ids, 3)})" for name, ids in beyond.items() if ids
    )
    return (
        f"The runs were tested on different slides, so that their numbers don't compare directly: {len(common)} are "
        f"common to all; {listed}."
    )
