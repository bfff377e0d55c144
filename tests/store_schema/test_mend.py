"""An unreadable document is replaced by one writer, whoever else is at it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from store_schema import names
from store_schema.claims import claim, node_key
from store_schema.errors import SettingsConflictError
from store_schema.mend import put_over
from store_schema.objects import PARTIAL, LocalObjects
from store_schema.specs import fingerprint
from store_schema.store import Store
from store_schema.validate import validate
from tests.store_schema.samples import ARRAYS, GRID, add_features, add_slide

KEY = "zarr.json"


def test_the_first_settles_it(store: Store) -> None:
    objects = store.objects
    objects.put("a", b"{")
    assert put_over(objects, "a", b"{", b"first")
    assert not [key for key in objects.sizes("") if key.endswith(PARTIAL)]
    # one that saw the damage and was slow finds another document, and leaves it alone
    put_over(objects, "a", b"{", b"slow")
    assert objects.get("a") == b"first"


def test_what_a_killed_writer_settled_is_carried_out(local_store: Store) -> None:
    objects = local_store.objects
    assert isinstance(objects, LocalObjects)
    objects.put("a", b"{")
    notes: list[str] = []

    class Killed(LocalObjects):
        def get(self, key: str) -> bytes | None:
            notes.append(key)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put_over(Killed(objects.root), "a", b"{", b"first")
    assert objects.get(notes[0]) == b"first"
    assert not put_over(objects, "a", b"{", b"second")
    assert objects.get("a") == b"first"


def test_claims_on_a_damaged_document_are_exclusive(local_store: Store) -> None:
    """Many at once with different settings: one wins, the others are told; nobody believes otherwise."""
    objects = local_store.objects
    add_slide(local_store)
    n_threads = 6
    for attempt in range(15):
        path = f"s1/{GRID}/features/run{attempt}"
        objects.put(node_key(path), b"{")
        barrier = Barrier(n_threads)

        def contend(number: int, path: str = path, barrier: Barrier = barrier) -> int | None:
            ours = {
                names.KIND: names.SELECTIONS,
                names.PROVENANCE: {"number": number},
                names.FINGERPRINT: fingerprint({"number": number}),
                names.SELECTED: 0,
                names.COMPLETE: False,
            }
            barrier.wait()
            try:
                return int(claim(objects, path, ours)[names.PROVENANCE]["number"])
            except SettingsConflictError:
                return None

        with ThreadPoolExecutor(n_threads) as pool:
            won = [number for number in pool.map(contend, range(n_threads)) if number is not None]
        assert len(won) == 1
    assert not [key for key in objects.sizes("") if key.endswith(PARTIAL)]


def test_runs_on_just_this_grid_outlive_its_document(store: Store) -> None:
    slide = add_slide(store)
    made_by = slide.grid_attrs(GRID)[names.FINGERPRINT]
    add_features(slide, "others")
    kept = slide.create_tile_group(GRID, names.FEATURES, "kept", ARRAYS, {"grid": made_by})
    store.objects.delete(f"s1/{GRID}/{KEY}")
    assert {violation.code for violation in validate(store)} >= {"missing-metadata"}

    add_slide(store)

    assert list(slide.features(GRID)) == ["kept"]
    assert slide.block_group(GRID, names.FEATURES, "kept").attrs == kept.attrs
    assert {violation.code for violation in validate(store)} == {"missing-block"}
