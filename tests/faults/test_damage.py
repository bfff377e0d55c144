"""Damage of every kind, to every kind of object: found, never read as if it were sound, and mended by running again."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dataflow.discover import SlideSource
from dataflow.executors import SerialExecutor
from dataflow.pyramid_tiff import write_pyramid
from dataflow.stain import StainSpec
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver, StreamReport
from dataflow.stream_spec import EncodeSpec, IndexSpec, StreamSpec
from dataflow.tile_model import TileModelFactory
from dataflow.tissue import TissueSpec
from store_schema.errors import (
    DamagedBlockError,
    DamagedMetadataError,
    NotInStoreError,
    SettingsConflictError,
    SlidestreamError,
)
from store_schema.group_attributes import said, with_digest
from store_schema.names import ATTR
from store_schema.remedies import remedies
from store_schema.specs import GridGeometry, GridSpec, RasterSpec
from store_schema.store import create_store, open_store
from store_schema.validate import validate

SLIDE = "a"
TISSUE = TissueSpec(method="none")
GRID = GridSpec(tile_px=32, mpp=0.5, stride_px=32, tissue=TISSUE.to_json())
PATH = f"{SLIDE}/{GRID.name}"
RUN = f"{PATH}/features/mean"
MASK = f"{PATH}/masks/tissue"


@dataclass(frozen=True)
class Bench:
    """A store that is to be damaged, the intact one beside it, and the command that made both."""

    store: Path
    intact: Path
    slide: Path
    model: TileModelFactory

    def run(self, *, overwrite: bool = False) -> StreamReport:
        index = IndexSpec(GRID, TISSUE, block_tiles=16, overwrite=overwrite)
        encode = EncodeSpec("mean", self.model, StainSpec(method="none"), overwrite=overwrite)
        spec = StreamSpec(str(self.store), GRID.name, index, encode)
        create_store(self.store)
        source = SlideSource(SLIDE, str(self.slide))
        return run_stream(SerialExecutor(), spec, [source], StreamObserver())

    def read(self) -> dict[str, Any]:
        """Read all that there is to read."""
        store = open_store(self.store)
        slide = store[SLIDE]
        tiles = slide.tiles(GRID.name, features="mean").load()
        mask = slide.raster(GRID.name, "tissue").load()
        (bag,) = store.bags()
        return {
            **{str(name): tiles[name].values for name in tiles.variables},
            **{f"mask {name}": mask[name].values for name in mask.variables},
            "bag": bag.load(),
            "record": slide.record,
        }

    def write(self, key: str, data: bytes) -> None:
        (self.store / key).write_bytes(data)

    def edit(self, path: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Have a document say something else, in accord with its digest."""
        file = self.store / path / "zarr.json"
        node = json.loads(file.read_bytes())
        change(node)
        if said(node) is not None:
            node["attributes"][ATTR] = with_digest(node["attributes"][ATTR])
        file.write_text(json.dumps(node))

    def set(self, path: str, key: str, value: object) -> None:
        self.edit(path, lambda node: node["attributes"][ATTR].update({key: value}))

    def lose(self, path: str, key: str) -> None:
        self.edit(path, lambda node: node["attributes"][ATTR].pop(key))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, fault_run: ModuleType) -> Bench:
    folder = tmp_path_factory.mktemp("made")
    image = np.random.default_rng(0).integers(0, 256, (200, 260, 3), dtype=np.uint8)
    write_pyramid(folder / "a.tif", image, mpp=0.5, downsamples=(1,))
    bench = Bench(
        folder / "s.zarr", folder / "s.zarr", folder / "a.tif", fault_run.FaultModelFactory()
    )
    assert not bench.run().failures
    assert validate(bench.store) == []
    return bench


@pytest.fixture
def bench(made: Bench, tmp_path: Path) -> Bench:
    shutil.copytree(made.intact, tmp_path / "s.zarr")
    return replace(made, store=tmp_path / "s.zarr")


Digests = Callable[[Path], dict[str, str]]


