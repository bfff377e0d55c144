"""``mil score``: what trained slide models say of slides and tiles, written beside the features they were read from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from jobs.mil.bag_sources import BagPart, StoreBags
from jobs.mil.ensemble import Judgement, judges_of, mean_of_runs
from jobs.mil.labels import LabelTable, read_label_table
from jobs.mil.predictions import Prediction, predicted_name
from jobs.mil.score_inputs import ScoreSettings, check_features, left_out, scored_cohort
from jobs.mil.slide_scores import score_arrays, score_values
from jobs.mil.trained import TrainedFold, check_alike
from jobs.score_reader import CLASS_NAMES
from models.determinism import repeatable, resolve_device
from models.predict import predict_bags
from models.prefetch import prefetched
from store_schema import names
from store_schema.errors import (
    InputError,
    NotInStoreError,
    SettingsConflictError,
    SlidestreamError,
)
from store_schema.labels import SEPARATOR
from store_schema.predictions import PREDICTION
from store_schema.specs import fingerprint
from store_schema.store import Store

# Raised when the same models and features give other scores.
SCORE_VERSION: Final = 1


@dataclass
class ScoreReport:
    """What came of it.

    Attributes
    ----------
    class_names
        In the order of probabilities.
    predictions
        Slide by slide.
    written, found
        Slides that were scored now, and that had just these scores already.
    failed
        Slide id → why it could not be scored.
    notes
        What was left out, in sentences.
    """

    class_names: tuple[str, ...]
    predictions: list[Prediction] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def score_slides(
    store: Store,
    runs: Sequence[Sequence[TrainedFold]],
    settings: ScoreSettings,
    done: Callable[[int, int], None] = lambda _, __: None,
) -> ScoreReport:
    """Judge whole slides in eval mode and write what was said; a slide that can't be scored stops no other.

    A slide that was in a test fold of a run is judged by that fold's model only, one that the run never tested by the
    mean of its models; several runs are averaged. Slides that have the same scores already are left alone.

    Parameters
    ----------
    store
        Opened for writing.
    runs
        Models, run by run, of :func:`jobs.mil.trained.load_trained`.
    settings
        The rest.
    done
        Is told after each bag: how many are judged, of how many.

    Raises
    ------
    InputError
        The runs don't fit each other, or the features are others than the models were trained on.
    IncompleteError
        Features aren't complete, unless that is allowed.
    NotInStoreError
        A named slide has no such features.
    SettingsConflictError
        There are scores of that name that were made otherwise.
    """
    folds = [fold for run in runs for fold in run]
    check_alike(folds)
    first = folds[0]
    labels = None
    if settings.labels is not None:
        labels = read_label_table(settings.labels)
    elif first.bag_level == "patient":
        raise InputError(
            f"{first.directory} judges patients: give --labels with the columns slide_id, label, patient_id"
        )
    cohort = scored_cohort(store, first, settings, labels)
    check_features(cohort, first)
    bags = cohort.bags(cohort.table.slide_ids, first.bag_level)
    report = ScoreReport(first.class_names, notes=left_out(cohort, first))
    device = resolve_device(settings.device)
    todo = [i for i in range(len(bags)) if not _is_there(bags, i, runs, settings, labels, report)]
    with repeatable(device, settings.threads):
        loaded = prefetched(todo, lambda i: _load(bags, i))
        for n_done, (index, features) in enumerate(zip(todo, loaded, strict=True), start=1):
            try:
                if isinstance(features, SlidestreamError):
                    raise features
                _score(bags, index, features, runs, settings, labels, device, report)
            except SlidestreamError as error:
                if error.fatal or isinstance(error, SettingsConflictError):
                    raise  # it would be the same with all others
                report.failed.update({part.slide_id: str(error) for part in bags.parts(index)})
            done(n_done, len(todo))
    report.predictions.sort(key=lambda row: row.slide_id)
    return report


def _load(bags: StoreBags, index: int) -> npt.NDArray[np.floating] | SlidestreamError:
    """Read a bag; an error is handed on as a value, so that reading ahead goes on."""
    try:
        return bags.load(index)
    except SlidestreamError as error:
        return error


@dataclass(frozen=True)
class _OneBag:
    """A bag in memory, so that several models judge it after one reading."""

    ids: tuple[str]
    features: npt.NDArray[np.floating]
    targets: npt.NDArray[np.int64]
    groups: tuple[str]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.array([len(self.features)])

    @property
    def n_features(self) -> int:
        return int(self.features.shape[1])

    def load(
        self, index: int, tiles: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.floating]:
        return self.features if tiles is None else self.features[tiles]


def _judges(
    bags: StoreBags, index: int, runs: Sequence[Sequence[TrainedFold]]
) -> list[list[TrainedFold]]:
    slide_ids = [part.slide_id for part in bags.parts(index)]
    return [judges_of(run, slide_ids) for run in runs]


def _score(
    bags: StoreBags,
    index: int,
    features: npt.NDArray[np.floating],
    runs: Sequence[Sequence[TrainedFold]],
    settings: ScoreSettings,
    labels: LabelTable | None,
    device: torch.device,
    report: ScoreReport,
) -> None:
    """Judge a bag, and write what was said of each of its slides."""
    judges = _judges(bags, index, runs)
    bag = _OneBag((bags.ids[index],), features, np.zeros(1, np.int64), (bags.groups[index],))
    said = [
        [
            next(
                iter(
                    predict_bags(
                        fold.model, bag, fold.task, l2_normalize=fold.description["l2_normalize"],
                        device=device, amp=bool(fold.description.get("amp", False)),
                    )
                )
            )
            for fold in run
        ]
        for run in judges
    ]  # fmt: skip
    judgement = mean_of_runs(judges, said)
    prediction = _prediction(bags, index, judges, judgement)
    level = judges[0][0].bag_level
    arrays = score_arrays(judgement, judges[0][0].class_names, level)
    for part in bags.parts(index):
        group = part.bag.slide.create_tile_group(
            part.bag.grid,
            names.SCORES,
            settings.name,
            arrays,
            _provenance(bags, index, part, judges),
            extra={PREDICTION: prediction},
            overwrite=settings.overwrite,
        )
        values = score_values(judgement, part.span, part.tile_index, group.n_tiles)
        for block in group.missing_blocks():
            span = group.block_slice(block)
            group.write_block(block, {name: array[span] for name, array in values.items()})
        report.written.append(part.slide_id)
        report.predictions.append(_row(part.slide_id, prediction, labels))


def _is_there(
    bags: StoreBags,
    index: int,
    runs: Sequence[Sequence[TrainedFold]],
    settings: ScoreSettings,
    labels: LabelTable | None,
    report: ScoreReport,
) -> bool:
    """Tell whether all slides of a bag have just these scores, whole and sound; if so, report what they say."""
    judges = _judges(bags, index, runs)
    rows = []
    for part in bags.parts(index):
        try:
            group = part.bag.slide.block_group(part.bag.grid, names.SCORES, settings.name)
        except NotInStoreError:
            return False
        same = fingerprint(_provenance(bags, index, part, judges)) == group.attrs[names.FINGERPRINT]
        if not same or group.missing_blocks():
            return False
        rows.append(_row(part.slide_id, group.attrs[names.EXTRA][PREDICTION], labels))
    report.predictions.extend(rows)
    report.found.extend(row.slide_id for row in rows)
    return True


def _provenance(
    bags: StoreBags, index: int, part: BagPart, judges: Sequence[Sequence[TrainedFold]]
) -> dict[str, Any]:
    """Return what decides a slide's scores: models, features, and what else was in the bag."""
    slide, group = part.bag.slide, part.bag.group
    others = {p.slide_id: p.bag.group.attrs[names.FINGERPRINT] for p in bags.parts(index)}
    made_by: dict[str, Any] = {
        "slide": slide.record.fingerprint,
        names.GRID_MADE_BY: slide.grid_attrs(part.bag.grid)[names.FINGERPRINT],
        "features": {
            "name": group.path.rpartition("/")[2],
            "fingerprint": group.attrs[names.FINGERPRINT],
        },
        "selection": None,
        "models": [[fold.provenance for fold in run] for run in judges],
        "score_version": SCORE_VERSION,
    }
    if judges[0][0].bag_level == "patient":
        made_by["bag"] = {"patient": bags.ids[index], "slides": others}
    if part.bag.partial:
        made_by["tiles"] = {"judged": len(part.bag), "of": group.n_tiles}
    return made_by


