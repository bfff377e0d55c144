from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from jobs.mil.bag_sources import open_cohort
from jobs.mil.finite import first_not_finite
from jobs.mil.labels import LabelTable
from models.bag_source import BagSource
from store_schema.chunks import read_blocks
from store_schema.errors import IncompleteError, InputError, NotInStoreError
from store_schema.store import open_store

FeatureStore = Callable[..., str]
GRID = "32px_0.500mpp"
COUNTS = {"a": 10, "b": 3, "c": 6, "d": 0, "e": 5}
FEATURES = {
    slide_id: np.random.default_rng(seed).normal(size=(n_tiles, 5)).astype(np.float16)
    for seed, (slide_id, n_tiles) in enumerate(COUNTS.items())
}
TABLE = LabelTable(
    "multiclass",
    ("0", "1"),
    ("a", "b", "c", "d", "lost"),
    ((0,), (1,), (0,), (1,), (0,)),
    ("p", "p", "q", "r", "s"),
)


def test_a_cohort(feature_store: FeatureStore) -> None:
    cohort = open_cohort(feature_store(FEATURES), TABLE)
    assert (cohort.grid, cohort.features) == (GRID, "enc")
    assert cohort.table.slide_ids == ("a", "b", "c")
    assert cohort.without_features == ("lost",)
    assert cohort.without_labels == ("e",)
    assert cohort.empty == ("d",)
    assert [note.split(":")[1].strip() for note in cohort.notes()] == ["lost", "e", "d"]
    assert cohort.features_fingerprint is not None


def test_bags_of_slides(feature_store: FeatureStore) -> None:
    source: BagSource = open_cohort(feature_store(FEATURES), TABLE).bags(["c", "a", "lost"])
    source = pickle.loads(pickle.dumps(source))
    assert source.ids == ("c", "a")
    assert source.groups == ("q", "p")
    assert source.n_features == 5
    np.testing.assert_array_equal(source.targets, [0, 0])
    np.testing.assert_array_equal(source.lengths, [6, 10])
    for index, slide_id in enumerate("ca"):
        np.testing.assert_array_equal(source.load(index), FEATURES[slide_id])
    some = np.array([0, 5, 9])
    np.testing.assert_array_equal(source.load(1, some), FEATURES["a"][some])
    assert source.load(1, some).dtype == np.float16


def test_bags_of_patients(feature_store: FeatureStore) -> None:
    source = open_cohort(feature_store(FEATURES), TABLE).bags(["a", "b", "c"], "patient")
    assert source.ids == ("p", "q")
    np.testing.assert_array_equal(source.targets, [1, 0])  # one of the slides is positive
    np.testing.assert_array_equal(source.lengths, [13, 6])
    both = np.concatenate([FEATURES["a"], FEATURES["b"]])
    np.testing.assert_array_equal(source.load(0), both)
    for tiles in ([2, 9, 10, 12], [11], [0], list(range(13))):
        np.testing.assert_array_equal(source.load(0, np.array(tiles)), both[tiles])
    for part, slide_id in zip(source.parts(0), "ab", strict=True):
        assert part.slide_id == slide_id
        np.testing.assert_array_equal(both[part.span], FEATURES[slide_id][part.tile_index])


def test_patients_of_several_classes(feature_store: FeatureStore) -> None:
    cohort = open_cohort(
        feature_store(FEATURES),
        replace(TABLE, class_names=("0", "1", "2"), labels=((0,), (2,), (1,), (0,), (0,))),
    )
    with pytest.raises(InputError, match="patient p has slides of the classes 0, 2"):
        cohort.bags(["a", "b"], "patient")
    many = open_cohort(feature_store(FEATURES), replace(TABLE, task="multilabel"))
    np.testing.assert_array_equal(
        many.bags(["a", "b", "c"], "patient").targets, np.array([[1, 1], [1, 0]], np.float32)
    )


