"""Objects of all classes with one bit flipped, or cut short: found, and mended by running again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import dask
import numpy as np
import pytest

from store_schema.claims import CONSOLIDATED
from store_schema.errors import NotAStoreError, SlidestreamError, StoreError
from store_schema.finalize import finalize
from store_schema.group_attributes import parsed
from store_schema.objects import open_objects
from store_schema.prototypes import PrototypeBank
from store_schema.remedies import remedies
from store_schema.specs import (
    ArraySpec,
    GridGeometry,
    GridSpec,
    RasterSpec,
    SlideRecord,
    TileTable,
)
from store_schema.store import Store, create_store, open_store
from store_schema.validate import validate

N_TILES, N_COLS, BLOCK_TILES = 20, 7, 16
GRID = GridSpec(tile_px=32, mpp=0.5, stride_px=32, tissue={"method": "otsu"})
SLIDE = SlideRecord("s", "/slides/s.svs", "c0ffee", "aperio", 448, 640, 0.25, "properties", 40.0)
MADE: dict[str, Any] = {
    "slide": "c0ffee",
    "weights": "0123",
    "stain": {"method": "none"},
    "β": 1e-5,
}
RUNS = {
    "features": {
        "features": ArraySpec(("tile", "feature"), (5,), "float16", {"long_name": "features"}),
        "stain_method": ArraySpec(("tile",), (), "uint8", {"flag_values": [0, 1]}),
    },
    "scores": {
        "score": ArraySpec(("tile",), (), "float32", {"units": "1"}),
        "probability": ArraySpec(("tile", "class"), (2,), "float32", {"class_names": ["a", "b"]}),
    },
}
EXTRA = {"stain_basis": [0.65, 0.07, 0.7, 0.99], "note": "é"}


def make(url: str, *, overwrite: bool = False) -> None:
    """Write a store with every kind of group there is, or mend it: what the commands do, without their models."""
    store = create_store(url)
    slide = store.add_slide(SLIDE, overwrite=overwrite)
    index = np.arange(N_TILES, dtype=np.int32)
    row, col = index // N_COLS, index % N_COLS
    tissue = np.linspace(0, 1, N_TILES, dtype=np.float32)
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, (40, 30), np.uint8)
    slide.create_grid(
        GRID,
        GridGeometry(64, 64.0, 3, N_COLS),
        TileTable(x=col * 64, y=row * 64, row=row, col=col, tissue=tissue),
        MADE,
        counts={"kept": N_TILES, "lattice": 21},
        rasters={"tissue": (RasterSpec(("y", "x"), mask.shape, "uint8", 16.0), mask)},
        block_tiles=BLOCK_TILES,
        overwrite=overwrite,
    )
    for kind, arrays in RUNS.items():
        group = slide.create_tile_group(
            GRID.name, kind, "run", arrays, MADE, extra=EXTRA, overwrite=overwrite
        )
        values = {
            name: rng.integers(0, 2, (N_TILES, *spec.shape)).astype(spec.dtype)
            for name, spec in arrays.items()
        }
        for block in group.missing_blocks():
            span = group.block_slice(block)
            group.write_block(block, {name: array[span] for name, array in values.items()})
    slide.write_selection(
        GRID.name, "top", index[:6], tissue[:6], MADE, extra=EXTRA, overwrite=overwrite
    )
    place: dict[str, Any] = {"px_level0": 0.5, "origin_level0": (3.0, 4.0)}
    classes = {"class_names": ["a", "b"], "long_name": "confidence"}
    confidence = rng.random((2, 40, 30)).astype(np.float16)
    slide.write_raster(
        GRID.name,
        "segmented",
        {
            "mask": (RasterSpec(("y", "x"), (40, 30), "uint8", **place), mask),
            "confidence": (
                RasterSpec(("class", "y", "x"), (2, 40, 30), "float16", attrs=classes, **place),
                confidence,
            ),
        },
        MADE,
        extra=EXTRA,
        overwrite=overwrite,
    )
    store.write_prototypes(
        PrototypeBank(
            name="bank",
            features=np.eye(3, 5, dtype=np.float32),
            class_names=("a", "b"),
            k_list=(2, 1),
            cluster_size=np.array([4, 5, 6], np.int32),
            slides=("s",),
            exemplar_slide=np.zeros((3, 2), np.int32),
            exemplar_tile=np.arange(6, dtype=np.int32).reshape(3, 2),
            exemplar_similarity=np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2),
            provenance={"encoder": {"weights": "0123"}, "stain": {}, "grid": {"name": GRID.name}},
            extra=EXTRA,
        ),
        overwrite=overwrite,
    )


def read(store: Store, key: str = "zarr.json") -> Iterator[tuple[str, Any]]:
    """Yield what the store says and holds, as our readers give it: all that an object takes part in."""
    slide = store["s"]
    yield "record", asdict(slide.record)
    yield "grid", slide.grid_attrs(GRID.name)
    concerned = [kind for kind in PARTS if f"/{kind}/" in f"/{key}"]
    for kind in concerned or PARTS:
        yield from PARTS[kind](store)


def read_run(store: Store, kind: str) -> Iterator[tuple[str, Any]]:
    yield kind, store["s"].run_attrs(GRID.name, kind, "run")
    runs: dict[str, Literal["run", False]] = {"features": False, "scores": False, kind: "run"}
    tiles = store["s"].tiles(GRID.name, features=runs["features"], scores=runs["scores"])
    for name in tiles.variables:
        yield f"{kind} {name}", (tiles[name].values, tiles[name].dims, tiles[name].attrs)
    if kind == "features":
        (bag,) = store.bags(features="run")
        yield "bag", bag.load()


def read_masks(store: Store) -> Iterator[tuple[str, Any]]:
    for name in ("tissue", "segmented"):
        yield f"{name} group", store["s"].run_attrs(GRID.name, "masks", name)
        raster = store["s"].raster(GRID.name, name)
        for array in raster.variables:
            yield f"{name} {array}", (raster[array].values, raster[array].dims, raster[array].attrs)


def read_selection(store: Store) -> Iterator[tuple[str, Any]]:
    yield "selection", store["s"].selection(GRID.name, "top")
    yield "selection group", store["s"].run_attrs(GRID.name, "selections", "top")


def read_bank(store: Store) -> Iterator[tuple[str, Any]]:
    yield "bank", dict(vars(store.prototypes("bank")))


PARTS: dict[str, Callable[[Store], Iterator[tuple[str, Any]]]] = {
    "features": partial(read_run, kind="features"),
    "scores": partial(read_run, kind="scores"),
    "masks": read_masks,
    "selections": read_selection,
    ".prototypes": read_bank,
}


@dataclass(frozen=True)
class Bench:
    """A store to be damaged, and what every object of it holds when it is sound."""

    url: str
    intact: dict[str, bytes]
    contents: dict[str, Any]

    def is_found(self, key: str, data: bytes) -> bool:
        """Put damaged data in an object's place; tell whether anybody noticed, and see that nobody read it as sound."""
        objects = open_objects(self.url)
        objects.put(key, data)
        try:
            violations = validate(self.url)
        except NotAStoreError:
            assert key == "zarr.json"
            return True
        assert not violations or all(remedies(violations).values())
        try:
            store = open_store(self.url)
        except SlidestreamError:
            assert violations
            return True
        found = read(store, key)
        while True:
            try:
                name, value = next(found)
            except StopIteration:
                break
            except SlidestreamError:
                assert violations, "validate takes it for sound"
                break
            np.testing.assert_equal(value, self.contents[name], err_msg=f"{key}: {name}")
        return bool(violations)

    def mend(self) -> bool:
        """Run again, with --overwrite where that is asked for; tell whether the store is what it was, bit for bit."""
        for overwrite in (False, True, True):
            try:
                make(self.url, overwrite=overwrite)
                break
            except StoreError as error:
                self._heed(str(error))
        objects = open_objects(self.url)
        now = contents(self.url)
        for key in now.keys() - self.intact.keys():
            objects.delete(key)
        self.restore()
        return now == self.intact

    def restore(self) -> None:
        """Put everything back."""
        objects = open_objects(self.url)
        for key, data in self.intact.items():
            if objects.get(key) != data:
                objects.put(key, data)

    def _heed(self, advice: str) -> None:
        """Do what an error says, besides running again."""
        lost = re.match(r"(.+) in .* is there but its zarr.json", advice)
        if lost is not None:
            open_objects(self.url).delete(f"{lost[1]}/zarr.json")
        elif "copy it from another store" in advice or "is no slidestream store" in advice:
            open_objects(self.url).put("zarr.json", self.intact["zarr.json"])
        else:
            assert "--overwrite" in advice


