"""A store with everything that can be exported, on a lattice whose stride is no whole number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from store_schema.specs import (
    ArraySpec,
    GridGeometry,
    GridSpec,
    RasterSpec,
    SlideRecord,
    TileTable,
)
from store_schema.store import Store, create_store

MPP = 0.2431
STRIDE = 64 * 0.5 / MPP  # 131.63
TILE = round(STRIDE)
ROWS, COLS = 6, 9
SIZE = 1300, 900
CLASSES = ["normal", "tumor"]
SPEC = GridSpec(tile_px=64, mpp=0.5, stride_px=64)


def lattice_mask() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return a ring with a hole, a piece that touches its corner, and one by itself; uint8 (row, col)."""
    mask = np.zeros((ROWS, COLS), np.uint8)
    mask[0:3, 0:3] = 1
    mask[1, 1] = 0
    mask[3, 3] = 1
    mask[5, 8] = 1
    return mask


def add_slide(store: Store, slide_id: str, seed: int, *, scored: bool = True) -> None:
    generator = np.random.default_rng(seed)
    record = SlideRecord(
        slide_id, f"/nowhere/{slide_id}.svs", slide_id, "aperio", *SIZE, MPP, "properties", 40.0
    )
    slide = store.add_slide(record)
    # not all places have a tile, and their order is not that of rows
    places = generator.permutation(ROWS * COLS)[: ROWS * COLS - 5]
    row, col = (index.astype(np.int32) for index in np.divmod(places, COLS))
    x, y = (np.rint(index * STRIDE).astype(np.int32) for index in (col, row))
    table = TileTable(x, y, row, col, generator.random(len(x)).astype(np.float32))
    geometry = GridGeometry(TILE, STRIDE, ROWS, COLS)
    slide.create_grid(SPEC, geometry, table, {"slide": slide_id}, block_tiles=20)
    n = len(table)
    features = slide.create_tile_group(
        SPEC.name, "features", "enc",
        {"features": ArraySpec(("tile", "feature"), (5,), "float16", {})}, {"made": "up"},
    )  # fmt: skip
    values = generator.normal(size=(n, 5)).astype(np.float16)
    for block in range(features.n_blocks):
        features.write_block(block, {"features": values[features.block_slice(block)]})
    if not scored:
        return
    arrays = {
        "attention": ArraySpec(("tile",), (), "float32", {"long_name": "attention"}),
        "probability": ArraySpec(("tile", "class"), (2,), "float32", {"class_names": CLASSES}),
        "map": ArraySpec(("tile", "map_y", "map_x"), (2, 2), "float32", {}),
        "stain_method": ArraySpec(
            ("tile",), (), "uint8", {"flag_values": [0, 1], "flag_meanings": "none macenko"}
        ),
    }
    scores = slide.create_tile_group(SPEC.name, "scores", "run", arrays, {"made": "up"})
    attention = generator.normal(size=n).astype(np.float32)
    attention[3] = np.nan
    numbers: dict[str, npt.NDArray[Any]] = {
        "attention": attention,
        "probability": generator.random((n, 2)).astype(np.float32),
        "map": np.zeros((n, 2, 2), np.float32),
        "stain_method": np.ones(n, np.uint8),
    }
    for block in range(scores.n_blocks):
        span = scores.block_slice(block)
        scores.write_block(block, {name: array[span] for name, array in numbers.items()})
    slide.write_raster(
        SPEC.name, "cal",
        {"mask": (RasterSpec(("y", "x"), (ROWS, COLS), "uint8", STRIDE), lattice_mask())},
        {"made": "up"},
    )  # fmt: skip
    shape = 900, 1300
    stitched = generator.normal(size=shape).astype(np.float32)
    stitched[:300] = np.nan
    slide.write_raster(
        SPEC.name, "map",
        {"score": (RasterSpec(("y", "x"), shape, "float32", 1.0), stitched)}, {"made": "up"},
    )  # fmt: skip
    classes = RasterSpec(
        ("class", "y", "x"), (2, 90, 130), "float16", 10.0, attrs={"class_names": CLASSES}
    )
    confidence = generator.random((2, 90, 130)).astype(np.float16)
    flags = {"flag_values": [0, 1, 2], "flag_meanings": "nothing normal tumor"}
    greatest = RasterSpec(("y", "x"), (90, 130), "uint8", 10.0, attrs=flags)
    mask = np.zeros((90, 130), np.uint8)
    mask[10:40, 20:60], mask[10:40, 60:80] = 1, 2
    slide.write_raster(
        SPEC.name, "seg",
        {"confidence": (classes, confidence), "mask": (greatest, mask)}, {"made": "up"},
    )  # fmt: skip


@pytest.fixture(scope="session")
def exportable(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Slides a and b, and c without scores and masks."""
    store = create_store(str(tmp_path_factory.mktemp("export") / "s.zarr"))
    add_slide(store, "a", 1)
    add_slide(store, "b", 2)
    add_slide(store, "c", 3, scored=False)
    return store


@pytest.fixture(scope="session")
def url(exportable: Store) -> Path:
    """Where that store is."""
    return Path(exportable.url)
