"""A cohort of three small slides, with scores that tests write themselves and a truth of two of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dataflow.pyramid_tiff import write_pyramid
from dataflow.slide_digest import slide_digest
from store_schema.slide_view import SlideView
from store_schema.specs import (
    ArraySpec,
    GridGeometry,
    GridSpec,
    RasterSpec,
    SlideRecord,
    TileTable,
)
from store_schema.store import Store, create_store

TILE = 64
N = 8  # tiles along a side
SPEC = GridSpec(tile_px=64, mpp=0.5, stride_px=64)
CLASSES = ["normal", "tumor"]


@dataclass(frozen=True)
class Cohort:
    """Slides a, b and c; c has no truth, and only a has a file.

    Attributes
    ----------
    store
        With ``run``: ``attention`` (tile), ``probability`` (tile, class).
    masks
        Folder of the truth.
    truth
        Slide id → bool (row, col).
    scores
        Slide id → float32 (tile, class).
    """

    store: Store
    masks: Path
    truth: dict[str, npt.NDArray[np.bool_]]
    scores: dict[str, npt.NDArray[np.float32]]

    tile_px = TILE
    n_side = N
    grid = SPEC.name
    class_names = CLASSES

    @property
    def slides(self) -> list[SlideView]:
        return [self.store[slide_id] for slide_id in self.store.slides]

    def add_scores(self, slide_id: str, run: str, values: npt.NDArray[np.float32]) -> None:
        group = self.store[slide_id].create_tile_group(
            self.grid, "scores", run, {"score": ArraySpec(("tile",), (), "float32")}, {"made": run}
        )
        for block in range(group.n_blocks):
            group.write_block(block, {"score": values[group.block_slice(block)]})

    def add_raster(
        self,
        slide_id: str,
        name: str,
        values: npt.NDArray[np.generic],
        px_level0: float,
        array: str = "score",
    ) -> None:
        spec = RasterSpec(("y", "x"), values.shape, values.dtype.name, px_level0)
        self.store[slide_id].write_raster(
            self.grid, name, {array: (spec, values)}, {"made": "by a test"}
        )


def _add_slide(
    store: Store, slide_id: str, scores: npt.NDArray[np.float32], slide_file: Path | None
) -> None:
    side = N * TILE
    source, digest = str(slide_file or f"/nowhere/{slide_id}.tif"), f"of {slide_id}"
    if slide_file is not None:
        pixels = np.full((side, side, 3), 200, np.uint8)
        write_pyramid(slide_file, pixels, mpp=0.5, downsamples=(1,))
        digest = slide_digest(slide_file)
    record = SlideRecord(slide_id, source, digest, "tiff", side, side, 0.5, "properties")
    slide = store.add_slide(record)
    row, col = (index.ravel().astype(np.int32) for index in np.indices((N, N)))
    table = TileTable(col * TILE, row * TILE, row, col, np.ones(N * N, np.float32))
    geometry = GridGeometry(TILE, float(TILE), N, N)
    slide.create_grid(SPEC, geometry, table, {"slide": digest}, block_tiles=40)
    arrays = {
        "attention": ArraySpec(("tile",), (), "float32", {"long_name": "attention"}),
        "probability": ArraySpec(("tile", "class"), (2,), "float32", {"class_names": CLASSES}),
    }
    said = {
        "class_names": CLASSES,
        "probabilities": [0.25, 0.75],
        "predicted": "tumor",
        "threshold": 0.5,
        "split": "test",
    }
    group = slide.create_tile_group(
        SPEC.name, "scores", "run", arrays, {"made": "up"}, extra={"prediction": said}
    )
    for block in range(group.n_blocks):
        span = group.block_slice(block)
        group.write_block(block, {"attention": scores[span, 1], "probability": scores[span]})


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Return slides whose scores are noise, higher where they are positive."""
    store, masks = create_store(tmp_path / "cohort.zarr"), tmp_path / "masks"
    masks.mkdir()
    truths, every = {}, {}
    for seed, slide_id in enumerate("abc"):
        truth = np.random.default_rng(seed).random((N, N)) < 0.3
        scores = np.random.default_rng(seed + 100).normal(size=(N * N, 2)).astype(np.float32)
        scores[:, 1] += truth.ravel()
        _add_slide(store, slide_id, scores, tmp_path / "a.tif" if slide_id == "a" else None)
        truths[slide_id], every[slide_id] = truth, scores
        if slide_id != "c":
            mask = truth.repeat(3, axis=0).repeat(3, axis=1)
            Image.fromarray((mask * 255).astype(np.uint8)).save(masks / f"{slide_id}.png")
    return Cohort(store, masks, truths, every)
