from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from store_schema import names
from store_schema.errors import NotAStoreError, StoreError
from store_schema.finalize import finalize
from store_schema.group_attributes import said, with_digest
from store_schema.leftovers import leftovers, remove_leftovers
from store_schema.store import Store
from store_schema.validate import validate
from tests.store_schema.samples import (
    GRID,
    add_features,
    add_slide,
    claim_features,
    flip_byte,
    values,
    write,
)

RUN = f"s1/{GRID}/features/enc"


@pytest.fixture
def sound(store: Store) -> Store:
    slide = add_slide(store)
    add_features(slide)
    slide.write_selection(GRID, "top", np.array([3, 1], np.int32), np.ones(2, np.float32), {})
    add_slide(store, "empty", 0)
    return store


def codes(store: Store) -> list[tuple[str, str]]:
    return [(violation.code, violation.path) for violation in validate(store)]


def edit(store: Store, path: str, change: Callable[[dict[str, Any]], object]) -> None:
    key = f"{path}/zarr.json".lstrip("/")
    node = json.loads(store.objects.get(key) or b"")
    change(node)
    if said(node) is not None:  # what is looked for is what it says, not that it fails its digest
        node["attributes"][names.ATTR] = with_digest(node["attributes"][names.ATTR])
    store.objects.put(key, json.dumps(node).encode())


def test_a_sound_store(sound: Store) -> None:
    assert validate(sound) == validate(sound.url) == []


def test_no_store_at_all(url: str) -> None:
    with pytest.raises(NotAStoreError):
        validate(url)


def test_an_unfinished_run(sound: Store) -> None:
    write(claim_features(sound["s1"], "two"), values(20), [0])
    assert {code for code, _ in codes(sound)} == {"missing-block"}
    assert len(codes(sound)) == 4


def test_damage(sound: Store) -> None:
    flip_byte(sound.objects, f"{RUN}/features/c/1/0")
    sound.objects.delete(f"{RUN}/stain_method/c/2")
    sound.objects.put(f"s1/{GRID}/x/c/0", b"")
    flip_byte(sound.objects, f"s1/{GRID}/masks/tissue/mask/c/0/0", 3)
    assert sorted(codes(sound)) == [
        ("damaged-block", f"{RUN}/features/c/1/0"),
        ("damaged-block", f"s1/{GRID}/masks/tissue/mask/c/0/0"),
        ("damaged-block", f"s1/{GRID}/x/c/0"),
        ("missing-block", f"{RUN}/stain_method/c/2"),
    ]


@pytest.mark.parametrize(
    ("path", "part", "value", "code"),
    [
        (f"{RUN}/features", "data_type", "float32", "wrong-dtype"),
        (f"{RUN}/features", "shape", [21, 5], "wrong-dims"),
        (f"{RUN}/features", "dimension_names", ["tile", "channel"], "wrong-dims"),
        (f"{RUN}/features", "codecs", [{"name": "bytes"}], "wrong-encoding"),
        (f"{RUN}/features", "fill_value", 0, "wrong-encoding"),
        (f"s1/{GRID}/tissue", "data_type", "float64", "wrong-dtype"),
        (
            f"{RUN}/features",
            "chunk_grid",
            {"name": "regular", "configuration": {"chunk_shape": [20, 5]}},
            "wrong-chunks",
        ),
    ],
)
def test_wrong_metadata(sound: Store, path: str, part: str, value: object, code: str) -> None:
    edit(sound, path, lambda node: node.update({part: value}))
    assert (code, path) in codes(sound)
    assert "missing-block" not in {found for found, _ in codes(sound)}


@pytest.mark.parametrize("path", ["", "s1", f"s1/{GRID}", RUN, f"{RUN}/features"])
def test_foreign_attributes(sound: Store, path: str) -> None:
    edit(sound, path, lambda node: node["attributes"].update(mine=1))
    assert codes(sound) == [("foreign-attribute", path)]


def test_forged_provenance(sound: Store) -> None:
    edit(
        sound,
        RUN,
        lambda node: node["attributes"][names.ATTR][names.PROVENANCE].update(weights="others"),
    )
    assert codes(sound) == [("wrong-attribute", RUN)]


