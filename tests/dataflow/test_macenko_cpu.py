from __future__ import annotations

import importlib
import math
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import macenko
from dataflow.macenko_cpu import CompiledPasses
from dataflow.macenko_torch import TorchPasses
from dataflow.optical_density import OPAQUE_MAX
from dataflow.pixel_passes import BINS, MAX_CONCENTRATION, PixelPasses
from dataflow.stain import StainNormalizer, StainSpec, fit_slide
from dataflow.stain_target import StainTarget
from tests.dataflow.he_tiles import he_tiles

CPU = torch.device("cpu")


def random_tile(seed: int, shape: tuple[int, ...] = (48, 48)) -> npt.NDArray[np.uint8]:
    """All grey levels, the ends among them, in no order."""
    return np.random.default_rng(seed).integers(0, 256, (1, *shape, 3), dtype=np.uint8)


def apply(
    tiles: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    out = torch.empty(tiles.shape, dtype=torch.uint8)
    wanted = np.ones(len(tiles), dtype=np.bool_)
    CompiledPasses(torch.from_numpy(tiles)).apply(
        torch.from_numpy(matrix[None]), torch.from_numpy(bias[None]), wanted, out
    )
    result: npt.NDArray[np.uint8] = out.numpy()
    return result


def assert_is_the_formula(
    tiles: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]
) -> None:
    ours = apply(tiles, matrix, bias)
    log = np.log2(tiles.astype(np.float64) + 1.0) @ matrix.T + bias
    exact = 2.0 ** log.clip(-1.0, 9.0)
    expected = exact.clip(0.0, 255.0).astype(np.uint8)
    assert np.abs(ours.astype(int) - expected).max() <= 1
    # three roundings of half a unit of 2 ** -12: nowhere else than within this of a whole number
    close = np.abs(exact - exact.round()) <= exact * (2.0 ** (1.6 * 2.0**-12) - 1.0)
    assert np.array_equal(ours[~close], expected[~close])


numbers = st.floats(-3.0, 3.0, allow_nan=False)


@settings(deadline=None, max_examples=40)
@given(st.lists(numbers, min_size=9, max_size=9), st.lists(numbers, min_size=3, max_size=3))
def test_tables_hold_the_formula(matrix: list[float], bias: list[float]) -> None:
    assert_is_the_formula(random_tile(1), np.array(matrix).reshape(3, 3), 2.0 * np.array(bias))


@pytest.mark.parametrize("steepness", [10.0, 10.7, 100.0, 1e6])
def test_maps_too_steep_for_the_tables_follow_the_formula(steepness: float) -> None:
    matrix = steepness * np.array([[1.0, 1.0, 1.0], [1.0, -0.5, -0.4], [-1.0, -1.0, -1.0]])
    assert_is_the_formula(random_tile(2), matrix, 5.0 - 4.0 * matrix.sum(axis=1))
    assert_is_the_formula(random_tile(2), matrix, np.zeros(3))


