"""How well slides were predicted, with intervals that keep the slides of a patient together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from jobs.mil.labels import LabelTable, read_label_table
from jobs.mil.out_of_fold import pooled_metrics
from jobs.mil.predictions import Prediction, Predictions, predicted_name, read_predictions
from jobs.mil.run_files import PREDICTIONS
from jobs.score_reader import CLASS_NAMES, ScoreChoice, scored_grid, scored_slides
from models.slide_model import TaskKind
from store_schema import names
from store_schema.errors import InputError
from store_schema.labels import SEPARATOR
from store_schema.predictions import PREDICTION
from store_schema.store import Store

SplitChoice: TypeAlias = Literal["test", "val", "train", "all"]


@dataclass(frozen=True)
class SlideEvaluation:
    """What came of it.

    Attributes
    ----------
    class_names, task
        Of the predictions.
    metrics
        Of :func:`models.metrics.classification_metrics`. Decisions (F1, accuracy …) are judged as they were made,
        each at its model's own threshold, unless a threshold was given.
    intervals
        Metric → low, high: 95 %, by drawing patients.
    n_patients
        That were drawn from.
    without_label
        Slides that were predicted but have no label.
    without_prediction
        Labelled slides that were not predicted.
    other_splits
        Predictions left out because they are of slides that the model learned from, or the other way round.
    """

    class_names: tuple[str, ...]
    task: TaskKind
    metrics: dict[str, Any]
    intervals: dict[str, dict[str, float | None]]
    n_patients: int
    without_label: tuple[str, ...]
    without_prediction: tuple[str, ...]
    other_splits: int


def predictions_of_run(run_dir: Path) -> Predictions:
    """Read the predictions that a run of ours left."""
    return read_predictions(run_dir / PREDICTIONS)


def predictions_of_scores(
    store: Store, choice: ScoreChoice, slide_ids: Sequence[str]
) -> Predictions:
    """Return what a score run predicted of slides.

    Raises
    ------
    NotInStoreError
        No slide has the run, or a named one hasn't.
    InputError
        The run predicts nothing of whole slides.
    """
    class_names: tuple[str, ...] = ()
    rows = []
    for slide in scored_slides(store, choice, slide_ids):
        grid = scored_grid(slide, choice)
        extra = {} if grid is None else slide.run_attrs(grid, names.SCORES, choice.run)[names.EXTRA]
        said = extra.get(PREDICTION)
        if said is None:
            raise InputError(
                f"scores {choice.run} of slide {slide.slide_id} predict no slides, only those of `mil score` do: give "
                "--truth to judge tiles by it"
            )
        if class_names and tuple(said[CLASS_NAMES]) != class_names:
            raise InputError(
                f"scores {choice.run} predict other classes of slide {slide.slide_id} than of others: score all by "
                "the same models"
            )
        class_names = tuple(said[CLASS_NAMES])
        rows.append(
            Prediction(
                slide.slide_id, tuple(said["probabilities"]), said["predicted"], split=said["split"]
            )
        )
    return Predictions(class_names, tuple(rows))


def says_of_slides(store: Store, choice: ScoreChoice, slide_ids: Sequence[str]) -> bool:
    """Tell whether a score run predicts whole slides, as those of ``mil score`` do."""
    first = scored_slides(store, choice, slide_ids)[0]
    grid = scored_grid(first, choice)
    return grid is not None and PREDICTION in first.run_attrs(grid, names.SCORES, choice.run).get(
        names.EXTRA, {}
    )


def evaluate_slides(
    predictions: Predictions,
    labels: Path | None,
    *,
    split: SplitChoice = "test",
    threshold: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> SlideEvaluation:
    """Judge predictions of slides.

    Parameters
    ----------
    predictions
        What was said.
    labels
        Table of labels and patients; None takes what the predictions say themselves.
    split
        Which predictions: ``test`` are those of slides that the models never met.
    threshold
        Decide anew at this probability of the positive class; None judges the decisions as they were made.
    resamples, seed
        Of the bootstrap.

    Raises
    ------
    InputError
        There is nothing to judge, or the table of labels makes no sense or has other classes.
    """
    task = predictions.task
    kept = [row for row in predictions.rows if split in ("all", row.split or "test")]
    without_label: list[str] = []
    unpredicted: set[str] = set()
    if labels is not None:
        table = read_label_table(labels, task=task, class_names=predictions.class_names)
        without_label = [row.slide_id for row in kept if row.slide_id not in table.rows]
        unpredicted = set(table.slide_ids) - {row.slide_id for row in predictions.rows}
        kept = [_labelled(row, table) for row in kept if row.slide_id in table.rows]
    elif task == "multiclass":
        without_label = [row.slide_id for row in kept if not row.label]
        kept = [row for row in kept if row.label]
    if not kept:
        raise InputError(
            f"none of the {len(predictions.rows)} predictions is of a labelled {split} slide: check --labels and "
            "--split"
        )
    if threshold is not None:
        kept = [_decided(row, predictions.class_names, task, threshold) for row in kept]
    metrics, intervals = pooled_metrics(
        kept, predictions.class_names, task, resamples=resamples, seed=seed
    )
    return SlideEvaluation(
        predictions.class_names,
        task,
        {**metrics, "threshold": threshold},
        intervals,
        len({row.patient_id or row.slide_id for row in kept}),
        tuple(without_label),
        tuple(sorted(unpredicted)),
        len(predictions.rows) - len(kept) - len(without_label),
    )


def _labelled(row: Prediction, table: LabelTable) -> Prediction:
    number = table.rows[row.slide_id]
    label = SEPARATOR.join(table.class_names[c] for c in table.labels[number])
    return replace(row, label=label, patient_id=table.patient_ids[number])


def _decided(
    row: Prediction, class_names: Sequence[str], task: TaskKind, threshold: float
) -> Prediction:
    predicted = predicted_name(
        np.array(row.probabilities),
        class_names,
        multilabel=task == "multilabel",
        threshold=threshold,
    )
    return replace(row, predicted=predicted)