def assert_found(bench: Bench, intact: dict[str, Any]) -> None:
    """Validation finds the damage and says what to do; reading raises one of our errors, or is right."""
    violations = validate(bench.store)
    assert violations
    assert all(remedies(violations).values())
    with contextlib.suppress(SlidestreamError):  # any other error is a failure
        np.testing.assert_equal(bench.read(), intact)


CHUNKS = [
    *(f"{PATH}/{name}/c/0" for name in ("x", "y", "row", "col", "tissue")),
    f"{MASK}/mask/c/0/0",
    f"{RUN}/features/c/1/0",
    f"{RUN}/stain_method/c/1",
]


@pytest.mark.parametrize("key", CHUNKS)
def test_a_chunk(
    bench: Bench,
    made: Bench,
    store_digests: Digests,
    key: str,
    spoil: Callable[[bytes], bytes],
) -> None:
    bench.write(key, spoil((bench.store / key).read_bytes()))

    assert_found(bench, made.read())
    assert {violation.path for violation in validate(bench.store)} == {key}

    assert not bench.run().failures
    assert validate(bench.store) == []
    assert store_digests(bench.store) == store_digests(made.intact)


DOCUMENTS = [
    SLIDE,
    PATH,
    f"{PATH}/x",
    f"{PATH}/tissue",
    f"{PATH}/masks",
    MASK,
    f"{MASK}/mask",
    f"{PATH}/features",
    RUN,
    f"{RUN}/features",
    f"{RUN}/stain_method",
]
GARBAGE = {"empty": b"", "cut": b"{", "list": b"[]", "binary": b"\xff\xfe\0", "lost": None}


@pytest.mark.parametrize("path", DOCUMENTS)
@pytest.mark.parametrize("what", GARBAGE)
def test_an_unreadable_document_counts_as_lost(
    bench: Bench, made: Bench, store_digests: Digests, path: str, what: str
) -> None:
    data = GARBAGE[what]
    if data is None:
        (bench.store / path / "zarr.json").unlink()
    else:
        bench.write(f"{path}/zarr.json", data)

    assert_found(bench, made.read())
    assert any(violation.path == path for violation in validate(bench.store)) or data is None

    report = bench.run()
    assert not report.failures
    assert validate(bench.store) == []
    assert store_digests(bench.store) == store_digests(made.intact)
    if path != RUN:
        assert report.tiles_done == 0, "what was sound was made again"