def test_garbled_attributes_and_documents(sound: Store) -> None:
    edit(sound, f"s1/{GRID}", lambda node: node["attributes"][names.ATTR].pop(names.N_TILES))
    sound.objects.put(f"{RUN}/features/zarr.json", b"{")
    found = codes(sound)
    assert ("wrong-attribute", f"s1/{GRID}") in found
    assert ("damaged-metadata", f"{RUN}/features") in found
    with pytest.raises(StoreError, match="is damaged"):
        finalize(sound)


def test_missing_array_and_unknown_nodes(sound: Store) -> None:
    for key in sound.objects.sizes(f"{RUN}/stain_method"):
        sound.objects.delete(key)
    group = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'
    for path in ("other", f"s1/{GRID}/extra", f"{RUN}/more"):
        sound.objects.put(f"{path}/zarr.json", group)
    assert sorted(codes(sound)) == [
        ("missing-array", f"{RUN}/stain_method"),
        ("unknown-node", "other"),
        ("unknown-node", f"s1/{GRID}/extra"),
        ("unknown-node", f"{RUN}/more"),
    ]


def test_an_interrupted_mask(sound: Store) -> None:
    path = f"s1/{GRID}/masks/tissue"
    edit(sound, path, lambda node: node["attributes"][names.ATTR].update(complete=False))
    assert codes(sound) == [("incomplete", path)]


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_schema_version(sound: Store, version: object) -> None:
    edit(sound, "", lambda node: node["attributes"][names.ATTR].update(schema_version=version))
    assert [violation.code for violation in validate(sound.url)] == ["schema-version"]


def make_leftovers(store: Store) -> dict[str, str]:
    found = {
        f"{RUN}/features/c/3/0": "beyond",
        f"{RUN}/features/c/0/1": "beyond",
        f"s1/{GRID}/features/gone/features/c/0/0": "unclaimed",
        f"s1/{GRID}/features/gone/features/zarr.json": "unclaimed",
        f"{RUN}/features/c/1/0.0123.partial": "temporary",
        f"s1/{GRID}/features/old.0123.partial/features/c/0/0": "temporary",
    }
    array = store.objects.get(f"{RUN}/features/zarr.json") or b""
    for key in found:
        store.objects.put(key, array if key.endswith("zarr.json") else b"xxxx")
    return found


def test_leftovers(sound: Store) -> None:
    before = {key: sound.objects.get(key) for key in sound.objects.sizes("")}
    made = make_leftovers(sound)
    assert {item.key: item.reason for item in leftovers(sound, 0)} == made
    assert sorted(codes(sound)) == sorted(("leftover", key) for key in made)
    assert len(remove_leftovers(sound, 0, dry_run=True)) == len(made)
    assert len(sound.objects.sizes("")) == len(before) + len(made)
    removed = remove_leftovers(sound, 0)
    assert sum(item.size for item in removed) > 0
    assert {key: sound.objects.get(key) for key in sound.objects.sizes("")} == before
    assert leftovers(sound, 0) == []
    assert validate(sound) == []


def test_fresh_temporary_files_are_left_to_whoever_writes_them(local_store: Store) -> None:
    add_features(add_slide(local_store))
    make_leftovers(local_store)
    assert {item.reason for item in remove_leftovers(local_store)} == {"beyond", "unclaimed"}
    assert {item.reason for item in leftovers(local_store, 0)} == {"temporary"}


def test_other_peoples_files_are_never_deleted(sound: Store) -> None:
    theirs = [
        "README.txt",
        "s1/notes.txt",
        "backup/c/0",
        f"{RUN}/features/c/readme",
        "other/zarr.json",
    ]
    for key in theirs:
        sound.objects.put(key, b"{}" if key.endswith("json") else b"mine")
    remove_leftovers(sound, 0)
    assert set(theirs) <= set(sound.objects.sizes(""))


def test_empty_folders_go(local_store: Store) -> None:
    import zarr

    add_features(add_slide(local_store))
    local_store.objects.put("killed/x.0123.partial", b"")
    remove_leftovers(local_store, 0)
    assert set(zarr.open_group(local_store.url, mode="r").group_keys()) == {"s1"}  # and no warning
    assert validate(local_store) == []
