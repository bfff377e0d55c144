"""Slides that tests make for themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dataflow.pyramid_tiff import write_pyramid
from dataflow.slide import Level, SeparateBoxes, SlideInfo, SlideReader, levels_of


class ArrayReader:
    """A slide reader on arrays in memory, exact at every level; counts what is read."""

    def __init__(self, *levels: npt.NDArray[np.uint8], mpp: float | None = 0.5) -> None:
        self._pixels = levels
        sizes = [(level.shape[1], level.shape[0]) for level in levels]
        ratios = [sizes[0][0] / width for width, _ in sizes]
        width, height = sizes[0]
        self.info = SlideInfo(
            "memory", "array", width, height, levels_of(sizes, ratios), mpp, "user", "not given"
        )
        self.largest_read_px = 0
        self.levels_read: set[int] = set()

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> npt.NDArray[np.uint8]:
        self.largest_read_px = max(self.largest_read_px, width * height)
        self.levels_read.add(level)
        pixels = self._pixels[level]
        rows, columns = y + np.arange(height), x + np.arange(width)
        inside = ((rows >= 0) & (rows < pixels.shape[0]))[:, None] & (
            (columns >= 0) & (columns < pixels.shape[1])
        )
        box = pixels[
            rows.clip(0, pixels.shape[0] - 1)[:, None], columns.clip(0, pixels.shape[1] - 1)
        ]
        return np.where(inside[..., None], box, 255).astype(np.uint8)

    def shared(self, level: int, boxes: npt.NDArray[np.int64]) -> SeparateBoxes:
        return SeparateBoxes(self, level, boxes)

    def close(self) -> None:
        pass


def slide_info(
    width: int, height: int, mpp: float | None = 0.5, downsamples: tuple[int, ...] = (1,)
) -> SlideInfo:
    levels = tuple(Level(width // d, height // d, float(d)) for d in downsamples)
    return SlideInfo("memory", "none", width, height, levels, mpp, "user", "not given")


@pytest.fixture
def array_reader() -> type[ArrayReader]:
    return ArrayReader


@pytest.fixture
def make_info() -> Callable[..., SlideInfo]:
    return slide_info


@pytest.fixture
def smooth_image() -> npt.NDArray[np.uint8]:
    """uint8 (700, 900, 3), gradients: JPEG keeps them within a few grey levels."""
    image = np.empty((700, 900, 3), np.uint8)
    image[..., 0] = np.linspace(40, 220, 900).astype(np.uint8)
    image[..., 1] = np.linspace(220, 60, 700).astype(np.uint8)[:, None]
    image[..., 2] = 150
    return image


@pytest.fixture
def make_slide(tmp_path: Path, smooth_image: npt.NDArray[np.uint8]) -> Callable[..., Path]:
    """A function (name, mpp=0.5, downsamples=(1, 2, 4)) → path of a pyramidal TIFF."""

    def make(name: str, mpp: float | None = 0.5, downsamples: tuple[int, ...] = (1, 2, 4)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pyramid(path, smooth_image, mpp, downsamples=downsamples)
        return path

    return make


def as_reader(reader: ArrayReader) -> SlideReader:
    """Checked by mypy: the array reader fulfils the protocol."""
    return reader
