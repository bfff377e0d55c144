from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store_schema import names
from store_schema.errors import (
    IncompleteError,
    InvalidNameError,
    NotAStoreError,
    NotInStoreError,
    SchemaVersionError,
    SettingsConflictError,
    SlideChangedError,
    StoreError,
)
from store_schema.group_attributes import with_digest
from store_schema.objects import Objects, open_objects
from store_schema.specs import GridGeometry, GridSpec
from store_schema.store import Store, create_store, open_store
from tests.store_schema.samples import (
    ARRAYS,
    GRID,
    MODEL,
    PROVENANCE,
    SPEC,
    add_features,
    add_slide,
    claim_features,
    record,
    table,
    write,
)


def contents(objects: Objects) -> dict[str, bytes | None]:
    return {key: objects.get(key) for key in objects.sizes("")}


def test_create_is_idempotent(url: str) -> None:
    create_store(url)
    before = contents(open_objects(url))
    create_store(url)
    assert contents(open_objects(url)) == before
    assert open_store(url).slides == []


def test_no_store(url: str, tmp_path: Path) -> None:
    with pytest.raises(NotAStoreError, match=f"slidestream run SLIDES --store {re.escape(url)}"):
        open_store(url)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("text")
    with pytest.raises(NotAStoreError, match="thesis"):
        create_store(tmp_path / "other")
    with pytest.raises(NotAStoreError):
        open_store(tmp_path / "other")


def test_a_file_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(b"x")
    with pytest.raises(NotAStoreError):
        open_store(path)
    with pytest.raises(StoreError):
        create_store(path)
    assert path.read_bytes() == b"x"


