from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.mil.labels import LabelTable
from jobs.mil.splits import Split, make_folds, read_splits, write_splits
from store_schema.errors import InputError


def a_table(n_slides: int = 40, a_patient: int = 2, n_classes: int = 2) -> LabelTable:
    """Return slides of which ``a_patient`` in a row are one patient's, of one class."""
    return LabelTable(
        "multiclass",
        tuple(map(str, range(n_classes))),
        tuple(f"s{i:03d}" for i in range(n_slides)),
        tuple((i // a_patient % n_classes,) for i in range(n_slides)),
        tuple(f"p{i // a_patient}" for i in range(n_slides)),
    )


def patients(table: LabelTable, slide_ids: tuple[str, ...]) -> set[str]:
    return {table.patient_ids[table.rows[slide_id]] for slide_id in slide_ids}


def test_folds() -> None:
    table = a_table()
    splits = make_folds(table, 5, seed=3, val_fraction=0.25)
    assert len(splits) == 5
    assert sorted(i for split in splits for i in split.test) == list(table.slide_ids)
    for split in splits:
        assert sorted(i for ids in split.parts().values() for i in ids) == list(table.slide_ids)
        sides = [patients(table, ids) for ids in split.parts().values()]
        assert sum(map(len, sides)) == len(set.union(*sides))
        assert len(split.test) == 8
        assert len(split.val) == 8
        for ids in split.parts().values():
            counts = table.take(ids).counts
            assert abs(counts[0] - counts[1]) <= 2


def test_folds_follow_from_the_seed_alone() -> None:
    table = a_table()
    once = make_folds(table, 4, repeats=2, seed=7)
    assert make_folds(table, 4, repeats=2, seed=7) == once
    assert once[4:] == make_folds(table, 4, seed=8)
    assert once[:4] != once[4:]


def test_without_validation() -> None:
    assert all(split.val == () for split in make_folds(a_table(), 2, val_fraction=0))


def test_small_cohorts_have_every_class_everywhere() -> None:
    table = a_table(n_slides=8, a_patient=1)
    for split in make_folds(table, 2, val_fraction=0.1):
        assert (table.take(split.val).counts > 0).all()
        assert (table.take(split.train).counts > 0).all()


def test_folds_of_several_classes_a_slide() -> None:
    table = a_table(n_slides=40, a_patient=1)
    labels = tuple(((), (0,), (0, 1), (1,))[i % 4] for i in range(40))
    splits = make_folds(replace(table, task="multilabel", labels=labels), 5)
    assert sorted(i for split in splits for i in split.test) == list(table.slide_ids)


@pytest.mark.parametrize(
    ("table", "n_folds", "words"),
    [
        (a_table(8, 4), 5, "2 patients can't be cut into 5 folds"),
        (a_table(12, 2, 3), 3, "class 0 has 2 patients, fewer than 3 folds"),
        (a_table(4, 1), 2, "class 0 has 1 patients, fewer than 2 parts of a training set"),
        (a_table(), 1, "make no sense"),
    ],
)
def test_too_few_patients(table: LabelTable, n_folds: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_folds(table, n_folds)


def test_files(tmp_path: Path) -> None:
    table = a_table()
    split = make_folds(table, 5)[0]
    write_splits(tmp_path / "splits.csv", split)
    assert read_splits(tmp_path / "splits.csv", table) == split
    # CLAM writes row numbers, and columns of different lengths
    (tmp_path / "clam.csv").write_text(",train,val,test\n0,s000,s002,s004\n1,s001,,\n2,s006\n")
    assert read_splits(tmp_path / "clam.csv", table) == Split(
        ("s000", "s001", "s006"), ("s002",), ("s004",)
    )
    assert read_splits(tmp_path / "clam.csv", table).part_of()["s002"] == "val"
    (tmp_path / "two.csv").write_text("train,val\ns000,s002\n")
    assert read_splits(tmp_path / "two.csv", table).test == ()
    assert split.take(split.test[:2]) == Split((), (), split.test[:2])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train,test\ns000,s002\n", "need the columns train, val and test, and have train, test"),
        ("train,val,test\ns000,s002,s002\n", r"1 slides twice \(s002\)"),
        ("train,val,test\ns000,s002,other\n", r"1 slides without a label \(other\)"),
        ("train,val,test\ns000,s002,s001\n", r"1 patients on two sides: p0 \(test, train\)"),
        ("train,val,test\n,s002,s001\n", "no training slides"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_splits(tmp_path / "splits.csv", a_table())
    with pytest.raises(InputError, match="can't be read"):
        read_splits(tmp_path / "none.csv", a_table())


def test_rows_match_ids() -> None:
    table = a_table()
    np.testing.assert_array_equal([table.rows[i] for i in table.slide_ids], range(len(table)))
