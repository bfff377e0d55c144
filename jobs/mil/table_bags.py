"""Bags from a CSV with one tile a line: how the classical sets (MUSK, elephant …) are published."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.mil.finite import first_not_finite
from jobs.mil.labels import LabelTable, Targets, sorted_classes
from store_schema.errors import InputError
from store_schema.labels import some

_LABEL, _BAG = "label", "bag"
_FIRST_FEATURE = 2


@dataclass(frozen=True)
class TableBags:
    """Bags of a table, as :class:`models.bag_source.BagSource`. All in memory.

    Attributes
    ----------
    ids
        The bags, in the order of their first lines.
    targets
        int64 (bag,) classes.
    features
        float32 (tile, feature) of each bag, as in the file: the literature standardises the columns over the whole
        table or brings each tile to unit length; the latter is the default of the training.
    """

    ids: tuple[str, ...]
    targets: Targets
    features: tuple[npt.NDArray[np.float32], ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def groups(self) -> tuple[str, ...]:
        """Each bag by itself: the table knows no patients."""
        return self.ids

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 (bag,), number of tiles."""
        return np.array([len(each) for each in self.features], dtype=np.int64)

    @property
    def n_features(self) -> int:
        """Width of a tile's features."""
        return int(self.features[0].shape[1])

    def load(
        self, index: int, tiles: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.floating]:
        """Return float32 (tile, feature) of a bag, or of some of its tiles."""
        return self.features[index] if tiles is None else self.features[index][tiles]


@dataclass(frozen=True)
class TableCohort:
    """A whole table of bags.

    Attributes
    ----------
    table
        The bags as labelled slides.
    everything
        All bags.
    features_fingerprint
        Digest of the table.
    """

    table: LabelTable
    everything: TableBags
    features_fingerprint: str

    def notes(self) -> list[str]:
        """Return what was left out: nothing."""
        return []

    def bags(self, slide_ids: Sequence[str], level: str = "slide") -> TableBags:
        """Return some of the bags, in their order; ``level`` makes no difference."""
        del level
        rows = {bag_id: row for row, bag_id in enumerate(self.everything.ids)}
        kept = [rows[slide_id] for slide_id in slide_ids if slide_id in rows]
        if not kept:
            raise InputError(
                f"none of the {len(slide_ids)} bags ({some(slide_ids)}) is in the table"
            )
        every = self.everything
        return TableBags(
            tuple(every.ids[row] for row in kept),
            every.targets[kept],
            tuple(every.features[row] for row in kept),
        )


def read_table_bags(path: str | os.PathLike[str]) -> TableCohort:
    """Read a table of bags.

    Parameters
    ----------
    path
        A CSV, one line a tile: label of the bag, id of the bag, features. With a header the columns ``label`` and
        ``bag`` may stand anywhere, and all others are features; without one they are the first two.

    Raises
    ------
    InputError
        If the file can't be read, lines differ in length, a feature is no finite number, or a bag has two labels.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        lines = [row for row in csv.reader(data.decode("utf-8-sig").splitlines()) if row]
    except OSError as error:
        raise InputError(f"bags {path} can't be read ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"bags {path} can't be read as CSV ({error}): save it as UTF-8") from error
    label_at, bag_at, rows, first_line = _columns(path, lines)
    width = len(lines[0])
    values = np.empty((len(rows), width - _FIRST_FEATURE), np.float32)
    members: dict[str, list[int]] = {}
    labels: dict[str, str] = {}
    for number, row in enumerate(rows):
        where = f"bags {path}, line {number + first_line}"
        if len(row) != width:
            raise InputError(f"{where}: {len(row)} columns instead of {width}; check the line")
        label, bag_id = row[label_at].strip(), row[bag_at].strip()
        if not label or not bag_id:
            raise InputError(f"{where}: no label or no bag; give both in every line")
        if labels.setdefault(bag_id, label) != label:
            raise InputError(
                f"{where}: bag {bag_id} has the labels {labels[bag_id]} and {label}; give all its lines the bag's"
            )
        members.setdefault(bag_id, []).append(number)
        try:
            values[number] = [c for at, c in enumerate(row) if at not in (label_at, bag_at)]
        except ValueError as error:
            raise InputError(
                f"{where}: a feature is no number ({error}); check the line"
            ) from error
    wrong = first_not_finite(values)
    if wrong is not None:
        raise InputError(
            f"bags {path}, line {wrong + first_line}: a feature is not finite; check the line"
        )
    class_names = tuple(sorted_classes(set(labels.values())))
    classes = {bag_id: class_names.index(label) for bag_id, label in labels.items()}
    ids = sorted(members)
    table = LabelTable(
        "multiclass", class_names, tuple(ids), tuple((classes[i],) for i in ids), tuple(ids)
    )
    targets = np.array([classes[bag_id] for bag_id in members], dtype=np.int64)
    bags = TableBags(tuple(members), targets, tuple(values[m] for m in members.values()))
    return TableCohort(table, bags, hashlib.blake2b(data, digest_size=8).hexdigest())


def _columns(path: Path, lines: list[list[str]]) -> tuple[int, int, list[list[str]], int]:
    """Return where label and bag stand, the lines of tiles, and the number of the first of them."""
    if not lines or len(lines[0]) <= _FIRST_FEATURE:
        raise InputError(f"bags {path} need the columns label, bag, and features after them")
    if all(_is_number(text) for text in lines[0][_FIRST_FEATURE:]):
        return 0, 1, lines, 1
    header = [name.strip().lower() for name in lines[0]]
    if not {_LABEL, _BAG} <= set(header):
        raise InputError(
            f"bags {path} need the columns {_LABEL} and {_BAG} in their header, and have {some(header, 5)}: rename them"
        )
    if len(lines) == 1:
        raise InputError(f"bags {path} have a header and no lines: give one line a tile")
    return header.index(_LABEL), header.index(_BAG), lines[1:], 2


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
