"""``predictions.csv``: what a model said of each slide, in a table that any program reads."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from store_schema.errors import InputError, StorageError

_PROBABILITY: Final = "probability_"
_COLUMNS: Final = ("slide_id", "patient_id", "label", "predicted", "fold", "split")


@dataclass(frozen=True)
class Prediction:
    """What was said of one slide (or patient, where that was the bag).

    Attributes
    ----------
    slide_id
        The bag.
    probabilities
        One for each class, in the table's order.
    predicted
        Name of the predicted class; of a multi-label task names joined by ``;``, maybe none.
    label
        The truth, spelled in the same way; empty where it isn't known.
    patient_id
        What bootstraps keep together; empty where it isn't known.
    fold
        Which fold's model said it; several, joined by ``+``, where it is their mean; empty outside of a CV.
    split
        ``train``, ``val`` or ``test`` of that model, or empty where the model never met the slide.
    """

    slide_id: str
    probabilities: tuple[float, ...]
    predicted: str
    label: str = ""
    patient_id: str = ""
    fold: str = ""
    split: str = ""


@dataclass(frozen=True)
class Predictions:
    """A table of predictions; ``class_names`` in the order of the probabilities."""

    class_names: tuple[str, ...]
    rows: tuple[Prediction, ...]

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """float64 (slide, class)."""
        shape = (len(self.rows), len(self.class_names))
        return np.array([row.probabilities for row in self.rows], dtype=float).reshape(shape)


def write_predictions(path: Path, class_names: Sequence[str], rows: Iterable[Prediction]) -> None:
    """Write the table: the columns of :class:`Prediction`, and ``probability_<class>`` for each class.

    Probabilities are written so that they are read back as the same numbers.

    Raises
    ------
    StorageError
        The file can't be written.
    """
    header = (*_COLUMNS, *(f"{_PROBABILITY}{name}" for name in class_names))
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for row in rows:
                fields = (getattr(row, column) for column in _COLUMNS)
                writer.writerow([*fields, *(repr(float(p)) for p in row.probabilities)])
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}") from error


def read_predictions(path: Path) -> Predictions:
    """Read such a table, ours or anybody's with the columns ``slide_id`` and ``probability_<class>``.

    Raises
    ------
    InputError
        The file can't be read, or lacks columns, or a probability is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns, found = tuple(table.fieldnames or ()), list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the predictions {path} can't be read: {error}") from error
    classes = tuple(
        name.removeprefix(_PROBABILITY) for name in columns if name.startswith(_PROBABILITY)
    )
    if "slide_id" not in columns or not classes:
        raise InputError(
            f"the predictions {path} need the columns slide_id and {_PROBABILITY}<class> for each class"
        )
    rows = []
    for line, row in enumerate(found, start=2):
        try:
            values = tuple(float(row[f"{_PROBABILITY}{name}"] or "") for name in classes)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}, line {line}: a probability is missing or no number"
            ) from error
        text = {column: row.get(column) or "" for column in _COLUMNS}
        predicted = text.pop("predicted") or classes[int(np.argmax(values))]
        rows.append(Prediction(probabilities=values, predicted=predicted, **text))
    return Predictions(classes, tuple(rows))


def predicted_name(
    probabilities: npt.NDArray[np.floating],
    class_names: Sequence[str],
    *,
    multilabel: bool,
    threshold: float | None,
) -> str:
    """Name what probabilities come to.

    Parameters
    ----------
    probabilities
        (class,).
    class_names
        In the same order.
    multilabel
        Whether each class is decided by itself, at ``threshold`` (0.5 without one).
    threshold
        Of the second class where there are two; otherwise, or without one, the likeliest class is predicted.
    """
    if multilabel:
        limit = 0.5 if threshold is None else threshold
        chosen = (n for n, p in zip(class_names, probabilities, strict=True) if p >= limit)
        return ";".join(chosen)
    if len(class_names) == 2 and threshold is not None:
        return class_names[int(probabilities[1] >= threshold)]
    return class_names[int(np.argmax(probabilities))]
