"""Stain normalization, one thread, and torchstain's beside it on the same tiles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchstain

from benchmarks.conftest import Timed
from dataflow.stain import FitScope, StainMethod, StainNormalizer, StainSpec, fit_slide
from dataflow.stain_target import StainTarget

_BATCH = 32


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the stream, where each batch has one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normalized(normalizer: StainNormalizer, tiles: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Normalize batch by batch; return tiles of the last batch and the methods of all."""
    methods: list[int] = []
    for start in range(0, len(tiles), _BATCH):
        out, used = normalizer(tiles[start : start + _BATCH])
        methods += used.tolist()
    return out, methods


@pytest.mark.parametrize("fit", ["tile", "slide"])
def test_macenko(timed: Timed, tiles: npt.NDArray[np.uint8], fit: FitScope) -> None:
    spec = StainSpec("macenko", fit)
    basis = fit_slide(tiles, spec) if spec.needs_basis else None
    normalizer = StainNormalizer(spec, basis, torch.device("cpu"))
    out, methods = timed(
        lambda: normalized(normalizer, torch.from_numpy(tiles)), len(tiles), tiles.nbytes
    )
    assert set(methods) == {StainMethod.MACENKO}
    if fit == "tile":
        last = tiles[(len(tiles) - 1) // _BATCH * _BATCH :]
        wanted = np.stack([by_torchstain(reference(), tile) for tile in last])
        off = np.abs(out.numpy().astype(int) - wanted.astype(int))
        assert off.max() <= 1


def test_reinhard(timed: Timed, tiles: npt.NDArray[np.uint8]) -> None:
    normalizer = StainNormalizer(StainSpec("reinhard", "tile"), None, torch.device("cpu"))
    _, methods = timed(
        lambda: normalized(normalizer, torch.from_numpy(tiles)), len(tiles), tiles.nbytes
    )
    assert set(methods) == {StainMethod.REINHARD}


def test_macenko_by_torchstain(timed: Timed, tiles: npt.NDArray[np.uint8]) -> None:
    normalizer = reference()
    done = timed(
        lambda: [by_torchstain(normalizer, tile) for tile in tiles], len(tiles), tiles.nbytes
    )
    assert len(done) == len(tiles)


def reference() -> torchstain.normalizers.MacenkoNormalizer:
    """Return torchstain's torch version, with our target."""
    target = StainTarget.default()
    normalizer = torchstain.normalizers.MacenkoNormalizer(backend="torch")
    normalizer.HERef = torch.tensor(target.stains, dtype=torch.float32).T
    normalizer.maxCRef = torch.tensor(target.max_concentrations, dtype=torch.float32)
    return normalizer


def by_torchstain(
    normalizer: torchstain.normalizers.MacenkoNormalizer, tile: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Normalize one tile, uint8 (y, x, rgb)."""
    image = torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))
    out, _, _ = normalizer.normalize(image, stains=False)
    return np.asarray(out.numpy(), dtype=np.uint8)
