"""Which slides of a store a tile model learns from: by id, by label, by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.mil.labels import NEGATIVE_NAMES
from jobs.mil.splits import Split, read_parts
from store_schema.errors import InputError
from store_schema.labels import SEPARATOR, LabelRow, read_label_rows, some
from store_schema.near_names import near
from store_schema.store import Store


@dataclass(frozen=True)
class ChosenSlides:
    """What was chosen.

    Attributes
    ----------
    patients
        Slide id → its patient where the labels name one, else itself.
    normal
        Those of them that are labelled normal.
    split
        Of the split file, without the slides that were not chosen; None where there is no such file.
    notes
        What was left out.
    """

    patients: Mapping[str, str]
    normal: frozenset[str]
    split: Split | None
    notes: tuple[str, ...]


def choose_slides(
    store: Store,
    grid: str,
    *,
    slide_ids: Sequence[str],
    labels: Path | None,
    normal: Sequence[str],
    splits: Path | None,
    only_normal: bool,
) -> ChosenSlides:
    """Choose slides that have a grid.

    Parameters
    ----------
    store, grid
        Where they are.
    slide_ids
        Only these; empty takes all.
    labels
        CSV with the columns slide_id, label[, patient_id].
    normal
        Which labels are of normal slides; empty takes those that say "nothing found": normal, negative, benign …
    splits
        CSV with the columns train, val: only these slides.
    only_normal
        Leave out slides that aren't labelled normal.

    Raises
    ------
    InputError
        No slide is left, what is said contradicts, or nothing says what is normal.
    NotInStoreError
        A slide was named that the store hasn't.
    """
    with_grid = [i for i in store.slides if grid in store[i].grids]
    candidates = list(dict.fromkeys(slide_ids)) or with_grid
    for slide_id in slide_ids:
        store[slide_id].grid_attrs(grid)  # says what isn't there
    if not candidates:
        raise InputError(f"{store.url} holds no slide with grid {grid!r}; index slides first.")
    notes = []
    rows = {} if labels is None else {row.slide_id: row for row in read_label_rows(labels)[0]}
    normal_ids = frozenset(slide_ids) if labels is None else _normal(rows, normal, labels)
    if only_normal:
        if labels is None and not slide_ids:
            raise InputError(
                "Nothing says which slides are normal: give --labels (and --normal), or name them with --slides."
            )
        others = [i for i in candidates if i not in normal_ids]
        if others and slide_ids:
            raise InputError(
                f"{len(others)} slides named with --slides ({some(others)}) are not labelled normal in {labels}: leave "
                "them out."
            )
        if others:
            notes.append(f"{len(others)} slides that are not labelled normal were left out")
        candidates = [i for i in candidates if i in normal_ids]
        if not candidates:
            raise InputError(
                f"{store.url} holds no normal slides with grid {grid!r} by {labels}: name the label of normal slides "
                "with --normal."
            )
    patients = {i: (rows[i].patient_id if i in rows else None) or i for i in candidates}
    split = None
    if splits is not None:
        split = _split(splits, patients, "normal slide" if only_normal else "slide")
        kept = {*split.train, *split.val}
        if len(kept) < len(patients):
            notes.append(
                f"{len(patients) - len(kept)} slides that are in neither train nor val of {splits.name} were left out"
            )
        patients = {i: patient for i, patient in patients.items() if i in kept}
    return ChosenSlides(patients, normal_ids, split, tuple(notes))


def _split(path: Path, patients: Mapping[str, str], what: str) -> Split:
    """Read a split of the slides that have patients, and check that it makes sense for them."""
    split = read_parts(path).take(list(patients))
    for part, members in (("train", split.train), ("val", split.val)):
        if not members:
            raise InputError(f"The column {part} of {path} names no {what} that has the grid.")
    train, val = ({patients[i] for i in members} for members in (split.train, split.val))
    if torn := sorted(train & val):
        raise InputError(
            f"{path} has {len(torn)} patients in train and in val ({some(torn)}): keep a patient's slides together."
        )
    return split


def _normal(rows: Mapping[str, LabelRow], normal: Sequence[str], labels: Path) -> frozenset[str]:
    classes = {slide_id: row.label.split(SEPARATOR) for slide_id, row in rows.items()}
    known = sorted({name for found in classes.values() for name in found if name})
    wanted = set(normal) or {name for name in known if name.casefold() in NEGATIVE_NAMES}
    if not wanted:
        raise InputError(
            f"The labels {labels} are {some(known, 8)}: say with --normal which of them is normal."
        )
    for name in wanted:
        if name not in known:
            raise InputError(f"The labels {labels} have no label {name!r}: {near(name, known)}.")
    return frozenset(slide_id for slide_id, found in classes.items() if set(found) <= wanted)
