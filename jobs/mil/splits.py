"""Which slides train, choose and test a model: from a file, or drawn so that no patient is on two sides."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jobs.run_directory import write_whole
from store_schema.errors import InputError
from store_schema.labels import some

if TYPE_CHECKING:
    from jobs.mil.labels import LabelTable  # with torch behind it


@dataclass(frozen=True)
class Split:
    """Slide ids of the three parts, each in a fixed order."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Return part → slide ids."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def part_of(self) -> dict[str, str]:
        """Return slide id → part."""
        return {slide_id: part for part, ids in self.parts().items() for slide_id in ids}

    def take(self, slide_ids: Sequence[str]) -> Split:
        """Return the split of those slides only."""
        wanted = set(slide_ids)
        return Split(**{p: tuple(i for i in ids if i in wanted) for p, ids in self.parts().items()})


def read_splits(path: str | os.PathLike[str], table: LabelTable) -> Split:
    """Read a split.

    Parameters
    ----------
    path
        A CSV with the columns ``train,val,test`` (``test`` may be missing), slide ids in each, of different
        lengths; other columns, e.g. row numbers, are not looked at.
    table
        The labelled slides.

    Raises
    ------
    InputError
        If the file can't be read or lacks columns or training slides, names a slide twice or one without a label,
        or has slides of a patient in two parts.
    """
    split = read_parts(path)
    check_split(split, table, f"splits {path}")
    return split


def read_parts(path: str | os.PathLike[str]) -> Split:
    """Read a split of slides that need no label: as :func:`read_splits`, but only the file itself is checked.

    Raises
    ------
    InputError
        If the file can't be read, lacks columns, or names a slide twice.
    """
    found: dict[str, list[str]] = {field.name: [] for field in fields(Split)}
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = reader.fieldnames or []
            if not {"train", "val"} <= set(columns):
                raise InputError(
                    f"splits {path} need the columns train, val and test, and have {', '.join(columns) or 'none'}: "
                    "rename them"
                )
            for row in reader:
                for part, ids in found.items():
                    slide_id = (row.get(part) or "").strip()
                    if slide_id:
                        ids.append(slide_id)
    except OSError as error:
        raise InputError(
            f"splits {path} can't be read ({error.strerror}): check the path"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"splits {path} can't be read as CSV ({error}): save it as UTF-8"
        ) from error
    split = Split(**{part: tuple(ids) for part, ids in found.items()})
    check_once(split, f"splits {path}")
    return split


def check_once(split: Split, what: str) -> None:
    """Raise InputError if a slide is named twice, in one part or in two."""
    every = [slide_id for ids in split.parts().values() for slide_id in ids]
    twice = sorted(slide_id for slide_id, count in Counter(every).items() if count > 1)
    if twice:
        raise InputError(f"{what} name {len(twice)} slides twice ({some(twice)}): name each once")


def check_split(split: Split, table: LabelTable, what: str) -> None:
    """Raise InputError unless a split is of labelled slides, each once, and no patient is in two parts."""
    check_once(split, what)
    every = [slide_id for ids in split.parts().values() for slide_id in ids]
    unknown = [slide_id for slide_id in every if slide_id not in table.rows]
    if unknown:
        raise InputError(
            f"{what} name {len(unknown)} slides without a label ({some(unknown)}): label them or take them out"
        )
    parts_of: dict[str, set[str]] = defaultdict(set)
    for part, ids in split.parts().items():
        for slide_id in ids:
            parts_of[table.patient_ids[table.rows[slide_id]]].add(part)
    leaks = [
        f"{patient} ({', '.join(sorted(parts))})"
        for patient, parts in sorted(parts_of.items())
        if len(parts) > 1
    ]
    if leaks:
        raise InputError(
            f"{what} have {len(leaks)} patients on two sides: {some(leaks)}; keep all slides of a patient together"
        )
    if not split.train:
        raise InputError(f"{what} have no training slides: name some in the column train")


def write_splits(path: str | os.PathLike[str], split: Split) -> None:
    """Write a split as :func:`read_splits` reads it."""
    parts = split.parts()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(parts)
    writer.writerows(zip_longest(*parts.values(), fillvalue=""))
    write_whole(Path(path), text.getvalue())


