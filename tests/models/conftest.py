"""Real stained tissue, shipped by a dependency; bags and tiles of arrays for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch


@pytest.fixture(scope="session")
def tiles() -> torch.Tensor:
    """Return uint8 (32, 96, 96, rgb) of an immunohistochemistry image."""
    image = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
    corners = np.random.default_rng(0).integers(0, 416, (32, 2))
    return torch.from_numpy(np.stack([image[y : y + 96, x : x + 96] for y, x in corners]))


class ArrayTiles:
    """Tiles in memory: crops of the tissue, of one side; what was asked for is noted."""

    def __init__(self, n: int, tile_px: int = 64, *, seed: int = 0) -> None:
        image = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
        corners = np.random.default_rng(seed).integers(0, len(image) - tile_px, (n, 2))
        crops = [image[y : y + tile_px, x : x + tile_px] for y, x in corners]
        self.tiles: npt.NDArray[np.uint8] = np.stack(crops)
        self.tile_px = tile_px
        self.fingerprint = f"{n} crops of seed {seed}"
        self.labels = (self.tiles.mean((1, 2, 3)) < self.tiles.mean()).astype(np.int8)
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        self.asked.append(indices.tolist())
        return self.tiles[indices]


@pytest.fixture(scope="session")
def array_tiles() -> type[ArrayTiles]:
    """Return the class: number and side of tiles → a ``TileSource``; dark tiles are labelled 1."""
    return ArrayTiles


class ArrayBags:
    """Bags of arrays in memory; a class shows in ``signal`` of a bag's tiles."""

    def __init__(
        self,
        counts: Sequence[int],
        *,
        seed: int = 0,
        n_features: int = 16,
        n_tiles: tuple[int, int] = (5, 40),
        signal: float = 0.5,
        strength: float = 5.0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.targets = np.repeat(np.arange(len(counts)), counts)
        self.ids = [f"bag{seed}_{k}" for k in range(len(self.targets))]
        self.groups = self.ids
        self.n_features = n_features
        self.lengths = rng.integers(*n_tiles, len(self.ids))
        self.arrays: list[npt.NDArray[np.floating]] = []
        self.loaded: list[tuple[int, npt.NDArray[np.int64] | None]] = []
        for target, length in zip(self.targets, self.lengths, strict=True):
            bag = rng.normal(size=(length, n_features))
            bag[: max(1, int(signal * length)), target] += strength
            self.arrays.append(rng.permutation(bag).astype(np.float16))

    def load(
        self, index: int, tiles: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.floating]:
        self.loaded.append((index, tiles))
        return self.arrays[index] if tiles is None else self.arrays[index][tiles]


@pytest.fixture(scope="session")
def array_bags() -> type[ArrayBags]:
    """Return the class: bags per class → a ``BagSource``."""
    return ArrayBags


class TexturedTiles:
    """Tiles of two textures: all of one, all of the other, or half and half; a ``WeakTiles`` with its masks."""

    def __init__(self, n: int, tile_px: int = 64, *, seed: int = 0, per_slide: int = 6) -> None:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:tile_px, :tile_px]
        half = np.broadcast_to(np.arange(tile_px) < tile_px // 2, (tile_px, tile_px))
        self.tile_px = tile_px
        self.fingerprint = f"{n} textured tiles of {tile_px} px, seed {seed}"
        self.tiles: npt.NDArray[np.uint8] = np.empty((n, tile_px, tile_px, 3), np.uint8)
        self.labels: npt.NDArray[np.int8] = np.zeros((n, 2), np.int8)
        self.masks: npt.NDArray[np.uint8] = np.empty((n, tile_px, tile_px), np.uint8)
        self.slide_of: npt.NDArray[np.int32] = (np.arange(n) // per_slide).astype(np.int32)
        for i in range(n):
            fine, coarse = rng.uniform(0, 2 * np.pi, 2)
            stripes = np.sin((x + y) * 2 * np.pi / 6 + fine)
            checks = np.sign(
                np.sin(x * 2 * np.pi / 16 + coarse) * np.sin(y * 2 * np.pi / 16 + coarse)
            )
            mask = [
                np.zeros_like(half),
                np.ones_like(half),
                np.rot90(half, int(rng.integers(4))),
            ][i % 3]
            texture = np.where(mask, checks, stripes)[..., None] * np.array([40, 24, 32])
            pixels = 150 + texture + rng.normal(0, 12, (tile_px, tile_px, 3))
            self.tiles[i] = np.clip(pixels, 0, 255).astype(np.uint8)
            self.masks[i] = mask
            self.labels[i] = [(~mask.astype(bool)).any(), mask.any()]

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return self.tiles[indices]

    def read_masks(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return self.masks[indices]


@pytest.fixture(scope="session")
def textured_tiles() -> type[TexturedTiles]:
    """Return the class: number and side of tiles → a ``WeakTiles`` of two classes, and its ``TileMasks``."""
    return TexturedTiles