def test_foreign_zarr_is_no_store(url: str) -> None:
    objects = open_objects(url)
    objects.put("zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(NotAStoreError):
        open_store(url)
    with pytest.raises(NotAStoreError):
        create_store(url)


@pytest.mark.parametrize(
    ("version", "words"), [(2, "upgrade slidestream"), (0, "older than version 1")]
)
def test_other_schema_versions(url: str, version: int, words: str) -> None:
    objects = create_store(url).objects
    root = json.loads(objects.get("zarr.json") or b"")
    ours = {**root["attributes"][names.ATTR], names.VERSION: version}
    root["attributes"][names.ATTR] = with_digest(ours)
    objects.put("zarr.json", json.dumps(root).encode())
    for opener in (open_store, create_store):
        with pytest.raises(SchemaVersionError, match=words):
            opener(url)


def test_only_the_root_has_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name in ("one", "two"):
        store = create_store(tmp_path / name / "cohort.zarr")
        add_features(add_slide(store))
        found = contents(store.objects)
        root = json.loads(found.pop("zarr.json") or b"")
        assert root["attributes"][names.ATTR].pop(names.CREATED)
        assert root["attributes"][names.ATTR].pop(names.DIGEST)
        made.append((root, found))
    assert made[0] == made[1]


def test_slides(store: Store) -> None:
    for slide_id in ("b", "a"):
        assert store.add_slide(record(slide_id)).record == record(slide_id)
    assert store.slides == list(store) == store.keys() == ["a", "b"]
    assert len(store) == 2
    assert "a" in store
    assert "../a" not in store
    assert open_store(store.url)["a"].slide_id == "a"
    assert pickle.loads(pickle.dumps(store)).slides == ["a", "b"]


def test_unknown_slide_names_near_ones(store: Store) -> None:
    for number in range(12):
        store.add_slide(record(f"tumor_{number:03}"))
    with pytest.raises(NotInStoreError, match=r"no slide 'tumor_01': did you mean tumor_0"):
        store["tumor_01"]
    with pytest.raises(NotInStoreError, match="and 4 more"):
        store["zzz"]
    with pytest.raises(KeyError):
        store["../../etc"]


def test_same_slide_from_another_place_is_fine(store: Store) -> None:
    store.add_slide(record())
    slide = store.add_slide(record(source="/mnt/other/s1.svs", mpp_source="user"))
    assert slide.record == record()


def test_another_slide_under_the_same_id(store: Store) -> None:
    store.add_slide(record())
    with pytest.raises(
        SlideChangedError, match=r"digest of s1.*/new/s1.svs.*content other.*another slide id"
    ):
        store.add_slide(record(fingerprint="other", source="/new/s1.svs"))
    with pytest.raises(SettingsConflictError, match=r"mpp: stored 0.25, asked 0.5"):
        store.add_slide(record(mpp=0.5))
    with pytest.raises(InvalidNameError):
        store.add_slide(record("a/b"))


def test_reading_stores_takes_no_slides(store: Store) -> None:
    with pytest.raises(StoreError, match="open for reading"):
        open_store(store.url).add_slide(record())


def test_grid(store: Store) -> None:
    slide = add_slide(store, n_tiles=20)
    assert slide.grids == [GRID]
    assert slide.grid_complete(GRID)
    attrs = slide.grid_attrs(GRID)
    assert attrs[names.N_TILES] == 20
    assert attrs[names.BLOCK_TILES] == 8
    assert attrs[names.SPEC] == SPEC.to_json()
    assert attrs[names.GEOMETRY]["tile_level0"] == 64
    assert attrs[names.COUNTS] == {"kept": 20}
    assert attrs[names.PROVENANCE] == PROVENANCE
    found = slide.tile_table(GRID)
    for name in ("x", "y", "row", "col", "tissue"):
        np.testing.assert_array_equal(getattr(found, name), getattr(table(20), name))
        assert getattr(found, name).dtype == getattr(table(20), name).dtype
    with pytest.raises(NotInStoreError, match=re.escape(f"did you mean {GRID}")):
        slide.grid_attrs("32px_0.5mpp")
    with pytest.raises(NotInStoreError):
        slide.grid_attrs("../x")


def test_grid_again_is_a_no_op_and_another_one_a_conflict(store: Store) -> None:
    slide = add_slide(store)
    before = contents(store.objects)
    add_slide(store)
    assert contents(store.objects) == before
    other = {"slide": "c0ffee", "grid": {"tile_px": 32, "mpp": 0.5}, "tissue": "none"}
    with pytest.raises(
        SettingsConflictError, match=r"tissue: stored None, asked 'none'.*--overwrite"
    ):
        slide.create_grid(SPEC, GridGeometry(64, 64.0, 3, 7), table(20), other, block_tiles=8)
    add_features(slide)
    slide.create_grid(SPEC, GridGeometry(64, 64.0, 3, 7), table(5), other, overwrite=True)
    assert len(slide.tile_table(GRID)) == 5
    assert slide.features(GRID) == {}


def test_an_interrupted_grid_is_completed(store: Store) -> None:
    slide = add_slide(store)
    before = contents(store.objects)
    for key in [
        key
        for key in before
        if key.startswith(f"s1/{GRID}/") and not key.endswith(f"{GRID}/zarr.json")
    ]:
        store.objects.delete(key)
        assert not slide.grid_complete(GRID) or "/masks/" in key
        if key.endswith("/x/c/0"):
            with pytest.raises(IncompleteError, match="indexes the slide again"):
                slide.tile_table(GRID)
        add_slide(store)
        if "/masks/" not in key or key.endswith("tissue/zarr.json"):
            assert contents(store.objects)[key] == before[key]
            assert slide.grid_complete(GRID)


def test_an_empty_grid_is_complete(store: Store) -> None:
    slide = add_slide(store, n_tiles=0)
    assert slide.grid_complete(GRID)
    assert len(slide.tile_table(GRID)) == 0
    group = claim_features(slide)
    assert (group.n_blocks, group.done(), group.missing_blocks()) == (0, (0, 0), [])


def test_claims_name_what_differs(store: Store) -> None:
    slide = add_slide(store)
    claim_features(slide)
    claim_features(slide)
    with pytest.raises(SettingsConflictError) as caught:
        claim_features(slide, stain={"method": "macenko", "fit": "slide"}, precision="bf16")
    text = str(caught.value)
    assert "stain.method: stored 'none', asked 'macenko'" in text
    assert "stain.fit: stored None, asked 'slide'" in text
    assert "precision: stored 'fp32', asked 'bf16'" in text
    assert "weights" not in text
    assert "--overwrite" in text


def test_other_arrays_under_the_same_provenance_conflict(store: Store) -> None:
    slide = add_slide(store)
    claim_features(slide)
    with pytest.raises(SettingsConflictError, match=r"arrays.stain_method"):
        slide.create_tile_group(GRID, "features", "enc", {"features": ARRAYS["features"]}, MODEL)


def test_extra_is_kept_but_not_compared(store: Store) -> None:
    slide = add_slide(store)
    first = slide.create_tile_group(GRID, "scores", "vae", ARRAYS, MODEL, extra={"seen": 1})
    again = slide.create_tile_group(GRID, "scores", "vae", ARRAYS, MODEL, extra={"seen": 2})
    assert first.attrs[names.EXTRA] == again.attrs[names.EXTRA] == {"seen": 1}
    assert list(again.arrays) == ["features", "stain_method"]


def test_overwrite_starts_anew(store: Store) -> None:
    slide = add_slide(store)
    add_features(slide)
    group = slide.create_tile_group(
        GRID, "features", "enc", ARRAYS, {"weights": "new"}, overwrite=True
    )
    assert group.done() == (0, 3)
    assert group.attrs[names.PROVENANCE] == {"weights": "new"}


def test_blocks_without_a_claim_are_never_taken_for_done(store: Store) -> None:
    slide = add_slide(store)
    add_features(slide)
    store.objects.delete(f"s1/{GRID}/features/enc/zarr.json")  # what made them is forgotten
    assert claim_features(slide, weights="others").done() == (0, 3)


def test_progress_and_repr(store: Store) -> None:
    slide = add_slide(store)
    add_slide(store, "s2")
    add_features(slide)
    group = claim_features(store["s2"])
    write(group, add_features(slide, "enc"), [1])
    assert store["s2"].features(GRID) == {"enc": (1, 3)}
    assert store["s2"].scores(GRID) == {}
    text = repr(store)
    assert "2 slides" in text
    assert f"{GRID}: 2 slides, 40 tiles" in text
    assert "features/enc: 1/2 slides complete, 4/6 blocks" in text
    assert "features/enc: 1/3" in repr(store["s2"])
    assert "0.25 µm/px" in repr(store["s2"])


def test_unknown_run_names_near_ones(store: Store) -> None:
    slide = add_slide(store)
    add_features(slide, "resnet50")
    with pytest.raises(NotInStoreError, match="did you mean resnet50"):
        slide.block_group(GRID, "features", "resnet")
    with pytest.raises(NotInStoreError, match="there are none yet"):
        slide.block_group(GRID, "scores", "vae")


def test_selection(store: Store) -> None:
    slide = add_slide(store)
    index, score = np.array([4, 19, 0], np.int32), np.array([0.9, 0.5, 0.1], np.float32)
    slide.write_selection(GRID, "top3", index, score, {"k": 3})
    slide.write_selection(GRID, "top3", index, score, {"k": 3})
    found = slide.selection(GRID, "top3")
    np.testing.assert_array_equal(found[0], index)
    np.testing.assert_array_equal(found[1], score)
    with pytest.raises(SettingsConflictError, match="k: stored 3, asked 4"):
        slide.write_selection(GRID, "top3", index, score, {"k": 4})
    for wrong in ([0, 0, 1], [0, 1, 20], [-1, 0, 1]):
        with pytest.raises(ValueError, match="twice, or one outside"):
            slide.write_selection(GRID, "bad", np.array(wrong, np.int32), score, {})
    with pytest.raises(NotInStoreError, match="did you mean top3"):
        slide.selection(GRID, "top")


def test_names_are_checked_at_the_door(store: Store) -> None:
    slide = add_slide(store)
    for name in ("timm:resnet50/x", "..", ""):
        with pytest.raises(InvalidNameError):
            claim_features(slide, name)


def test_grid_spec_with_odd_name_fails(store: Store) -> None:
    class Odd(GridSpec):
        @property
        def name(self) -> str:
            return "../x"

    slide = store.add_slide(record())
    with pytest.raises(InvalidNameError):
        slide.create_grid(Odd(32, 0.5, 32), GridGeometry(64, 64.0, 1, 1), table(1), {})


def test_importing_errors_is_cheap() -> None:
    import subprocess
    import sys

    code = (
        "import sys, store_schema.errors, store_schema\n"
        "print([m for m in ('zarr', 'xarray', 'numpy') if m in sys.modules])"
    )
    done: Any = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
