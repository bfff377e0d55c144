"""Ids and names that try to leave the store, or to be something else in it: refused, and nothing is touched outside."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dataflow.discover import discover_slides
from store_schema.errors import InputError, InvalidNameError, NotInStoreError
from store_schema.ids import folded
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

REFUSED = [
    "", ".", "..", "../x", "../../x", "/abs", "//host/share", "a/b", "a\\b", "..\\x", "C:\\x", "c/0",
    "nul\0", "\0", "zarr.json", "__xarray", ".hidden", ".prototypes", "x" * 300, "é" * 150, "dot.", "blank ",
    " blank", "tab\t", "a\nb", "a\x1b[2Jb", "a\u2028b", "\udcff", "x.partial", "CON", "nul", "Aux.tif",
    "com1", "LPT9.svs", "con .x",
]  # fmt: skip
ACCEPTED = [
    "x",
    "c",
    "0",
    "a b",
    "ä",
    "a..b",
    "~",
    "-rf",
    "%2e%2e%2f",
    "$HOME",
    "*",
    "features",
    "console",
]
TEXT = st.text(max_size=8) | st.text("./\\~:\0 \nac0%é", max_size=8) | st.sampled_from(REFUSED)
GRID = GridSpec(tile_px=32, mpp=0.5, stride_px=32, tissue={"method": "none"})


def record(slide_id: str, content: str = "c0ffee") -> SlideRecord:
    return SlideRecord(slide_id, "/s.svs", content, "aperio", 64, 64, 0.5, "user", None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "around" / "s.zarr")


def around(store: Store) -> set[str]:
    """Return everything near the store that is not in it."""
    root = Path(store.url)
    folder = root.parent.parent
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if root not in p.parents}


@pytest.mark.parametrize("slide_id", REFUSED)
def test_refused(store: Store, slide_id: str) -> None:
    with pytest.raises(InvalidNameError, match="another id"):
        store.add_slide(record(slide_id))
    assert slide_id not in store
    with pytest.raises(NotInStoreError):
        store[slide_id]
    assert around(store) == {"around", "around/s.zarr"}
    assert validate(store) == []


def test_accepted_ones_are_folders_of_that_name(store: Store) -> None:
    for slide_id in ACCEPTED:
        store.add_slide(record(slide_id))
    assert sorted(p.name for p in Path(store.url).iterdir() if p.is_dir()) == sorted(ACCEPTED)
    assert open_store(store.url).slides == sorted(ACCEPTED)
    assert validate(store) == []


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--slow"))


def test_any_text_as_an_id(
    tmp_path_factory: pytest.TempPathFactory, slow: bool, fault_counts: Callable[..., None]
) -> None:
    tried = refused = 0

    @given(TEXT)
    @settings(
        deadline=None, max_examples=1000 if slow else 100, suppress_health_check=list(HealthCheck)
    )
    @example("../x")
    def check(slide_id: str) -> None:
        nonlocal tried, refused
        tried += 1
        store = create_store(tmp_path_factory.mktemp("ids") / "around" / "s.zarr")
        try:
            store.add_slide(record(slide_id))
        except InvalidNameError:
            refused += 1
            assert store.slides == []
        else:
            assert store.slides == [slide_id]
            assert (Path(store.url) / slide_id / "zarr.json").is_file()
        assert around(store) == {"around", "around/s.zarr"}

    check()
    fault_counts("slide ids of any text (the rest are names)", tried=tried, detected=refused)


def test_any_text_as_a_name(store: Store, slow: bool, fault_counts: Callable[..., None]) -> None:
    """Of grids, runs, selections, masks, banks, and of arrays in them."""
    slide = store.add_slide(record("s"))
    corner = np.zeros(1, np.int32)
    table = TileTable(corner, corner, corner, corner, np.ones(1, np.float32))
    slide.create_grid(GRID, GridGeometry(32, 32.0, 1, 1), table, {})
    arrays = {"score": ArraySpec(("tile",), (), "float32")}
    mask = (RasterSpec(("y", "x"), (2, 2), "uint8", 16.0), np.ones((2, 2), np.uint8))
    doors: list[Callable[[str], object]] = [
        lambda name: slide.create_tile_group(GRID.name, "scores", name, arrays, {}),
        lambda name: slide.create_tile_group(
            GRID.name, "scores", "run", {name: arrays["score"]}, {}, overwrite=True
        ),
        lambda name: slide.write_selection(GRID.name, name, corner, np.ones(1, np.float32), {}),
        lambda name: slide.write_raster(GRID.name, name, {"mask": mask}, {}),
        lambda name: slide.write_raster(GRID.name, "m", {name: mask}, {}),
        slide.tile_table,
        lambda name: slide.raster(GRID.name, name),
        store.prototypes,
    ]
    tried = refused = 0

    @given(st.sampled_from(doors), TEXT)
    @settings(
        deadline=None, max_examples=1000 if slow else 80, suppress_health_check=list(HealthCheck)
    )
    def check(door: Callable[[str], object], name: str) -> None:
        nonlocal tried, refused
        tried += 1
        try:
            door(name)
        except (InvalidNameError, NotInStoreError):
            refused += 1

    check()
    assert around(store) == {"around", "around/s.zarr"}
    assert store.slides == ["s"]
    assert slide.grids == [GRID.name]
    assert {v.code for v in validate(store)} <= {"missing-block"}
    fault_counts("names of runs of any text (the rest are names)", tried=tried, detected=refused)


@pytest.mark.parametrize("slide_id", [*(i for i in REFUSED if i != "\udcff"), "-1", "=1+1"])
def test_ids_of_a_csv(tmp_path: Path, slide_id: str) -> None:
    (tmp_path / "s.svs").touch()
    with (tmp_path / "slides.csv").open("w", newline="", encoding="utf-8") as file:
        rows: Any = csv.writer(file)
        rows.writerows([["slide", "slide_id"], ["s.svs", slide_id]])
    try:
        found = discover_slides([str(tmp_path / "slides.csv")])
    except InputError:
        assert "\0" in slide_id
        return
    for source in found.sources:  # trimmed, or given none: the file's name
        assert source.slide_id in ("s", slide_id.strip())
        assert source.slide_id == "s" or source.slide_id not in REFUSED
    for problem in found.problems:
        assert problem.error.reason == "invalid-name"
    assert len(found.sources) + len(found.problems) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Slide", "slide"),
        ("straße", "STRASSE"),
        (unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")),
        (unicodedata.normalize("NFD", "É"), unicodedata.normalize("NFC", "é")),
    ],
)
def test_twins(store: Store, tmp_path: Path, first: str, second: str) -> None:
    """In one run, and of another run on the same store: whatever the file system under it tells apart."""
    assert folded(first) == folded(second)
    store.add_slide(record(first))
    with pytest.raises(InvalidNameError, match="can't be told from"):
        store.add_slide(record(second, "another"))
    store.add_slide(record(first))
    assert store.slides == [first]

    for name in ("1", "2"):
        (tmp_path / f"{name}.svs").write_text(name)
    lines = ["slide,slide_id", f"1.svs,{first}", f"2.svs,{second}"]
    (tmp_path / "slides.csv").write_text("\n".join(lines), encoding="utf-8")
    found = discover_slides([str(tmp_path / "slides.csv")])
    assert not found.sources
    assert {problem.error.reason for problem in found.problems} == {"duplicate-id"}
