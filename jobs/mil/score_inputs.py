"""What is scored: slides of a store whose features are those that the models were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.mil.bag_sources import StoreCohort, made_by_fingerprint, open_cohort
from jobs.mil.labels import LabelTable
from jobs.mil.trained import TrainedFold
from store_schema.errors import InputError, NotInStoreError
from store_schema.labels import some
from store_schema.store import Store


@dataclass(frozen=True)
class ScoreSettings:
    """What is scored, and where it goes.

    Attributes
    ----------
    name
        Of the score group.
    features, grid
        None takes those that the models were trained on.
    slides
        Only these; empty takes all that have the features.
    labels
        Table of labels and patients; needed where a bag is a patient.
    allow_incomplete
        Score slides whose features aren't complete; tiles without features get NaN.
    overwrite
        Replace scores of that name that were made otherwise.
    device, threads
        Where models run, and on how many CPU threads: the last bits depend on it.
    """

    name: str
    features: str | None = None
    grid: str | None = None
    slides: tuple[str, ...] = ()
    labels: Path | None = None
    allow_incomplete: bool = False
    overwrite: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1


def scored_cohort(
    store: Store, trained: TrainedFold, settings: ScoreSettings, labels: LabelTable | None
) -> StoreCohort:
    """Find the features of the slides to score; what they are labelled as doesn't matter here.

    Parameters
    ----------
    store
        The store.
    trained
        One of the models.
    settings
        What to score; of a patient that has a named slide, all slides are taken.
    labels
        Says which patient a slide is of; without it, and where it doesn't say, each slide is a patient of its own.

    Raises
    ------
    InputError
        No features are named, or they differ in width.
    NotInStoreError
        There are no such features, or a named slide hasn't any.
    IncompleteError
        Features aren't complete, unless that is allowed.
    """
    features = settings.features or trained.features.get("name")
    grid = settings.grid or trained.features.get("grid")
    if features is None:
        raise InputError(
            f"{trained.directory} was trained on a table of bags: name the store's features with --features"
        )
    wanted = [store[slide_id].slide_id for slide_id in settings.slides] or store.slides
    patients = (
        {} if labels is None else dict(zip(labels.slide_ids, labels.patient_ids, strict=True))
    )
    if trained.bag_level == "patient":
        whole = {patients.get(slide_id, slide_id) for slide_id in wanted}
        wanted = [
            slide_id for slide_id in store.slides if patients.get(slide_id, slide_id) in whole
        ]
    ids = tuple(sorted(set(wanted)))
    table = LabelTable(
        trained.task, trained.class_names, ids, ((0,),) * len(ids),
        tuple(patients.get(slide_id, slide_id) for slide_id in ids),
    )  # fmt: skip
    cohort = open_cohort(
        store.url, table, features=features, grid=grid, allow_incomplete=settings.allow_incomplete
    )
    lacking = sorted(set(settings.slides) & set(cohort.without_features))
    if lacking:
        raise NotInStoreError(
            f"{len(lacking)} of the named slides have no features {features} ({some(lacking)}): encode them first"
        )
    return cohort


def check_features(cohort: StoreCohort, trained: TrainedFold) -> None:
    """Check that features were made as those were that the models learned from.

    Raises
    ------
    InputError
        They were made otherwise, or have another width; says which.
    """
    wanted = trained.features.get("fingerprint")
    if wanted is not None:
        others = [
            slide_id
            for slide_id in cohort.table.slide_ids
            if made_by_fingerprint(cohort.slides[slide_id]) != wanted
        ]
        if others:
            raise InputError(
                f"the features {cohort.features} of {len(others)} slides ({some(others)}) were made otherwise "
                f"(encoder, weights, stain …) than those that {trained.directory} was trained on: encode the slides "
                "in the same way, or name other features with --features"
            )
    n_features = trained.model.config.n_features
    width = cohort.bags(cohort.table.slide_ids).n_features
    if width != n_features:
        raise InputError(
            f"the features {cohort.features} have {width} numbers a tile, and {trained.directory} takes "
            f"{n_features}: name the features that it was trained on with --features"
        )


def left_out(cohort: StoreCohort, trained: TrainedFold) -> list[str]:
    """Say which slides are left out, and what is wrong with the models, in sentences."""
    notes = []
    if cohort.without_features:
        ids = cohort.without_features
        notes.append(f"{len(ids)} slides have no features {cohort.features}: {some(ids)}")
    if cohort.empty:
        notes.append(f"{len(cohort.empty)} slides have no tiles: {some(cohort.empty)}")
    notes += cohort.partial_notes()
    if trained.leaky:
        notes.append(
            f"LEAKY: epoch and threshold of {trained.directory} were chosen on its test slides"
        )
    return notes
