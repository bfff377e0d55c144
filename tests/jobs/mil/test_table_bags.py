from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.mil.table_bags import read_table_bags
from models.bag_source import BagSource
from store_schema.errors import InputError

LINES = "1,m2,0.5,-3\n1,m2,1,2\n0,m1,7,8\n"


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        "label,bag,f1,f2\n" + LINES,
        "f1,bag,f2,Label\n0.5,m2,-3,1\n1,m2,2,1\n\n7,m1,8,0\n",
    ],
)
def test_a_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "bags.csv").write_text(text)
    cohort = read_table_bags(tmp_path / "bags.csv")
    assert cohort.table.class_names == ("0", "1")
    assert cohort.table.slide_ids == ("m1", "m2")
    np.testing.assert_array_equal(cohort.table.targets, [0, 1])
    source: BagSource = cohort.everything
    assert source.ids == ("m2", "m1")
    np.testing.assert_array_equal(source.targets, [1, 0])
    np.testing.assert_array_equal(source.lengths, [2, 1])
    assert source.n_features == 2
    np.testing.assert_array_equal(source.load(0), np.array([[0.5, -3], [1, 2]], np.float32))
    np.testing.assert_array_equal(source.load(0, np.array([1])), np.array([[1, 2]], np.float32))
    one = cohort.bags(["m1"])
    assert one.ids == one.groups == ("m1",)
    np.testing.assert_array_equal(one.targets, [0])
    with pytest.raises(InputError, match="none of the 1 bags"):
        cohort.bags(["m3"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "need the columns label, bag"),
        ("1,m1\n", "need the columns label, bag"),
        ("label,group,f\n1,m1,2\n", "need the columns label and bag in their header"),
        ("label,bag,f\n", "no lines"),
        (LINES + "1,m1,3,4\n", "line 4: bag m1 has the labels 0 and 1"),
        (LINES + "1,m3,3\n", "line 4: 3 columns instead of 4"),
        ("label,bag,f,g\n" + LINES + "1,m3,3,x\n", "line 5: a feature is no number"),
        (LINES + "1,m3,3,nan\n", "line 4: a feature is not finite"),
        (LINES + "1,,3,4\n", "line 4: no label or no bag"),
    ],
)
def test_tables_that_make_no_sense(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bags.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_table_bags(tmp_path / "bags.csv")
    with pytest.raises(InputError, match="can't be read"):
        read_table_bags(tmp_path / "none.csv")