def contents(url: str) -> dict[str, bytes]:
    objects = open_objects(url)
    return {key: objects.get(key) or b"" for key in sorted(objects.sizes(""))}


@pytest.fixture(scope="module")
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """In memory, which is quicker; the long version on the disk."""
    slow = request.config.getoption("--slow")
    url = str(tmp_path_factory.mktemp("flips") / "s.zarr") if slow else "memory://flips/s.zarr"
    make(url)
    assert validate(url) == []
    with dask.config.set(scheduler="synchronous"):
        yield Bench(url, contents(url), dict(read(open_store(url))))


def flipped(data: bytes, bit: int) -> bytes:
    spoiled = bytearray(data)
    spoiled[bit // 8] ^= 1 << bit % 8
    return bytes(spoiled)


def says_the_same(before: bytes, after: bytes) -> bool:
    """Tell whether two documents are the same JSON, e.g. 1e-05 and 1E-05: nothing is damaged, then."""
    node = parsed(after)
    return node is not None and node == parsed(before)


@pytest.mark.timeout(3600)
def test_one_bit(
    bench: Bench, fault_counts: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    """Each object at least once: chunks anywhere, documents anywhere."""
    slow = request.config.getoption("--slow")
    rng = np.random.default_rng(None if slow else 6)
    tries = {True: 60, False: 20} if slow else {True: 5, False: 2}
    keys = [key for key in bench.intact for _ in range(tries[key.endswith("zarr.json")])]
    detected = recovered = harmless = 0
    missed, unmended = [], []
    for key in keys:
        data = bench.intact[key]
        bit = int(rng.integers(len(data) * 8))
        spoiled = flipped(data, bit)
        where = f"{key} bit {bit}: {spoiled[max(0, bit // 8 - 30) : bit // 8 + 30]!r}"
        if bench.is_found(key, spoiled):
            detected += 1
        elif key.endswith("zarr.json") and says_the_same(data, spoiled):
            harmless += 1
            bench.restore()
            continue
        else:
            missed.append(where)
        if bench.mend():
            recovered += 1
        else:
            unmended.append(where)
    fault_counts(
        "stored object, one bit flipped",
        tried=len(keys) - harmless,
        detected=detected,
        recovered=recovered,
    )
    if harmless:
        fault_counts("  of documents, to the same JSON (1e5 as 1E5)", tried=harmless)
    assert not missed
    assert not unmended


@pytest.mark.timeout(3600)
def test_cut_short(
    bench: Bench, fault_counts: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    """Each object to nothing, one byte, half, all but one byte; the short version mends one of these."""
    rng = np.random.default_rng(7)
    detected = mended = recovered = 0
    missed, unmended = [], []
    for key, data in bench.intact.items():
        sizes = (0, 1, len(data) // 2, len(data) - 1)
        chosen = sizes if request.config.getoption("--slow") else [rng.choice(sizes)]
        for size in sizes:
            if bench.is_found(key, data[:size]):
                detected += 1
            else:
                missed.append((key, size))
            if size not in chosen:
                bench.restore()
                continue
            mended += 1
            if bench.mend():
                recovered += 1
            else:
                unmended.append((key, size))
    tried = 4 * len(bench.intact)
    fault_counts("stored object, cut short", tried=tried, detected=detected)
    fault_counts("  of these, run again", tried=mended, detected=mended, recovered=recovered)
    assert not missed
    assert not unmended


def test_consolidated_metadata(bench: Bench, fault_counts: Callable[..., None]) -> None:
    """We don't read it, others do: where it isn't what the store says, that is found, and written anew."""
    store = open_store(bench.url, mode="r+")
    finalize(store)
    sound = store.objects.get("zarr.json") or b""
    begin = sound.index(CONSOLIDATED.encode())
    rng = np.random.default_rng(8)
    tried, detected, recovered = 40, 0, 0
    for _ in range(tried):
        spoiled = flipped(sound, int(rng.integers(begin * 8, len(sound) * 8)))
        if says_the_same(sound, spoiled):
            tried -= 1
            continue
        store.objects.put("zarr.json", spoiled)
        detected += {v.code for v in validate(store)} <= {"stale-metadata", "damaged-metadata"}
        if parsed(spoiled) is None:
            bench.restore()
        finalize(open_store(bench.url, mode="r+"))
        recovered += store.objects.get("zarr.json") == sound
    bench.restore()
    fault_counts(
        "consolidated metadata, one bit", tried=tried, detected=detected, recovered=recovered
    )
    assert tried == detected == recovered
