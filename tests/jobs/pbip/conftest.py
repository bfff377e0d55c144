"""Segmented slides that tests write themselves: masks and scores without a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dataflow.pyramid_tiff import write_pyramid
from dataflow.slide import open_slide
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

TILE_PX, N, PX = 32, 6, 4  # tiles along a side; side of a mask's pixel [px, level 0]
SIDE = TILE_PX * N
SPEC = GridSpec(TILE_PX, 0.972, TILE_PX)
CLASSES = ("benign", "tumor")
Said = npt.NDArray[np.uint8]


@dataclass
class SegmentedSlides:
    """Slides of 6 x 6 places, the last column of which has no tile, with masks of 48 x 48 pixels.

    Attributes
    ----------
    said, truth
        Slide id → uint8 (y, x): 0 where there is nothing, else 1 + class; and the true class.
    """

    folder: Path
    store: Store
    said: dict[str, Said] = field(default_factory=dict)
    truth: dict[str, Said] = field(default_factory=dict)

    grid = SPEC.name
    tile_px, n, px, side = TILE_PX, N, PX, SIDE
    class_names = CLASSES

    @property
    def path(self) -> Path:
        return self.folder / "s.zarr"

    @property
    def masks(self) -> Path:
        return self.folder / "masks"

    def view(self, slide_id: str) -> SlideView:
        return self.store[slide_id]

    def image(self, slide_id: str) -> npt.NDArray[np.uint8]:
        """Return the slide as its file has it, uint8 (y, x, rgb)."""
        reader = open_slide(str(self.folder / f"{slide_id}.tif"))
        image = reader.read_level(0, 0, 0, SIDE, SIDE)
        reader.close()
        return image

    def add_slide(self, slide_id: str) -> SlideView:
        """Add a slide with a grid."""
        file = self.folder / f"{slide_id}.tif"
        pixels = np.random.default_rng(ord(slide_id)).integers(90, 220, (SIDE, SIDE, 3))
        write_pyramid(file, pixels.astype(np.uint8), mpp=0.972, downsamples=(1,))
        digest = slide_digest(file)
        record = SlideRecord(slide_id, str(file), digest, "tiff", SIDE, SIDE, 0.972, "properties")
        slide = self.store.add_slide(record)
        row, col = (index.ravel().astype(np.int32) for index in np.indices((N, N - 1)))
        tissue = np.ones(len(row), np.float32)
        table = TileTable(col * TILE_PX, row * TILE_PX, row, col, tissue)
        geometry = GridGeometry(TILE_PX, float(TILE_PX), N, N)
        slide.create_grid(SPEC, geometry, table, {"slide": digest}, block_tiles=8)
        return slide

    def add_mask(
        self,
        slide_id: str,
        name: str,
        values: Said,
        provenance: Mapping[str, Any],
        source: str,
        class_names: tuple[str, ...] = CLASSES,
    ) -> None:
        """Write ``masks/<name>/mask`` as the segmentation does."""
        attrs = {
            "flag_values": list(range(1 + len(class_names))),
            "flag_meanings": " ".join(["nothing", *class_names]),
        }
        group = self.view(slide_id).create_raster_group(
            self.grid,
            name,
            {"mask": RasterSpec(("y", "x"), values.shape, "uint8", float(PX), attrs=attrs)},
            dict(provenance),
            extra={"source": source},
        )
        group.write_array("mask", values)
        group.finish()

    def add_scores(
        self, slide_id: str, name: str, seed: int, *, weights: str = "", **extra: Any
    ) -> None:
        """Write ``scores/<name>`` as the segmenter does, of noise."""
        made = {"made": name, "model": {"weights": [weights]}}
        classes = {"class_names": list(CLASSES)}
        arrays = {
            "confidence": ArraySpec(
                ("tile", "class", "map_y", "map_x"), (2, 8, 8), "float16", classes
            ),
            "probability": ArraySpec(("tile", "class"), (2,), "float32", classes),
            "entropy": ArraySpec(("tile",), (), "float32"),
            "disagreement": ArraySpec(("tile",), (), "float32"),
        }
        group = self.view(slide_id).create_tile_group(
            self.grid, "scores", name, arrays, made, extra=extra
        )
        rng = np.random.default_rng(seed)
        for block in range(group.n_blocks):
            span = group.block_slice(block)
            n = span.stop - span.start
            group.write_block(
                block,
                {
                    key: rng.random((n, *spec.shape)).astype(spec.dtype)
                    for key, spec in arrays.items()
                },
            )

    def write_truth(self, slide_id: str, truth: Said, k: int = 1, folder: str = "masks") -> None:
        """Write where a class is as an image."""
        (self.folder / folder).mkdir(exist_ok=True)
        image = Image.fromarray(((truth == k) * 255).astype(np.uint8))
        image.save(self.folder / folder / f"{slide_id}.png")


@pytest.fixture
def segmented(tmp_path: Path) -> SegmentedSlides:
    """Return slides a, b (with truth) and c (without), with masks ``seg`` and the scores that they are of."""
    slides = SegmentedSlides(tmp_path, create_store(tmp_path / "s.zarr"))
    for seed, slide_id in enumerate("abc"):
        slides.add_slide(slide_id)
        rng = np.random.default_rng(seed)
        side = SIDE // PX
        coarse = rng.random((N, N)).repeat(side // N, 0).repeat(side // N, 1)
        truth = (coarse + rng.random((side, side)) * 0.3 > 0.8).astype(np.uint8)
        said = np.where(
            rng.random((side, side)) < 0.75, truth + 1, rng.integers(0, 3, (side, side))
        )
        slides.truth[slide_id], slides.said[slide_id] = truth, said.astype(np.uint8)
        slides.add_scores(slide_id, "seg", seed, model_split="train" if slide_id == "a" else "")
        source = "scores/seg/confidence"
        slides.add_mask(slide_id, "seg", slides.said[slide_id], {"made": "up"}, source)
        if slide_id != "c":
            slides.write_truth(slide_id, truth)
    return slides