def make_folds(
    table: LabelTable,
    n_folds: int,
    *,
    repeats: int = 1,
    seed: int = 0,
    val_fraction: float = 0.2,
) -> list[Split]:
    """Draw folds for cross-validation, stratified by class, with all slides of a patient in one part.

    Parameters
    ----------
    table
        The slides; their order does not matter.
    n_folds
        At least 2.
    repeats
        How often all is drawn anew, with seed, seed + 1 …
    seed
        Of the first repeat.
    val_fraction
        Share of a fold's training slides that choose the epoch and the threshold, drawn in the same way (as one of
        ``round(1 / val_fraction)`` folds); 0 leaves ``val`` empty.

    Returns
    -------
    list of Split
        ``repeats * n_folds``, the folds of one repeat together.

    Raises
    ------
    InputError
        If there are fewer patients, or fewer patients of a class, than folds.
    """
    if n_folds < 2 or repeats < 1 or not 0 <= val_fraction <= 0.5:
        raise InputError(
            f"{n_folds} folds, {repeats} repeats and a validation fraction of {val_fraction:g} make no sense: "
            "give at least 2, at least 1, and 0 to 0.5"
        )
    strata = _strata(table)
    groups = np.array(table.patient_ids)
    everyone = np.arange(len(table))
    _check_patients(table, strata, groups, everyone, n_folds, "folds")
    splits = []
    for repeat in range(repeats):
        for test in _parts(strata, groups, everyone, n_folds, seed + repeat):
            rest = np.setdiff1d(everyone, test)
            val = np.empty(0, np.int64)
            if val_fraction:
                n_parts = max(2, round(1 / val_fraction))
                n_parts = min(n_parts, _fewest_patients(strata, groups, rest))
                _check_patients(
                    table, strata, groups, rest, max(2, n_parts), "parts of a training set"
                )
                val = _parts(strata, groups, rest, n_parts, seed + repeat)[0]
            train = np.setdiff1d(rest, val)
            splits.append(
                Split(*(tuple(table.slide_ids[i] for i in p) for p in (train, val, test)))
            )
    return splits


def _parts(
    strata: npt.NDArray[np.int64],
    groups: npt.NDArray[np.str_],
    rows: npt.NDArray[np.int64],
    n_parts: int,
    seed: int,
) -> list[npt.NDArray[np.int64]]:
    """Cut rows into parts of whole groups, each with all strata in proportion as far as that goes."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(n_splits=n_parts, shuffle=True, random_state=seed)
    return [rows[part] for _, part in folds.split(rows, strata[rows], groups[rows])]


def _strata(table: LabelTable) -> npt.NDArray[np.int64]:
    """int64 (slide,), what parts are to have in proportion: the class, or the rarest of a slide's classes."""
    counts = table.counts
    none = len(table.class_names)
    return np.array(
        [min(classes, key=lambda c: (counts[c], c), default=none) for classes in table.labels],
        dtype=np.int64,
    )


def _fewest_patients(
    strata: npt.NDArray[np.int64], groups: npt.NDArray[np.str_], rows: npt.NDArray[np.int64]
) -> int:
    return min(len(set(groups[rows][strata[rows] == stratum])) for stratum in set(strata[rows]))


def _check_patients(
    table: LabelTable,
    strata: npt.NDArray[np.int64],
    groups: npt.NDArray[np.str_],
    rows: npt.NDArray[np.int64],
    n_parts: int,
    what: str,
) -> None:
    n_patients = len(set(groups[rows]))
    if n_patients < n_parts:
        raise InputError(
            f"{n_patients} patients can't be cut into {n_parts} {what}: ask for fewer, or add patients"
        )
    for stratum in sorted(set(strata[rows])):
        n_here = len(set(groups[rows][strata[rows] == stratum]))
        if n_here < n_parts:
            named = (*table.class_names, "no class at all")[stratum]
            raise InputError(
                f"class {named} has {n_here} patients, fewer than {n_parts} {what}: ask for fewer folds, or add "
                "patients"
            )