ALTERED: dict[str, Callable[[Bench], None]] = {
    "slide without width": lambda b: b.lose(SLIDE, "width"),
    "slide without fingerprint": lambda b: b.lose(SLIDE, "fingerprint"),
    "slide without kind": lambda b: b.lose(SLIDE, "kind"),
    "slide with a width of text": lambda b: b.set(SLIDE, "width", "260"),
    "grid without n_tiles": lambda b: b.lose(PATH, "n_tiles"),
    "grid with other n_tiles": lambda b: b.set(PATH, "n_tiles", 40),
    "grid with n_tiles of text": lambda b: b.set(PATH, "n_tiles", "48"),
    "grid without geometry": lambda b: b.lose(PATH, "geometry"),
    "grid with a strange geometry": lambda b: b.set(PATH, "geometry", {"tile_level0": 32}),
    "grid with a strange spec": lambda b: b.set(PATH, "spec", {"tile_px": "32"}),
    "grid with other provenance": lambda b: b.set(PATH, "provenance", {}),
    "grid as an array": lambda b: b.edit(PATH, lambda node: node.update(node_type="array")),
    "grid of another zarr": lambda b: b.edit(PATH, lambda node: node.update(zarr_format=2)),
    "mask without complete": lambda b: b.lose(MASK, "complete"),
    "mask without place": lambda b: b.lose(MASK, "origin_level0"),
    "features without arrays": lambda b: b.lose(RUN, "arrays"),
    "features without extra": lambda b: b.lose(RUN, "extra"),
    "features with other n_tiles": lambda b: b.set(RUN, "n_tiles", 40),
    "features with other block_tiles": lambda b: b.set(RUN, "block_tiles", 8),
    "features with odd arrays": lambda b: b.set(RUN, "arrays", {"features": {"dims": 1}}),
    "features as scores": lambda b: b.set(RUN, "kind", "scores"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_document_is_replaced_when_told_to(
    bench: Bench, made: Bench, store_digests: Digests, what: str
) -> None:
    ALTERED[what](bench)

    assert_found(bench, made.read())
    with pytest.raises((DamagedMetadataError, DamagedBlockError, NotInStoreError)):
        bench.read()

    (failure,) = bench.run().failures
    assert failure.reason in ("damaged-metadata", "settings-conflict")
    assert "--overwrite" in failure.message

    assert not bench.run(overwrite=True).failures
    assert validate(bench.store) == []
    assert store_digests(bench.store) == store_digests(made.intact)


@pytest.mark.parametrize("path", [f"{PATH}/x", f"{RUN}/features", f"{RUN}/stain_method"])
@pytest.mark.parametrize(
    "change", [{"shape": [1]}, {"data_type": "int8"}, {"chunk_grid": {}}, {"codecs": []}]
)
def test_an_altered_array_document_is_written_again(
    bench: Bench, made: Bench, store_digests: Digests, path: str, change: dict[str, Any]
) -> None:
    bench.edit(path, lambda node: node.update(change))
    assert_found(bench, made.read())
    assert not bench.run().failures
    assert store_digests(bench.store) == store_digests(made.intact)


def test_a_slide_that_says_another_size(bench: Bench, made: Bench, store_digests: Digests) -> None:
    bench.set(SLIDE, "width", 261)
    (failure,) = bench.run().failures
    assert "width: stored 261, asked 260" in failure.message
    assert "--overwrite" in failure.message
    assert not bench.run(overwrite=True).failures
    assert store_digests(bench.store) == store_digests(made.intact)


@pytest.mark.parametrize("path", [SLIDE, PATH, f"{RUN}/features"])
def test_a_file_where_a_folder_should_be(bench: Bench, path: str) -> None:
    shutil.rmtree(bench.store / path)
    bench.write(path, b"x")
    assert ("foreign-object", path) in {(v.code, v.path) for v in validate(bench.store)}
    (failure,) = bench.run().failures
    assert failure.reason == "storage"


def test_a_folder_where_a_block_should_be(bench: Bench) -> None:
    key = f"{RUN}/features/c/1/0"
    (bench.store / key).unlink()
    (bench.store / key).mkdir()
    codes = {(violation.code, violation.path) for violation in validate(bench.store)}
    assert codes == {("foreign-object", key), ("missing-block", key)}


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe\0"])
def test_the_root(bench: Bench, made: Bench, data: bytes) -> None:
    bench.write("zarr.json", data)
    (violation,) = validate(bench.store)
    assert violation.code == "damaged-metadata"
    assert "another store" in remedies([violation])["damaged-metadata"]
    for refused in (bench.read, bench.run):
        with pytest.raises(DamagedMetadataError, match="copy it from another store"):
            refused()
    bench.write("zarr.json", (made.intact / "zarr.json").read_bytes())
    assert validate(bench.store) == []


def test_a_root_of_no_version(bench: Bench) -> None:
    bench.set("", "schema_version", "x")
    with pytest.raises(DamagedMetadataError, match="schema_version is 'x'"):
        bench.read()


def test_a_damaged_grid_is_not_mended_with_other_tiles(bench: Bench) -> None:
    """What is stored on the grid belongs to the tiles it had."""
    slide = open_store(bench.store, mode="r+")[SLIDE]
    table, attrs = slide.tile_table(GRID.name), slide.grid_attrs(GRID.name)
    mask = slide.raster(GRID.name, "tissue").mask.values
    bench.write(f"{PATH}/x/c/0", b"")
    with pytest.raises(SettingsConflictError, match="other tiles now than when it was made"):
        slide.create_grid(
            GRID,
            GridGeometry(**attrs["geometry"]),
            replace(table, y=table.y + 1),
            attrs["provenance"],
            counts=attrs["counts"],
            rasters={"tissue": (RasterSpec(("y", "x"), mask.shape, "uint8", 1.0), mask)},
            block_tiles=16,
        )
