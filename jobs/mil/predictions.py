"""``predictions.csv``: what a model said of each slide, in a table that any program reads."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from store_schema.errors import InputError, StorageError

if TYPE_CHECKING:
    from models.slide_model import TaskKind

_PROBABILITY: Final = "probability_"
_SUM_TOLERANCE: Final = 1e-3  # of probabilities that exclude each other
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

    @property
    def task(self) -> TaskKind:
        """The task, told by the probabilities: those of classes that exclude each other sum to 1."""
        off = np.abs(self.probabilities.sum(axis=1) - 1)
        return "multiclass" if bool(np.all(off < _SUM_TOLERANCE)) else "multilabel"


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
        The file can't be read, or lacks columns, a slide or a probability, or has one twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns, found = tuple(table.fieldnames or ()), list(table)
    except OSError as error:
        raise InputError(
            f"the predictions {path} can't be read ({error.strerror}): check the path, or finish the run"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the predictions {path} can't be read as CSV ({error}): save them as UTF-8"
        ) from error
    classes = tuple(
        name.removeprefix(_PROBABILITY) for name in columns if name.startswith(_PROBABILITY)
    )
    if "slide_id" not in columns or not classes or len(set(columns)) < len(columns):
        raise InputError(
            f"the predictions {path} need the columns slide_id and {_PROBABILITY}<class> for each class, each once"
        )
    rows: dict[tuple[str, str, str], Prediction] = {}
    for line, row in enumerate(found, start=2):
        try:
            values = tuple(float(row[f"{_PROBABILITY}{name}"] or "") for name in classes)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}, line {line}: a probability is missing or no number; check the line"
            ) from error
        if not all(0 <= value <= 1 for value in values):
            raise InputError(
                f"{path}, line {line}: a probability is not within 0 to 1; check the line"
            )
        text = {column: (row.get(column) or "").strip() for column in _COLUMNS}
        key = text["slide_id"], text["fold"], text["split"]
        if not text["slide_id"] or key in rows:
            what = f"slide {text['slide_id']} is there twice" if text["slide_id"] else "no slide"
            raise InputError(f"{path}, line {line}: {what}; give one line a slide and fold")
        rows[key] = Prediction(probabilities=values, **text)
    read = Predictions(classes, tuple(rows.values()))
    return Predictions(classes, tuple(_decided(row, read) for row in read.rows))


def _decided(row: Prediction, table: Predictions) -> Prediction:
    """Fill in what a row predicts where it doesn't say; of a multi-label task that may be no class at all."""
    if row.predicted:
        return row
    said = predicted_name(
        np.array(row.probabilities),
        table.class_names,
        multilabel=table.task == "multilabel",
        threshold=None,
    )
    return replace(row, predicted=said)


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
