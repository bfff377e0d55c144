"""Stitched arrays in the store: only where there is something, gone on with after a kill, mended, never half read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask.delayed import Delayed

from dataflow.stitch import Stitched
from dataflow.stitch_spec import StitchSpec
from dataflow.stitch_store import StitchResult, in_threads, stitch_slide
from store_schema import names
from store_schema.errors import (
    DamagedBlockError,
    DamagedMetadataError,
    IncompleteError,
    NotInStoreError,
    SettingsConflictError,
    SlidestreamError,
)
from store_schema.leftovers import leftovers
from store_schema.specs import ArraySpec, GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import create_store, open_store
from store_schema.validate import validate

Digests = Callable[[Path], dict[str, str]]

GRID = GridSpec(tile_px=64, mpp=0.5, stride_px=64, label="tiles")
RUN = f"s/{GRID.name}/scores/run"
MASK = f"s/{GRID.name}/masks/stitched"
PX = 4.0  # 3 x 4 chunks of the slide
TILES = ((0, 0), (0, 1), (1, 0), (3000 // 64, 12000 // 64), (9000 // 64, 100))  # (row, col)
SPEC = StitchSpec(px_level0=PX)


@dataclass(frozen=True)
class Bench:
    """A store with a few far tiles, and the call that stitches them."""

    store: Path

    def stitched(self, spec: StitchSpec = SPEC, array: str = "map") -> Stitched:
        slide = open_store(self.store)["s"]
        return Stitched.of(slide, GRID.name, names.SCORES, "run", array, spec)

    def run(
        self, spec: StitchSpec = SPEC, name: str = "stitched", array: str = "map", **how: Any
    ) -> StitchResult:
        slide = open_store(self.store, mode="r+")["s"]
        return stitch_slide(slide, self.stitched(spec, array), name, **how)

    def read(self, name: str = "stitched") -> dict[str, np.ndarray[Any, Any]]:
        found = open_store(self.store)["s"].raster(GRID.name, name).load()
        return {str(array): found[array].values for array in found}

    def chunks(self, name: str = "stitched") -> set[str]:
        folder = self.store / f"s/{GRID.name}/masks/{name}"
        return {p.relative_to(folder).as_posix() for p in folder.rglob("c/**/*") if p.is_file()}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a store of one slide with scores of three arrays."""
    path = tmp_path_factory.mktemp("scored") / "s.zarr"
    slide = create_store(path).add_slide(
        SlideRecord("s", "/s.svs", "c0ffee", "none", 15000, 10000, 0.5, "user")
    )
    row, col = np.array(TILES, np.int32).T
    table = TileTable(col * 64, row * 64, row, col, np.ones(len(row), np.float32))
    slide.create_grid(GRID, GridGeometry(64, 64.0, 157, 235), table, {}, block_tiles=2)
    classes = {"class_names": ["normal tissue", "tumour"]}
    arrays = {
        "map": ArraySpec(("tile", "map_y", "map_x"), (8, 8), "float32", {"long_name": "error"}),
        "probability": ArraySpec(("tile", "class"), (2,), "float32", classes),
        "label": ArraySpec(("tile", "map_y", "map_x"), (8, 8), "uint8"),
    }
    group = slide.create_tile_group(GRID.name, names.SCORES, "run", arrays, {"model": 1})
    generator = np.random.default_rng(0)
    values: dict[str, np.ndarray[Any, Any]] = {
        "map": generator.random((5, 8, 8)).astype(np.float32),
        "probability": np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [1, 0], [0, 1]], np.float32),
        "label": generator.integers(0, 3, (5, 8, 8)).astype(np.uint8),
    }
    values["map"][3] = np.nan
    values["probability"][4] = np.nan
    for block in range(group.n_blocks):
        span = group.block_slice(block)
        group.write_block(block, {name: array[span] for name, array in values.items()})
    return Bench(path)


@pytest.fixture
def bench(scored: Bench, tmp_path: Path) -> Bench:
    shutil.copytree(scored.store, tmp_path / "s.zarr")
    return Bench(tmp_path / "s.zarr")