def test_plausible_fits_of_all_kinds_follow_the_formula() -> None:
    """From stains that are as close to each other, and gains as large, as is trusted."""
    target = StainTarget.default().macenko_tensors()
    for degrees in (3.0, 10.0, 40.0):
        first = torch.tensor([0.65, 0.70, 0.29], dtype=torch.float64)
        first /= first.norm()
        across = torch.linalg.cross(first, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
        angle = math.radians(degrees)
        second = math.cos(angle) * first - math.sin(angle) * across / across.norm()
        stains = torch.stack((first, second), dim=1)[None]
        for gain in (0.1, 1.0, 10.0):
            matrix, bias = macenko.transfer(stains, target[1][None] / gain, *target)
            assert_is_the_formula(random_tile(3), matrix[0].numpy(), bias[0].numpy())


@pytest.mark.parametrize("passes_of", [CompiledPasses, TorchPasses])
@pytest.mark.parametrize("sparse", [False, True])
def test_quantiles_are_those_of_numpy(
    passes_of: Callable[[torch.Tensor], PixelPasses], sparse: bool
) -> None:
    """Within a bin, also where neighbouring values are many bins apart."""
    tiles = random_tile(5, (20, 20)) % 231 if sparse else he_tiles(1, side_px=128)
    passes = passes_of(torch.from_numpy(tiles))
    density = -np.log((tiles.reshape(-1, 3) + 1.0) / 240.0)
    inverse = np.array([[0.7, 0.4, -0.2], [-0.4, 0.5, 0.6]])
    found = passes.high_concentrations(torch.from_numpy(inverse[None]), 0.99).numpy()
    expected = np.quantile(density @ inverse.T, 0.99, axis=0)
    np.testing.assert_allclose(found[0], expected, atol=1.1 * MAX_CONCENTRATION / BINS)

    axes = np.array([[0.6, 0.6, 0.53], [0.7, -0.7, 0.1]])
    low_high = passes.extreme_slants(torch.from_numpy(axes[None]), 0.01).numpy()
    stained = (tiles.reshape(-1, 3) <= OPAQUE_MAX).all(axis=1)
    u, v = (density[stained] @ axes.T).T
    expected = np.quantile(v / (u.clip(0.0) + np.abs(v)), [0.01, 0.99])
    np.testing.assert_allclose(low_high[0], expected, atol=1.1 * 2 / BINS)


def test_beyond_a_right_angle_slants_stay_at_the_end() -> None:
    tiles = random_tile(4) % OPAQUE_MAX
    axes = torch.tensor([[[-0.577, -0.577, -0.577], [0.7, -0.7, 0.0]]], dtype=torch.float64)
    low, high = CompiledPasses(torch.from_numpy(tiles)).extreme_slants(axes, 0.01)[0].tolist()
    assert low == pytest.approx(-1.0, abs=2 / BINS)
    assert high == pytest.approx(1.0, abs=2 / BINS)


def test_a_map_for_all_serves_a_batch_whose_first_tile_is_not_wanted() -> None:
    tiles = torch.from_numpy(np.concatenate([random_tile(seed) for seed in range(3)]))
    matrix, bias = 0.9 * torch.eye(3, dtype=torch.float64)[None], torch.zeros((1, 3))
    out, whole = torch.empty_like(tiles), torch.empty_like(tiles)
    CompiledPasses(tiles).apply(matrix, bias, np.array([False, True, True]), out)
    CompiledPasses(tiles).apply(matrix, bias, np.array([True, True, True]), whole)
    assert torch.equal(out[0], tiles[0])
    assert torch.equal(out[1:], whole[1:])
    assert not torch.equal(whole[1:], tiles[1:])


def normalizer(fit: str) -> StainNormalizer:
    spec = StainSpec("macenko", "slide" if fit == "slide" else "tile")
    return StainNormalizer(spec, fit_slide(he_tiles(4), spec) if fit == "slide" else None, CPU)


@pytest.mark.parametrize("fit", ["slide", "tile"])
def test_many_threads_share_a_normalizer(fit: str) -> None:
    normalize = normalizer(fit)
    batches = [torch.from_numpy(he_tiles(3, seed=seed)) for seed in range(12)]
    alone = [normalize(batch)[0] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = [out for out, _ in pool.map(normalize, batches)]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("fit", ["slide", "tile"])
def test_nothing_of_a_tiles_size_is_allocated(fit: str) -> None:
    """Neither by numpy, nor within the compiled loops: what they allocate doesn't depend on the number of tiles."""
    runtime: Any = importlib.import_module("numba.core.runtime")
    runtime._nrt_python.memsys_enable_stats()
    count = runtime.rtsys.get_allocation_stats
    normalize = normalizer(fit)
    made, peaks = [], []
    for n in (1, 24):
        tiles = torch.from_numpy(he_tiles(n))
        normalize(tiles, out=tiles.clone())
        out = tiles.clone()
        before = count().alloc
        tracemalloc.start()
        for _ in range(5):
            assert normalize(tiles, out=out)[0] is out
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        made.append(count().alloc - before)
        peaks.append(peak)
        assert kept < 10_000  # a tile has 27,648 bytes
    assert peaks[1] - peaks[0] < 23 * 1_000
    assert made[0] == made[1]
