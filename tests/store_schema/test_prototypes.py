from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from store_schema.errors import (
    DamagedBlockError,
    IncompleteError,
    InputError,
    InvalidNameError,
    NotInStoreError,
    SettingsConflictError,
    StoreError,
)
from store_schema.finalize import finalize
from store_schema.leftovers import remove_leftovers
from store_schema.prototypes import PrototypeBank
from store_schema.store import Store, open_store
from store_schema.validate import validate

PATH = ".prototypes/bank"
ENCODER = {"encoder": "lite0", "weights": "0123", "precision": "fp32", "dtype": "float16"}


def bank(name: str = "bank", **changes: Any) -> PrototypeBank:
    """Return three prototypes of benign and two of tumor; the last has a single tile."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(5, 7)).astype(np.float32)
    tile = np.arange(10, dtype=np.int32).reshape(5, 2)
    tile[4, 1] = -1
    similarity = np.linspace(1, 0, 10, dtype=np.float32).reshape(5, 2)
    similarity[4, 1] = np.nan
    made = PrototypeBank(
        name=name,
        features=features / np.linalg.norm(features, axis=1, keepdims=True),
        class_names=("benign", "tumor"),
        k_list=(3, 2),
        cluster_size=np.array([9, 8, 7, 6, 1], np.int32),
        slides=("s1", "s2"),
        exemplar_slide=np.where(tile < 0, -1, tile % 2).astype(np.int32),
        exemplar_tile=tile,
        exemplar_similarity=similarity,
        provenance={
            "encoder": ENCODER,
            "stain": {"method": "none"},
            "grid": {"name": "g"},
            "seed": 0,
        },
        extra={"encoder": "efficientnet-lite0"},
    )
    return replace(made, **changes)


@pytest.fixture
def filled(store: Store) -> Store:
    store.write_prototypes(bank())
    return store


def test_what_is_written_is_read(filled: Store) -> None:
    read = open_store(filled.url).prototypes("bank")
    expected = bank()
    for name in ("features", "class_index", "cluster_size", "exemplar_slide", "exemplar_tile"):
        np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
    np.testing.assert_array_equal(read.exemplar_similarity, expected.exemplar_similarity)
    assert (read.class_names, read.k_list, read.slides) == (
        ("benign", "tumor"),
        (3, 2),
        ("s1", "s2"),
    )
    assert read.offsets == (0, 3, 5)
    assert read.class_index.tolist() == [0, 0, 0, 1, 1]
    assert read.encoder == ENCODER
    assert read.stain == {"method": "none"}
    assert read.extra == {"encoder": "efficientnet-lite0"}
    assert (len(read), read.feature_dim) == (5, 7)
    assert filled.banks == ["bank"]
    assert "3 of benign, 2 of tumor" in repr(filled)


def test_a_bank_is_no_slide(filled: Store) -> None:
    assert filled.slides == []
    assert ".prototypes" not in filled
    with pytest.raises(NotInStoreError):
        filled[".prototypes"]
    with pytest.raises(InvalidNameError):
        filled.has_traces(".prototypes")


def test_the_store_stays_valid(filled: Store) -> None:
    assert validate(filled) == []
    assert remove_leftovers(filled, 0.0) == []
    assert finalize(filled) == 2 + 6  # container, bank, its arrays
    assert validate(filled) == []


@pytest.mark.parametrize("finished", [False, True])
def test_plain_xarray(filled: Store, finished: bool) -> None:
    if finished:
        finalize(filled)
    with xr.open_datatree(filled.url, engine="zarr", consolidated=finished) as tree:
        np.testing.assert_array_equal(tree[f"{PATH}/features"].values, bank().features)
        assert tree[f"{PATH}/features"].dims == ("prototype", "feature")
        np.testing.assert_array_equal(tree[f"{PATH}/class_index"].values, [0, 0, 0, 1, 1])
        said = tree[PATH].attrs["slidestream"]
    assert (said["class_names"], said["k_list"], said["offsets"]) == (
        ["benign", "tumor"], [3, 2], [0, 3, 5],
    )  # fmt: skip


def test_the_same_again_and_something_else(filled: Store) -> None:
    filled.write_prototypes(bank())
    other = bank(provenance={**bank().provenance, "seed": 1}, features=-bank().features)
    with pytest.raises(SettingsConflictError, match="seed: stored 0, asked 1"):
        filled.write_prototypes(other)
    filled.write_prototypes(other, overwrite=True)
    np.testing.assert_array_equal(filled.prototypes("bank").features, other.features)
    filled.write_prototypes(bank("two"))
    assert filled.banks == ["bank", "two"]


def test_names_that_are_not_there(filled: Store) -> None:
    with pytest.raises(NotInStoreError, match="did you mean bank"):
        filled.prototypes("bnak")
    with pytest.raises(NotInStoreError):
        filled.prototypes("../x")
    with pytest.raises(StoreError, match="open for reading"):
        open_store(filled.url).write_prototypes(bank("two"))


def test_damage_is_seen_and_mended(filled: Store) -> None:
    key = f"{PATH}/features/c/0/0"
    data = bytearray(filled.objects.get(key) or b"")
    data[3] ^= 0xFF
    filled.objects.put(key, bytes(data))
    with pytest.raises(DamagedBlockError):
        filled.prototypes("bank")
    assert [violation.code for violation in validate(filled)] == ["damaged-block"]
    filled.objects.delete(key)
    with pytest.raises(IncompleteError):
        filled.prototypes("bank")
    assert [violation.code for violation in validate(filled)] == ["missing-block"]
    filled.write_prototypes(bank())
    assert validate(filled) == []
    assert len(filled.prototypes("bank")) == 5


def test_what_a_bank_refuses() -> None:
    with pytest.raises(ValueError, match="unit vectors"):
        bank(k_list=(3, 3))
    with pytest.raises(ValueError, match="unit vectors"):
        bank(features=2 * bank().features)
    made = bank()
    made.require_classes(["benign", "tumor"])
    with pytest.raises(InputError, match="has the classes benign, tumor, in this order"):
        made.require_classes(["tumor", "benign"])
    made.require_encoder({**ENCODER, "precision": "bf16", "dtype": "float32"})
    with pytest.raises(InputError, match="another encoder"):
        made.require_encoder({**ENCODER, "weights": "4567"})
    with pytest.raises(InputError, match="mean"):
        made.require_encoder({**ENCODER, "mean": [0.5]})