@pytest.fixture(scope="module")
def made(scored: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return the same, stitched."""
    path = tmp_path_factory.mktemp("made") / "s.zarr"
    shutil.copytree(scored.store, path)
    bench = Bench(path)
    assert bench.run().n_painted == 3
    assert validate(path) == []
    return bench


@pytest.fixture
def stitched(made: Bench, tmp_path: Path) -> Bench:
    shutil.copytree(made.store, tmp_path / "made.zarr")
    return Bench(tmp_path / "made.zarr")


def test_empty_ground_costs_nothing(made: Bench) -> None:
    """Of 12 chunks tiles touch 3, and one of those has nothing but NaN."""
    assert made.chunks() == {"map/c/0/0", "map/c/2/1"}
    values = made.read()["map"]
    assert values.shape == (2500, 3750)
    lazy = made.stitched()
    np.testing.assert_array_equal(values[:32, :32], lazy[:32, :32])
    assert np.isfinite(values).sum() == 4 * 16 * 16
    assert not leftovers(open_store(made.store), 0)


def test_what_it_says_of_itself(made: Bench) -> None:
    attrs = open_store(made.store)["s"].run_attrs(GRID.name, names.MASKS, "stitched")
    assert attrs[names.PX_LEVEL0] == PX
    assert attrs[names.EXTRA] == {"source": "scores/run/map"}
    source = open_store(made.store)["s"].run_attrs(GRID.name, names.SCORES, "run")
    assert attrs[names.PROVENANCE]["source"]["fingerprint"] == source[names.FINGERPRINT]
    assert attrs[names.CHUNKS] == {"map": 2}
    ds = open_store(made.store)["s"].raster(GRID.name, "stitched")
    assert ds["map"].attrs["long_name"] == "error"
    assert ds["map"].chunks is not None


def test_the_same_again_does_nothing(stitched: Bench, made: Bench, store_digests: Digests) -> None:
    def not_to_be_called(tasks: Sequence[Delayed]) -> Sequence[int]:
        raise AssertionError

    result = stitched.run(compute=not_to_be_called)
    assert (result.n_chunks, result.n_painted, result.n_bytes) == (3, 0, 0)
    assert store_digests(stitched.store) == store_digests(made.store)


def test_other_settings_are_refused_by_name(
    stitched: Bench, made: Bench, store_digests: Digests
) -> None:
    for spec, difference in (
        (replace(SPEC, mode="max"), "with --mode mean and not with --mode max"),
        (replace(SPEC, px_level0=8.0), "with --px 4 and not with --px 8"),
        (replace(SPEC, dtype="float16"), "with --dtype float32 and not with --dtype float16"),
    ):
        with pytest.raises(SettingsConflictError, match=difference):
            stitched.run(spec)
    with pytest.raises(
        SettingsConflictError, match="from scores/run/map and not from scores/run/l"
    ):
        stitched.run(array="label")
    assert store_digests(stitched.store) == store_digests(made.store)
    stitched.run(replace(SPEC, mode="max", dtype="float16"), overwrite=True)
    assert stitched.read()["map"].dtype == np.float16
    assert validate(stitched.store) == []


@pytest.mark.parametrize("n_before", [0, 1, 2, 3])
def test_after_a_kill_it_goes_on(
    bench: Bench, made: Bench, store_digests: Digests, n_before: int
) -> None:
    def killed(tasks: Sequence[Delayed]) -> Sequence[int]:
        in_threads(tasks[:n_before])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(compute=killed)
    with pytest.raises(IncompleteError, match="not wholly written"):
        bench.read()
    assert {violation.code for violation in validate(bench.store)} == {"incomplete"}
    stored = len(bench.chunks())

    # a chunk of nothing but NaN leaves no trace, so it is painted again
    assert bench.run().n_painted == 3 - stored
    assert store_digests(bench.store) == store_digests(made.store)


def test_a_damaged_chunk(
    stitched: Bench, made: Bench, store_digests: Digests, spoil: Callable[[bytes], bytes]
) -> None:
    file = stitched.store / MASK / "map/c/2/1"
    file.write_bytes(spoil(file.read_bytes()))
    assert [(v.code, v.path) for v in validate(stitched.store)] == [
        ("damaged-block", f"{MASK}/map/c/2/1")
    ]
    with pytest.raises(DamagedBlockError):
        stitched.read()
    assert stitched.run(verify=False).n_painted == 0
    assert stitched.run().n_painted == 1
    assert store_digests(stitched.store) == store_digests(made.store)


@pytest.mark.parametrize("lost", ["map/c/0/0", "map/zarr.json", "zarr.json", "../zarr.json", "."])
def test_what_is_lost(stitched: Bench, made: Bench, store_digests: Digests, lost: str) -> None:
    path = stitched.store / MASK / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if lost != ".":
        assert validate(stitched.store)
    try:
        np.testing.assert_equal(stitched.read(), made.read())
        assert lost == "../zarr.json", "only the container says nothing that is read"
    except SlidestreamError:
        pass
    stitched.run()
    assert validate(stitched.store) == []
    assert store_digests(stitched.store) == store_digests(made.store)


@pytest.mark.parametrize("path", [MASK, f"{MASK}/map"])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe\0"])
def test_an_unreadable_document_counts_as_lost(
    stitched: Bench, made: Bench, store_digests: Digests, path: str, data: bytes
) -> None:
    (stitched.store / path / "zarr.json").write_bytes(data)
    assert path in {violation.path for violation in validate(stitched.store)}
    with pytest.raises(DamagedMetadataError):
        stitched.read()
    stitched.run()
    assert store_digests(stitched.store) == store_digests(made.store)


ALTERED: dict[str, tuple[str, object]] = {
    "no place": (names.ORIGIN_LEVEL0, None),
    "no pixel size": (names.PX_LEVEL0, 0),
    "complete, perhaps": (names.COMPLETE, "yes"),
    "counts of text": (names.CHUNKS, {"map": "2"}),
    "other provenance": (names.PROVENANCE, {}),
}


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_document_is_replaced_when_told_to(
    stitched: Bench, made: Bench, store_digests: Digests, what: str
) -> None:
    alter(stitched.store, what, keep_digest=False)  # as of a store of before there were digests
    assert validate(stitched.store)
    with pytest.raises(DamagedMetadataError):
        stitched.read()
    with pytest.raises(DamagedMetadataError, match="--overwrite"):
        stitched.run()
    stitched.run(overwrite=True)
    assert store_digests(stitched.store) == store_digests(made.store)


@pytest.mark.parametrize("what", ALTERED)
def test_a_document_that_fails_its_digest_is_made_anew(
    stitched: Bench, made: Bench, store_digests: Digests, what: str
) -> None:
    alter(stitched.store, what, keep_digest=True)
    assert validate(stitched.store)
    with pytest.raises(DamagedMetadataError):
        stitched.read()
    stitched.run()
    assert store_digests(stitched.store) == store_digests(made.store)


def alter(store: Path, what: str, *, keep_digest: bool) -> None:
    key, value = ALTERED[what]
    file = store / MASK / "zarr.json"
    node = json.loads(file.read_bytes())
    attrs = node["attributes"][names.ATTR]
    attrs[key] = value
    if not keep_digest:
        del attrs[names.DIGEST]
    file.write_text(json.dumps(node))


def test_a_source_that_is_not_complete(bench: Bench) -> None:
    (bench.store / RUN / "map/c/1/0/0").unlink()
    with pytest.raises(IncompleteError, match="2/3 blocks"):
        bench.run()
    assert not (bench.store / MASK).exists()


def test_a_source_that_is_damaged(bench: Bench, flip: Callable[[bytes], bytes]) -> None:
    file = bench.store / RUN / "map/c/2/0/0"
    file.write_bytes(flip(file.read_bytes()))
    with pytest.raises(DamagedBlockError, match="map/c/2/0/0"):
        bench.run()
    with pytest.raises(IncompleteError):
        bench.read()


def test_names_that_are_not_there(bench: Bench) -> None:
    with pytest.raises(NotInStoreError, match="did you mean map"):
        bench.run(array="mapp")
    with pytest.raises(NotInStoreError, match="did you mean run"):
        Stitched.of(open_store(bench.store)["s"], GRID.name, names.SCORES, "runn", None, SPEC)


def test_the_greatest_class(bench: Bench) -> None:
    bench.run(replace(SPEC, argmax=True), array="probability")
    assert bench.chunks() == {
        *(f"confidence/c/{c}/{place}" for c in (0, 1) for place in ("0/0", "0/2")),
        *(f"mask/c/{place}" for place in ("0/0", "0/2")),
    }
    ds = open_store(bench.store)["s"].raster(GRID.name, "stitched")
    assert ds.confidence.dims == ("class", "y", "x")
    assert ds.confidence.dtype == np.float16
    assert ds.confidence.attrs["class_names"] == ["normal tissue", "tumour"]
    assert ds.mask.attrs["flag_meanings"] == "nothing normal_tissue tumour"
    assert ds.mask.attrs["flag_values"] == [0, 1, 2]
    mask = ds.mask.values
    assert mask.dtype == np.uint8
    assert [mask[8, 8], mask[8, 24], mask[24, 8], mask[24, 24]] == [1, 2, 1, 0], "a tie: the first"
    assert (mask > 0).sum() == 4 * 16 * 16, "no class is greatest where all are NaN"
    np.testing.assert_array_equal(mask > 0, np.isfinite(ds.confidence.values).all(axis=0))
    assert validate(bench.store) == []


def test_labels_stay_labels(bench: Bench) -> None:
    bench.run(StitchSpec("vote", px_level0=8.0), array="label")
    ds = open_store(bench.store)["s"].raster(GRID.name, "stitched")
    labels = open_store(bench.store)["s"].block_group(GRID.name, "scores", "run").read_block(0)
    assert ds.label.dtype == np.uint8
    np.testing.assert_array_equal(ds.label.values[:8, :8], labels["label"][0])
    assert validate(bench.store) == []
