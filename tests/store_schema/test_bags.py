from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from store_schema.errors import IncompleteError, InputError, NotInStoreError
from store_schema.labels import read_labels
from store_schema.store import Store
from tests.store_schema.samples import (
    GRID,
    CountingObjects,
    add_features,
    add_slide,
    claim_features,
    table,
    values,
    write,
)

COUNTS = {"a": 20, "b": 3, "c": 0, "d": 9}


@pytest.fixture
def cohort(store: Store) -> Store:
    for seed, (slide_id, n_tiles) in enumerate(COUNTS.items()):
        add_features(add_slide(store, slide_id, n_tiles), seed=seed)
    return store


def test_bags(cohort: Store) -> None:
    bags = cohort.bags()
    assert bags.slide_ids == list(COUNTS)
    assert [len(bag) for bag in bags] == list(COUNTS.values())
    for seed, bag in enumerate(bags):
        np.testing.assert_array_equal(bag.load(), values(len(bag), seed)["features"])
        np.testing.assert_array_equal(
            bag.load("stain_method"), values(len(bag), seed)["stain_method"]
        )
        np.testing.assert_array_equal(bag.x, table(len(bag)).x)
        np.testing.assert_array_equal(bag.y, table(len(bag)).y)
        assert bag.label is None
    assert bags[-1].slide_id == "d"
    assert bags[1:3].slide_ids == ["b", "c"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(bags[0])).load(), bags[0].load())
    assert "4 bags, 32 tiles" in repr(bags)


def test_labels_from_a_table(cohort: Store, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("slide_id,patient_id,label\nd,p1,1\na,p2,0\nlost,p3,1\n")
    bags = cohort.bags(features="enc", labels=path)
    assert [(bag.slide_id, bag.label) for bag in bags] == [("a", 0), ("d", 1)]
    assert bags.absent == ("lost",)
    assert bags.unlabelled == ("b", "c")
    assert [bag.label for bag in cohort.bags(labels={"b": "tumor"})] == ["tumor"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide,label\na,1\n", "need the columns"),
        ("slide_id,label\na\n", "need the columns"),
        ("slide_id,label\na,1\na,0\n", "two labels"),
    ],
)
def test_tables_that_make_no_sense(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_labels(path)
    with pytest.raises(InputError, match="can't be read"):
        read_labels(tmp_path / "none.csv")


def test_words_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("slide_id,label\na,1\nb,unknown\n")
    assert read_labels(path) == {"a": "1", "b": "unknown"}


def test_incomplete(cohort: Store) -> None:
    write(claim_features(add_slide(cohort, "e", 20)), values(20, 9), [0, 2])
    add_slide(cohort, "f", 4)
    with pytest.raises(
        IncompleteError, match=r"2 of 6 slides lack features enc .*e \(2/3 blocks\), f \(none\)"
    ):
        cohort.bags(features="enc")
    bags = cohort.bags(features="enc", allow_incomplete=True)
    assert bags.absent == ("f",)
    partial = bags[bags.slide_ids.index("e")]
    kept = [*range(8), *range(16, 20)]
    np.testing.assert_array_equal(partial.load(), values(20, 9)["features"][kept])
    np.testing.assert_array_equal(partial.x, table(20).x[kept])


def test_selection(cohort: Store) -> None:
    index = np.array([19, 0, 8], np.int32)
    cohort["a"].write_selection(GRID, "top", index, np.ones(3, np.float32), {})
    bag = cohort.bags(labels={"a": 1}, selection="top")[0]
    np.testing.assert_array_equal(bag.load(), values(20, 0)["features"][index])
    np.testing.assert_array_equal(bag.x, table(20).x[index])
    with pytest.raises(NotInStoreError, match="has no selections"):
        cohort.bags(selection="top")


def test_names(cohort: Store) -> None:
    with pytest.raises(NotInStoreError, match="did you mean enc"):
        cohort.bags(features="enk")
    for features in (None, "enc"):
        with pytest.raises(NotInStoreError, match=f"no grid 'other': there are {GRID}"):
            cohort.bags(features, grid="other")
    add_features(cohort["a"], "other")
    with pytest.raises(InputError, match="more than one feature set"):
        cohort.bags()


def test_a_bag_is_read_in_one_request_a_block(cohort: Store) -> None:
    counting = CountingObjects(cohort.objects, {})
    bags = Store(counting).bags(features="enc", grid=GRID)
    assert counting.calls.get("read_into", 0) == 0
    counting.calls.clear()
    bags[0].load()
    assert counting.calls == {"read_into": 3}


def test_loading_into_a_buffer(cohort: Store) -> None:
    bag = cohort.bags()[0]
    buffer = np.zeros((20, 5), np.float16)
    assert bag.load(out=buffer) is buffer
    np.testing.assert_array_equal(buffer, values(20, 0)["features"])
    for wrong in (
        np.zeros((19, 5), np.float16),
        np.zeros((20, 5), np.float32),
        np.zeros((5, 20), np.float16).T,
    ):
        with pytest.raises(ValueError, match="is read into contiguous"):
            bag.load(out=wrong)
    cohort["a"].write_selection(
        GRID, "top", np.array([19, 0], np.int32), np.ones(2, np.float32), {}
    )
    best = cohort.bags(labels={"a": 1}, selection="top")[0]
    assert best.load(out=buffer[:2]).base is buffer
    np.testing.assert_array_equal(buffer[:2], values(20, 0)["features"][[19, 0]])
