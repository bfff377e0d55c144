from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store_schema.blocks import open_block_group
from store_schema.errors import DamagedBlockError, IncompleteError, NotInStoreError
from store_schema.store import Store, create_store
from tests.store_schema.samples import (
    GRID,
    CountingObjects,
    add_slide,
    claim_features,
    flip_byte,
    values,
    write,
)


def test_write_and_read(store: Store) -> None:
    group = claim_features(add_slide(store, n_tiles=20, block_tiles=8))
    assert (group.n_tiles, group.block_tiles, group.n_blocks) == (20, 8, 3)
    assert [group.block_slice(i) for i in range(3)] == [slice(0, 8), slice(8, 16), slice(16, 20)]
    with pytest.raises(IndexError):
        group.block_slice(3)
    data = values(20)
    sizes = []
    for block in (2, 0, 1):
        span = group.block_slice(block)
        sizes.append(group.write_block(block, {name: array[span] for name, array in data.items()}))
        read = group.read_block(block)
        for name, array in data.items():
            np.testing.assert_array_equal(read[name], array[span])
    assert sum(sizes) == sum(
        size for key, size in store.objects.sizes(group.path).items() if "/c/" in key
    )
    assert group.done() == (3, 3)


def test_unwritten_blocks_raise(store: Store) -> None:
    group = claim_features(add_slide(store))
    write(group, values(20), [0])
    assert group.missing_blocks() == group.missing_blocks(verify=False) == [1, 2]
    with pytest.raises(IncompleteError, match=r"block 1 of s1/.*/features/enc/features"):
        group.read_block(1)
    with pytest.raises(IncompleteError, match="has 1/3 blocks"):
        group.require_complete()


@pytest.mark.parametrize("name", ["features", "stain_method"])
def test_damage_is_missing_and_is_repaired(store: Store, name: str) -> None:
    group = claim_features(add_slide(store))
    data = values(20)
    write(group, data)
    before = {key: store.objects.get(key) for key in store.objects.sizes("")}
    flip_byte(store.objects, group.object_key(name, 2))
    assert group.missing_blocks(verify=False) == []
    assert group.missing_blocks() == [2]
    with pytest.raises(DamagedBlockError, match=group.object_key(name, 2)):
        group.read_block(2)
    write(group, data, [2])
    assert {key: store.objects.get(key) for key in store.objects.sizes("")} == before


def test_truncation_shows_without_reading(store: Store) -> None:
    group = claim_features(add_slide(store))
    write(group, values(20))
    key = group.object_key("features", 1)
    store.objects.put(key, (store.objects.get(key) or b"")[:-1])
    assert group.missing_blocks(verify=False) == [1]


def test_a_block_needs_all_its_arrays(store: Store) -> None:
    group = claim_features(add_slide(store))
    write(group, values(20))
    store.objects.delete(group.object_key("stain_method", 0))
    assert group.missing_blocks(verify=False) == group.missing_blocks() == [0]


def test_the_main_array_is_written_last(store: Store) -> None:
    order: list[str] = []

    class Watching(CountingObjects):
        def put(self, key: str, data: bytes) -> None:
            order.append(key)

    group = claim_features(add_slide(store))
    write(replace(group, objects=Watching(store.objects, {})), values(20), [1])
    assert order == [group.object_key(name, 1) for name in ("stain_method", "features")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": np.zeros((8, 5), np.float16)},
        {"features": np.zeros((8, 5), np.float32), "stain_method": np.zeros(8, np.uint8)},
        {"features": np.zeros((7, 5), np.float16), "stain_method": np.zeros(8, np.uint8)},
        {
            "features": np.zeros((8, 5), np.float16),
            "stain_method": np.zeros(8, np.uint8),
            "x": np.zeros(8),
        },
    ],
)
def test_what_was_not_declared_is_refused(store: Store, wrong: dict[str, Any]) -> None:
    group = claim_features(add_slide(store))
    with pytest.raises(ValueError, match="features/enc"):
        group.write_block(0, wrong)
    assert group.done() == (0, 3)


def test_reopening_by_address_and_by_pickle(store: Store) -> None:
    group = claim_features(add_slide(store))
    data = values(20)
    write(open_block_group(group.url, group.path), data, [0])
    write(pickle.loads(pickle.dumps(group)), data, [1, 2])
    assert group.missing_blocks() == []
    with pytest.raises(NotInStoreError, match="has no s1/"):
        open_block_group(group.url, f"s1/{GRID}/features/other")


def test_many_threads_write_and_read(store: Store) -> None:
    group = claim_features(add_slide(store, n_tiles=300, block_tiles=5))
    data = values(300)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda block: write(group, data, [block]), [*range(60), *range(60)]))
        read = list(pool.map(group.read_block, range(60)))
    np.testing.assert_array_equal(np.concatenate([r["features"] for r in read]), data["features"])


def test_claiming_from_many_threads_gives_one_group(store: Store) -> None:
    slide = add_slide(store)
    with ThreadPoolExecutor(8) as pool:
        groups = list(pool.map(lambda _: claim_features(slide), range(16)))
    assert len({group.attrs["fingerprint"] for group in groups}) == 1
    assert not [key for key in store.objects.sizes("") if key.endswith(".partial")]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_is_lost_is_what_is_missing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store = create_store(tmp_path_factory.mktemp("p") / "s.zarr")
    n_tiles = data.draw(st.integers(1, 30))
    group = claim_features(
        add_slide(store, n_tiles=n_tiles, block_tiles=data.draw(st.integers(1, 12)))
    )
    written = values(n_tiles)
    write(group, written)
    every = [(name, block) for name in group.arrays for block in range(group.n_blocks)]
    lost = data.draw(st.sets(st.sampled_from(every)))
    broken = data.draw(st.sets(st.sampled_from(every)))
    for name, block in lost:
        store.objects.delete(group.object_key(name, block))
    for name, block in broken - lost:
        flip_byte(store.objects, group.object_key(name, block), at=-1)
    assert group.missing_blocks(verify=False) == sorted({block for _, block in lost})
    missing = group.missing_blocks()
    assert missing == sorted({block for _, block in lost | broken})
    write(group, written, missing)
    assert group.missing_blocks() == []
    np.testing.assert_array_equal(
        np.concatenate([group.read_block(b)["features"] for b in range(group.n_blocks)]),
        written["features"],
    )