def _prediction(
    bags: StoreBags, index: int, judges: Sequence[Sequence[TrainedFold]], judgement: Judgement
) -> dict[str, Any]:
    """Return what was said of the whole bag, JSON-able."""
    first = judges[0][0]
    slide_ids = [part.slide_id for part in bags.parts(index)]
    parts = {fold.part_of(slide_ids) for run in judges for fold in run}
    return {
        "bag": bags.ids[index],
        CLASS_NAMES: list(first.class_names),
        "task": first.task,
        "probabilities": [float(p) for p in judgement.probabilities],
        "predicted": predicted_name(
            judgement.probabilities.astype(float),
            first.class_names,
            multilabel=first.task == "multilabel",
            threshold=judgement.threshold,
        ),
        "threshold": judgement.threshold,
        "folds": [[fold.fold for fold in run] for run in judges],
        # what any of the models learned from makes the whole prediction one of what was learned
        "split": next((part for part in ("train", "val", "test") if part in parts), ""),
        "leaky": any(fold.leaky for run in judges for fold in run),
    }


def _row(slide_id: str, prediction: dict[str, Any], labels: LabelTable | None) -> Prediction:
    row = None if labels is None else labels.rows.get(slide_id)
    label = patient = ""
    if labels is not None and row is not None:
        label = SEPARATOR.join(labels.class_names[c] for c in labels.labels[row])
        patient = labels.patient_ids[row]
    return Prediction(
        slide_id,
        tuple(prediction["probabilities"]),
        prediction["predicted"],
        label,
        patient,
        " ".join("+".join(folds) for folds in prediction["folds"]),
        prediction["split"],
    )