def test_selected_tiles(feature_store: FeatureStore) -> None:
    url = feature_store({"a": FEATURES["a"]})
    best = np.array([9, 1, 4, 0], np.int32)
    open_store(url)["a"].write_selection(GRID, "top", best, np.ones(4, np.float32), {})
    source = open_cohort(url, TABLE, selection="top").bags(["a"])
    np.testing.assert_array_equal(source.lengths, [4])
    np.testing.assert_array_equal(source.load(0), FEATURES["a"][best])
    some = np.array([0, 2])
    np.testing.assert_array_equal(source.load(0, some), FEATURES["a"][best[some]])
    np.testing.assert_array_equal(source.parts(0)[0].tile_index, best)
    with pytest.raises(NotInStoreError, match="did you mean top"):
        open_cohort(url, TABLE, selection="topp")


def test_only_the_blocks_that_hold_the_tiles_are_read(
    feature_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_cohort(feature_store(FEATURES), TABLE).bags(["a", "b"], "patient")
    read: list[list[int] | None] = []

    def counted(
        objects: object, path: str, layout: object, blocks: object = None, **k: object
    ) -> object:
        read.append(None if blocks is None else list(blocks))  # type: ignore[call-overload]
        return read_blocks(objects, path, layout, blocks, **k)  # type: ignore[arg-type]

    monkeypatch.setattr("store_schema.bags.read_blocks", counted)
    source.load(0, np.array([1, 9]))
    assert [blocks for blocks in read if blocks] == [[0, 2]]


def test_incomplete_features(feature_store: FeatureStore) -> None:
    url = feature_store(FEATURES, blocks={"a": [0, 2], "e": []})
    with pytest.raises(
        IncompleteError, match=r"1 of 5 labelled slides have incomplete features: a \(2/3 blocks\)"
    ):
        open_cohort(url, TABLE)
    source = open_cohort(url, TABLE, allow_incomplete=True).bags(["a", "b"])
    kept = [0, 1, 2, 3, 8, 9]
    np.testing.assert_array_equal(source.lengths, [6, 3])
    np.testing.assert_array_equal(source.load(0), FEATURES["a"][kept])
    np.testing.assert_array_equal(source.parts(0)[0].tile_index, kept)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers(feature_store: FeatureStore, wrong: float) -> None:
    features = FEATURES["a"].copy()
    features[7, 3] = wrong
    source = open_cohort(feature_store({"a": features, "b": FEATURES["b"]}), TABLE).bags(["a"])
    with pytest.raises(InputError, match=r"slide a \(.*\) are not finite at tile 7"):
        source.load(0)
    with pytest.raises(InputError, match="not finite at tile 7"):
        source.load(0, np.array([2, 7]))
    source.load(0, np.array([2, 6]))


def test_cohorts_that_make_no_sense(feature_store: FeatureStore) -> None:
    url = feature_store({**FEATURES, "b": np.zeros((3, 4), np.float16)})
    with pytest.raises(InputError, match=r"b/.* has 4 features a tile and a/.* 5"):
        open_cohort(url, TABLE)
    with pytest.raises(NotInStoreError, match="did you mean enc"):
        open_cohort(url, TABLE, features="enk")
    with pytest.raises(InputError, match="none of the 1 slides"):
        open_cohort(url, TABLE.take(["a"])).bags(["b"])
    with pytest.raises(InputError, match=r"none of the 1 labelled slides .* has a tile"):
        open_cohort(url, TABLE.take(["d"]))
    others = replace(TABLE, slide_ids=tuple("vwxyz"))
    with pytest.raises(InputError, match="names v, w, x and 2 more, the store has others"):
        open_cohort(url, others)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_first_not_finite(dtype: type[np.floating]) -> None:
    values = np.full((3000, 300), np.finfo(dtype).max, dtype)
    assert first_not_finite(values) is None
    values[2999, 299] = np.nan
    assert first_not_finite(values) == 2999
    values[1000, 0] = -np.inf
    assert first_not_finite(values) == 1000
    assert first_not_finite(values[:0]) is None
