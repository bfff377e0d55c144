from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.mil.labels import LabelTable, read_label_table, sorted_classes
from store_schema.errors import InputError

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "labels.csv"
        path.write_text(text)
        return path

    return write


def test_a_table(write: Write) -> None:
    table = read_label_table(
        write("slide_id,site,label,patient_id\nc,x,10,p1\na,x,2,p1\nb,y,10,\na,z,2,p1\n")
    )
    assert table == LabelTable(
        "multiclass", ("2", "10"), ("a", "b", "c"), ((0,), (1,), (1,)), ("p1", "b", "p1"), 1
    )
    np.testing.assert_array_equal(table.targets, [0, 1, 1])
    assert table.targets.dtype == np.int64
    np.testing.assert_array_equal(table.counts, [1, 2])
    table.require_two_classes()
    part = table.take(["c", "elsewhere", "b"])
    assert part.slide_ids == ("b", "c")
    assert part.patient_ids == ("b", "p1")
    with pytest.raises(InputError, match="all 2 slides have the label '10'"):
        part.require_two_classes()


def test_several_classes_a_slide(write: Write) -> None:
    text = "slide_id,label\na,x;y\nb,\nc,y\na,y; x\n"
    table = read_label_table(write(text))
    assert table.task == "multilabel"
    assert table.merged == 1
    np.testing.assert_array_equal(table.targets, np.array([[1, 1], [0, 0], [0, 1]], np.float32))
    assert table.targets.dtype == np.float32
    np.testing.assert_array_equal(table.counts, [1, 2])
    with pytest.raises(InputError, match="give a several classes"):
        read_label_table(write(text), task="multiclass")


@pytest.mark.parametrize(
    ("found", "in_order"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["tumor", "normal"], ["normal", "tumor"]),
        (["malignant", "normal"], ["normal", "malignant"]),
        (["Adenoma", "Negative"], ["Negative", "Adenoma"]),
        (["wt", "mutant"], ["wt", "mutant"]),
        (["c", "normal", "a"], ["a", "c", "normal"]),
    ],
)
def test_the_positive_class_is_the_last(found: list[str], in_order: list[str]) -> None:
    assert sorted_classes(found) == in_order


def test_an_order_that_is_given(write: Write) -> None:
    path = write("slide_id,label\na,x\nb,y\n")
    table = read_label_table(path, class_names=["y", "z", "x"])
    assert table.class_names == ("y", "z", "x")
    np.testing.assert_array_equal(table.targets, [2, 0])
    for names in (["x"], ["x", "x", "y"]):
        with pytest.raises(InputError, match="have the classes x, y"):
            read_label_table(path, class_names=names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide,label\na,1\n", "need the columns slide_id and label, and have slide, label"),
        ("", "and have none"),
        ("slide_id;label\na;1\n", "have slide_id;label: save it with commas"),
        ("slide_id\tlabel\tpatient_id\na\t1\tp\n", "save it with commas"),
        ("slide_id,label,label\na,1,0\n", "have the column label twice: keep one"),
        ("slide_id,label\n,1\n", "both in every row: see line 2"),
        ("slide_id,label\na,1\nb,\n", r"give 1 slides no label \(b\)"),
        (
            "slide_id,label\n" + "".join(f"s{i},0\ns{i},1\n" for i in range(5)),
            r"5 slides two labels: s0 \(0, 1\), s1 \(0, 1\), s2 \(0, 1\) and 2 more",
        ),
        (
            "slide_id,label,patient_id\na,1,p\na,1,q\n",
            r"give 1 slide two patients: a \(p, q\)",
        ),
        ("slide_id,label\na,1\nb,0\nc,1.0\n", "classes 1 and 1.0, which are the same number"),
    ],
)
def test_tables_that_make_no_sense(write: Write, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_label_table(write(text))


def test_no_labels_at_all(write: Write) -> None:
    with pytest.raises(InputError, match="no slide has a label"):
        read_label_table(write("slide_id,label\n")).require_two_classes()


def test_the_cohort(test_data: Path) -> None:
    table = read_label_table(test_data / "cohort" / "labels.csv")
    assert table.class_names == ("0", "1")
    np.testing.assert_array_equal(table.counts, [24, 24])
    assert len(set(table.patient_ids)) == 40
