"""From settings to bags: labels, features, splits, and the three sources of a fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.mil.bag_sources import StoreBags, StoreCohort, open_cohort
from jobs.mil.config import BagSettings, MilConfig, SplitSettings
from jobs.mil.labels import LabelTable, read_label_table
from jobs.mil.run_labels import labels_digest
from jobs.mil.splits import Split, make_folds, read_splits
from jobs.mil.table_bags import TableBags, TableCohort, read_table_bags
from jobs.run_config import absolute_url
from store_schema.errors import InputError


@dataclass(frozen=True)
class Cohort:
    """All bags that a training may use.

    Attributes
    ----------
    bags
        With features and label.
    labels
        Every label that was given.
    digest
        Of the table of labels, or of bags.
    """

    bags: StoreCohort | TableCohort
    labels: LabelTable
    digest: str

    @property
    def features(self) -> dict[str, str | None]:
        """Name, grid and fingerprint of the features."""
        if isinstance(self.bags, TableCohort):
            return {"name": None, "grid": None, "fingerprint": self.bags.features_fingerprint}
        return {
            "name": self.bags.features,
            "grid": self.bags.grid,
            "fingerprint": self.bags.features_fingerprint,
        }

    @property
    def counts(self) -> dict[str, Any]:
        """What was merged, and what was left out."""
        store = self.bags if isinstance(self.bags, StoreCohort) else None
        return {
            "labels_merged": self.labels.merged,
            "slides_without_features": list(store.without_features) if store else [],
            "features_without_labels": list(store.without_labels) if store else [],
            "empty_bags": list(store.empty) if store else [],
        }

    def inputs(self) -> dict[str, Any]:
        """Return what a run must find again to go on."""
        return {"labels": self.digest, "features": self.features}


def open_bags(settings: BagSettings) -> Cohort:
    """Read labels and find features.

    Raises
    ------
    InputError
        Options contradict, or the label table makes no sense, or has one class only.
    StoreError
        The store has no such features, or they are not complete.
    """
    if settings.bags_csv is not None:
        given = {
            "--store": settings.store, "--labels": settings.labels, "--features": settings.features,
            "--grid": settings.grid, "--selection": settings.selection,
        }  # fmt: skip
        for option, value in given.items():
            if value is not None:
                raise InputError(
                    f"{option} and --bags-csv exclude each other: a table has its own bags."
                )
        if settings.bag_level == "patient":
            raise InputError("--bag-level patient needs a store: a table of bags has no patients.")
        table_cohort = read_table_bags(settings.bags_csv)
        table_cohort.table.require_two_classes()
        return Cohort(table_cohort, table_cohort.table, table_cohort.features_fingerprint)
    if settings.store is None or settings.labels is None:
        raise InputError("Name where bags come from: --store and --labels, or --bags-csv.")
    labels = read_label_table(settings.labels)
    labels.require_two_classes()
    bags = open_cohort(
        absolute_url(settings.store),
        labels,
        features=settings.features,
        grid=settings.grid,
        selection=settings.selection,
        allow_incomplete=settings.allow_incomplete,
    )
    bags.table.require_two_classes()
    return Cohort(bags, labels, labels_digest(Path(settings.labels)))


def make_splits(settings: SplitSettings, cohort: Cohort, seed: int) -> list[Split]:
    """Return one split a fold: of the files, or drawn by patient.

    Raises
    ------
    InputError
        A file makes no sense, or there are too few patients.
    """
    if not settings.files:
        return make_folds(
            cohort.bags.table,
            settings.folds,
            repeats=settings.repeats,
            seed=seed,
            val_fraction=settings.val_fraction,
        )
    # against all labels: a slide without features is no mistake of the file
    known = cohort.bags.table.slide_ids
    return [read_splits(path, cohort.labels).take(known) for path in settings.files]


@dataclass(frozen=True)
class FoldBags:
    """The sources of one fold.

    Attributes
    ----------
    train, val, test
        Bags; of the published protocol ``val`` is the test fold, and its validation bags train. ``test`` is None
        where the split has none.
    """

    train: StoreBags | TableBags
    val: StoreBags | TableBags
    test: StoreBags | TableBags | None


def fold_bags(config: MilConfig, cohort: Cohort, split: Split) -> FoldBags:
    """Return the bags of a fold.

    Raises
    ------
    InputError
        A part is empty, or the training part lacks a class.
    """
    train_ids: Sequence[str] = split.train
    val_ids: Sequence[str] = split.val
    if config.leaky:
        if not split.test:
            raise InputError("--protocol published needs a test fold: fill the column test.")
        train_ids, val_ids = (*split.train, *split.val), split.test
    if not val_ids:
        raise InputError(
            "The split has no validation slides, and epoch and threshold are chosen on them: "
            "fill the column val."
        )
    level, names = config.bags.bag_level, cohort.labels.class_names
    train = cohort.bags.bags(train_ids, level)
    val = cohort.bags.bags(val_ids, level)
    test = cohort.bags.bags(split.test, level) if split.test else None
    targets = train.targets
    for number, name in enumerate(names):
        here = targets[:, number] if targets.ndim == 2 else targets == number
        if not here.any():
            raise InputError(
                f"The training part of the split has no bag of class {name}, so it can't be learned: "
                "split otherwise, or take the class out of the labels."
            )
    return FoldBags(train, val, test)
