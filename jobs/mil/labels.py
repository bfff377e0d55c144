"""What slides are labelled as: classes, patients, targets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from models.slide_model import TaskKind
from store_schema.errors import InputError
from store_schema.labels import SEPARATOR, LabelRow, read_label_rows, some

Targets = npt.NDArray[np.int64] | npt.NDArray[np.float32]

# names that say "nothing found": of two classes such a one comes first, whatever the alphabet says
NEGATIVE_NAMES = frozenset(
    ("benign", "control", "false", "healthy", "negative", "no", "none", "normal", "wildtype", "wt")
)


@dataclass(frozen=True)
class LabelTable:
    """Labelled slides.

    Attributes
    ----------
    task
        One class a slide, or any number of them.
    class_names
        In the order of logits; of a task with two classes the last is the positive one.
    slide_ids
        Unique, sorted.
    labels
        Classes of each slide, as positions in ``class_names``; one each in a multi-class task.
    patient_ids
        Patient of each slide; where the table names none, each slide is a patient of its own.
    merged
        Lines that repeated another.
    """

    task: TaskKind
    class_names: tuple[str, ...]
    slide_ids: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    patient_ids: tuple[str, ...]
    merged: int = 0

    def __len__(self) -> int:
        return len(self.slide_ids)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Slide id → position."""
        return {slide_id: row for row, slide_id in enumerate(self.slide_ids)}

    @property
    def targets(self) -> Targets:
        """int64 (slide,) classes, or float32 (slide, class) of a multi-label task."""
        return targets_of(self.labels, len(self.class_names), self.task)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64 (class,), slides of each class."""
        flat = np.array([c for classes in self.labels for c in classes], dtype=np.int64)
        return np.bincount(flat, minlength=len(self.class_names)).astype(np.int64)

    def take(self, slide_ids: Iterable[str]) -> LabelTable:
        """Return the table of some of the slides; those that it doesn't hold are left out."""
        wanted = set(slide_ids)
        rows = [row for row, slide_id in enumerate(self.slide_ids) if slide_id in wanted]
        return LabelTable(
            self.task,
            self.class_names,
            tuple(self.slide_ids[row] for row in rows),
            tuple(self.labels[row] for row in rows),
            tuple(self.patient_ids[row] for row in rows),
            self.merged,
        )

    def require_two_classes(self) -> None:
        """Raise InputError unless not all slides are labelled alike."""
        kinds = sorted(set(self.labels))
        if len(kinds) > 1:
            return
        name = SEPARATOR.join(self.class_names[c] for c in kinds[0]) if kinds else ""
        raise InputError(
            f"all {len(self)} slides have the label {name!r}: a model needs slides of at least two classes"
            if self.slide_ids
            else "no slide has a label: add slides to the table of labels"
        )


def targets_of(labels: Sequence[Sequence[int]], n_classes: int, task: TaskKind) -> Targets:
    """Return int64 (bag,) classes, or float32 (bag, class) of a multi-label task."""
    if task == "multiclass":
        return np.array([classes[0] for classes in labels], dtype=np.int64)
    targets = np.zeros((len(labels), n_classes), np.float32)
    for row, classes in enumerate(labels):
        targets[row, list(classes)] = 1.0
    return targets


def read_label_table(
    path: str | os.PathLike[str],
    *,
    task: TaskKind | None = None,
    class_names: Sequence[str] | None = None,
) -> LabelTable:
    """Read a table of labels.

    Parameters
    ----------
    path
        A CSV with the columns ``slide_id,label[,patient_id]``; several classes of a slide are separated by
        semicolons, and a slide of a multi-label task may have none.
    task
        None: multi-label where a label has a semicolon in it, multi-class otherwise.
    class_names
        The classes in their order, e.g. a model's; None sorts them: whole numbers by value, other names by the
        alphabet, but of two classes one that says "nothing" (normal, negative, benign …) comes first.

    Raises
    ------
    InputError
        If the file can't be read, lacks columns or labels, gives a slide two labels or patients, or has a class
        that ``class_names`` doesn't.
    """
    rows, merged = read_label_rows(path)
    if task is None:
        task = "multilabel" if any(SEPARATOR in row.label for row in rows) else "multiclass"
    rows.sort(key=lambda row: row.slide_id)
    classes = [row.label.split(SEPARATOR) if row.label else [] for row in rows]
    _check_counts(path, rows, classes, task)
    found = {name for named in classes for name in named}
    names = tuple(class_names) if class_names is not None else tuple(sorted_classes(found))
    _check_spelling(path, found)
    unknown = sorted(found - set(names))
    if unknown or len(set(names)) < len(names):
        raise InputError(
            f"labels {path} have the classes {some(sorted(found), 8)}, and the classes are to be "
            f"{some(names, 8)}: name each class of the table once"
        )
    numbers = {name: number for number, name in enumerate(names)}
    return LabelTable(
        task,
        names,
        tuple(row.slide_id for row in rows),
        tuple(tuple(sorted(numbers[name] for name in named)) for named in classes),
        tuple(row.patient_id or row.slide_id for row in rows),
        merged,
    )


def sorted_classes(found: Iterable[str]) -> list[str]:
    """Return class names in the order of :func:`read_label_table`."""
    names = sorted(found)
    if all(_is_whole(name) for name in names):
        return sorted(names, key=int)
    if len(names) == 2:
        return sorted(names, key=lambda name: (name.casefold() not in NEGATIVE_NAMES, name))
    return names


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _check_spelling(path: str | os.PathLike[str], found: Iterable[str]) -> None:
    """Refuse numbers that are written in two ways: 1 and 1.0 would be two classes."""
    spelled: dict[float, str] = {}
    for name in sorted(found):
        try:
            number = float(name)
        except ValueError:
            continue
        other = spelled.setdefault(number, name)
        if other != name:
            raise InputError(
                f"labels {path} have the classes {other} and {name}, which are the same number: write it in one way"
            )


def _check_counts(
    path: str | os.PathLike[str],
    rows: Sequence[LabelRow],
    classes: Sequence[Sequence[str]],
    task: TaskKind,
) -> None:
    if task == "multilabel":
        return
    several = [row.slide_id for row, named in zip(rows, classes, strict=True) if len(named) > 1]
    if several:
        raise InputError(
            f"labels {path} give {some(several)} several classes: only a multi-label task takes that"
        )
    none = [row.slide_id for row, named in zip(rows, classes, strict=True) if not named]
    if none:
        raise InputError(
            f"labels {path} give {len(none)} slides no label ({some(none)}): label them or remove the lines"
        )


def negative_class(class_names: Sequence[str]) -> int:
    """Return which of two classes is what a truth calls negative.

    The first, unless only the second one's name says "nothing found": normal, benign …
    """
    return 1 if [name.casefold() in NEGATIVE_NAMES for name in class_names] == [False, True] else 0
