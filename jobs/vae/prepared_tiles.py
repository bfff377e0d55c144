"""Training tiles on disk: normalized, filtered, and read at random from one file."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

PIXELS: Final = "tiles.npy"
TABLE: Final = "tiles.csv"
SUMMARY: Final = "tiles.json"
COLUMNS: Final = ("part", "tile", "group", "label", "stain")
_CHUNK: Final = 2048


@dataclass(frozen=True)
class PreparedTiles:
    """All tiles of a training.

    Attributes
    ----------
    pixels
        uint8 (tile, y, x, rgb), mapped from ``tiles.npy``.
    parts, groups
        One a tile: slide or file; what must stay on one side of a split, empty where nothing is known.
    labels
        int8 (tile,).
    digest
        Of pixels and table.
    counts
        Tiles ``read``, ``without_colour`` (left out), ``kept``, and of these how many each ``stain`` method normalized.
    mpp
        Pixel size [µm/px], None where it isn't known.
    """

    pixels: npt.NDArray[np.uint8] = field(repr=False)
    parts: tuple[str, ...] = field(repr=False)
    groups: tuple[str, ...] = field(repr=False)
    labels: npt.NDArray[np.int8] = field(repr=False)
    digest: str
    counts: Mapping[str, Any]
    mpp: float | None

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class TileSubset:
    """Some of the prepared tiles: one side of a split; a ``TileSource`` of models.

    Attributes
    ----------
    tiles
        All of them.
    rows
        int64 (n,), those that belong here.
    """

    tiles: PreparedTiles
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the tiles and of which they are."""
        digest = hashlib.blake2b(self.tiles.digest.encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.rows).data)
        return digest.hexdigest()

    @property
    def tile_px(self) -> int:
        """Side of a tile [px]."""
        return int(self.tiles.pixels.shape[1])

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """int8 (tile,): 1 is tumour."""
        return self.tiles.labels[self.rows]

    def part_names(self) -> list[str]:
        """Return the parts (slides, files) that the tiles are of, sorted."""
        return sorted({self.tiles.parts[row] for row in self.rows.tolist()})

    def read(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Read tiles, in any order: uint8 (n, y, x, rgb)."""
        return np.array(self.tiles.pixels[self.rows[indices]])

    def pixel_statistics(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return mean and standard deviation of red, green and blue in 0 to 1: float32 (3,) each.

        Sums are whole numbers, so that the order of tiles doesn't matter. A deviation is at least 1 / 255, the step of
        a pixel: blank tiles don't divide by zero.
        """
        total, squares = np.zeros(3, np.int64), np.zeros(3, np.int64)
        for start in range(0, len(self.rows), _CHUNK):
            rows = np.sort(self.rows[start : start + _CHUNK])
            pixels = self.tiles.pixels[rows].reshape(-1, 3).astype(np.uint32)
            total += pixels.sum(axis=0, dtype=np.int64)
            squares += np.square(pixels).sum(axis=0, dtype=np.int64)
        n = max(1, len(self.rows) * self.tile_px**2)
        mean = total / n
        std = np.sqrt(np.maximum(squares / n - mean**2, 1.0))
        return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def open_prepared(directory: Path, described: Mapping[str, Any]) -> PreparedTiles | None:
    """Return the tiles that were prepared here, None where there are none, others, or damaged ones.

    Parameters
    ----------
    directory
        Of the run.
    described
        What decides the tiles, as JSON.
    """
    try:
        summary = json.loads((directory / SUMMARY).read_text())
        if summary["described"] != json.loads(json.dumps(described)):
            return None
        pixels = np.load(directory / PIXELS, mmap_mode="r")
        with (directory / TABLE).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if digest_of(pixels, directory / TABLE) != summary["digest"]:
            return None
        return PreparedTiles(
            pixels,
            tuple(row["part"] for row in rows),
            tuple(row["group"] for row in rows),
            np.array([int(row["label"]) for row in rows], np.int8),
            summary["digest"],
            summary["counts"],
            summary["mpp"],
        )
    except (OSError, ValueError, KeyError, TypeError):  # of an interrupted or damaged preparation
        return None


def digest_of(pixels: npt.NDArray[np.uint8], table: Path) -> str:
    """Return 32 hexadecimal digits of all pixels and of the table."""
    digest = hashlib.blake2b(table.read_bytes(), digest_size=16)
    for start in range(0, len(pixels), _CHUNK):
        digest.update(np.ascontiguousarray(pixels[start : start + _CHUNK]).data)
    return digest.hexdigest()
