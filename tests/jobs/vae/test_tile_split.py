from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.mil.splits import Split
from jobs.vae.prepared_tiles import PreparedTiles
from jobs.vae.tile_split import TileSplit, split_tiles
from store_schema.errors import InputError


def drawn(prepared: PreparedTiles, fraction: float = 0.15, seed: int = 0) -> TileSplit:
    return split_tiles(prepared, None, fraction, seed, parts_are_slides=True)


def tiles(groups: list[str], labels: list[int] | None = None) -> PreparedTiles:
    n = len(groups)
    return PreparedTiles(
        np.zeros((n, 8, 8, 3), np.uint8),
        tuple(f"slide of {group}" for group in groups),
        tuple(groups),
        np.array(labels or [0] * n, np.int8),
        "digest",
        {},
        None,
    )


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=12),
    seed=st.integers(0, 9),
    fraction=st.floats(0.05, 0.5),
)
def test_groups_stay_together_and_shares_are_as_near_as_they_come(
    sizes: list[int], seed: int, fraction: float
) -> None:
    groups = [f"g{k}" for k, size in enumerate(sizes) for _ in range(size)]
    split = drawn(tiles(groups), fraction, seed)
    train, val = ({groups[row] for row in side} for side in (split.train, split.val))
    assert not train & val
    assert sorted([*split.train, *split.val]) == list(range(len(groups)))
    assert split.by == "patient"
    assert abs(len(split.val) - fraction * len(groups)) <= max(sizes)


def test_the_seed_draws() -> None:
    prepared = tiles([f"g{k % 20}" for k in range(200)])
    first, again, other = (drawn(prepared, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.val, again.val)
    assert first.val.tolist() != other.val.tolist()


def test_tumour_is_on_both_sides() -> None:
    groups = [f"g{k // 10}" for k in range(100)]
    labels = [int(k >= 80) for k in range(100)]  # two groups of ten
    for seed in range(5):
        split = drawn(tiles(groups, labels), seed=seed)
        assert {g >= "g8" for g in (groups[row] for row in split.val)} == {True, False}


@pytest.mark.parametrize("group", ["", "the only one"])
def test_tiles_are_drawn_one_by_one_where_groups_cannot_be_split(group: str) -> None:
    split = drawn(tiles([group] * 100))
    assert split.by == "tile"
    assert len(split.val) == 15


def test_a_file_says_it() -> None:
    prepared = tiles(["a", "a", "b", "c"])
    given = Split(("slide of c",), ("slide of a",), ())
    split = split_tiles(prepared, given, 0.15, 0, parts_are_slides=True)
    assert split.by == "file"
    assert (split.train.tolist(), split.val.tolist()) == ([3], [0, 1])
    with pytest.raises(InputError, match="none is left to validate"):
        split_tiles(
            prepared, Split(("slide of c",), ("elsewhere",), ()), 0.15, 0, parts_are_slides=True
        )


def test_what_was_kept_together_is_called_by_its_name() -> None:
    of_patients = tiles(["p1", "p1", "p2", "p3"])
    assert drawn(of_patients).by == "patient"
    slides = replace(
        of_patients, parts=of_patients.groups
    )  # no patients are known: each slide is its own
    assert drawn(slides).by == "slide"
    # of a file, or a folder of images, whose groups are slides
    assert split_tiles(of_patients, None, 0.15, 0, parts_are_slides=False).by == "slide"
