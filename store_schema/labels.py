"""Label tables: CSV files with the columns ``slide_id,label[,patient_id]``, and how they are read."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from store_schema.errors import InputError

Label: TypeAlias = str | int | float
Labels: TypeAlias = str | os.PathLike[str] | Mapping[str, Label]

SLIDE_ID, LABEL, PATIENT_ID = "slide_id", "label", "patient_id"
SEPARATOR = ";"  # between the classes of a slide that has several
_SHOWN = 3


@dataclass(frozen=True)
class LabelRow:
    """What a table says of one slide; ``patient_id`` is None where it says nothing."""

    slide_id: str
    label: str
    patient_id: str | None = None


def read_label_rows(path: str | os.PathLike[str]) -> tuple[list[LabelRow], int]:
    """Read a table of labels.

    Parameters
    ----------
    path
        A CSV in UTF-8; columns other than ``slide_id``, ``label`` and ``patient_id`` are not looked at.

    Returns
    -------
    rows
        One a slide, in the order of the file.
    merged
        Number of lines that repeated a slide with the same label and patient.

    Raises
    ------
    InputError
        If the file can't be read, lacks a column or a value, or gives slides two labels or two patients.
    """
    found: dict[str, LabelRow] = {}
    labels: dict[str, set[str]] = {}
    patients: dict[str, set[str]] = {}
    read = _rows(Path(path))
    for row in read:
        found.setdefault(row.slide_id, row)
        labels.setdefault(row.slide_id, set()).add(row.label)
        patients.setdefault(row.slide_id, set()).add(row.patient_id or "")
    for what, values in (("labels", labels), ("patients", patients)):
        conflicts = [
            f"{slide_id} ({', '.join(sorted(said))})"
            for slide_id, said in values.items()
            if len(said) > 1
        ]
        if conflicts:
            raise InputError(
                f"labels {path} give {len(conflicts)} slide{'s' * (len(conflicts) > 1)} two {what}: "
                f"{some(conflicts)}; keep one line a slide"
            )
    return list(found.values()), len(read) - len(found)


def read_labels(labels: Labels) -> dict[str, Label]:
    """Return slide id → label.

    Parameters
    ----------
    labels
        A mapping, or the path of a CSV as of :func:`read_label_rows`. Labels that are all whole numbers become
        integers.

    Raises
    ------
    InputError
        As of :func:`read_label_rows`.
    """
    if isinstance(labels, Mapping):
        return dict(labels)
    found = {row.slide_id: row.label for row in read_label_rows(labels)[0]}
    try:
        return {slide_id: int(label) for slide_id, label in found.items()}
    except ValueError:
        return dict(found)


def some(things: Sequence[str], most: int = _SHOWN) -> str:
    """Return the first of many names, and how many more there are."""
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(things[:most]) + more


def _rows(path: Path) -> list[LabelRow]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = reader.fieldnames or []
            if not {SLIDE_ID, LABEL} <= set(columns):
                raise InputError(
                    f"labels {path} need the columns {SLIDE_ID} and {LABEL}, and have "
                    f"{', '.join(columns) or 'none'}: "
                    + ("save it with commas" if _other_separator(columns) else "rename them")
                )
            twice = [name for name in (SLIDE_ID, LABEL, PATIENT_ID) if columns.count(name) > 1]
            if twice:
                raise InputError(f"labels {path} have the column {twice[0]} twice: keep one")
            return [_row(path, reader.line_num, row) for row in reader]
    except OSError as error:
        raise InputError(
            f"labels {path} can't be read ({error.strerror}): check the path"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"labels {path} can't be read as CSV ({error}): save it as UTF-8"
        ) from error


def _other_separator(columns: Sequence[str]) -> bool:
    """Tell whether a header is one column only because others stand between its names than commas."""
    return len(columns) == 1 and {SLIDE_ID, LABEL} <= set(re.split(r"[;\t|]\s*", columns[0]))


def _row(path: Path, line: int, row: Mapping[str, str | None]) -> LabelRow:
    slide_id, label = (row.get(SLIDE_ID) or "").strip(), row.get(LABEL)
    if not slide_id or label is None:
        raise InputError(
            f"labels {path} need the columns {SLIDE_ID} and {LABEL}, and both in every row: see line {line}"
        )
    # the order in which a slide's classes are named means nothing
    classes = sorted({name.strip() for name in label.split(SEPARATOR)} - {""})
    return LabelRow(slide_id, SEPARATOR.join(classes), (row.get(PATIENT_ID) or "").strip() or None)
