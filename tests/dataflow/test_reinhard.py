from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab
from torchstain.torch.normalizers import TorchReinhardNormalizer

from dataflow import reinhard
from dataflow.lab_passes import LabPasses, lab_passes
from dataflow.optical_density import OPAQUE_MAX
from dataflow.reinhard_cpu import CompiledLabPasses
from dataflow.reinhard_torch import TorchLabPasses, lab_planes, rgb_planes
from tests.dataflow.he_tiles import blank_tile, he_tiles

PASSES: list[Callable[[torch.Tensor], LabPasses]] = [CompiledLabPasses, TorchLabPasses]
every_passes = pytest.mark.parametrize("passes_of", PASSES)


def random_tiles(n: int, side_px: int, most: int = 255) -> npt.NDArray[np.uint8]:
    shape = (n, side_px, side_px, 3)
    return np.random.default_rng(0).integers(0, most, shape, np.uint8, endpoint=True)


def applied(
    passes_of: Callable[[torch.Tensor], LabPasses],
    tiles: torch.Tensor,
    gain: torch.Tensor,
    offset: torch.Tensor,
) -> torch.Tensor:
    out = torch.empty_like(tiles)
    passes_of(tiles).apply(gain, offset, np.ones(len(tiles), np.bool_), out)
    return out


def test_lab_is_that_of_scikit_image() -> None:
    tiles = random_tiles(2, 16)
    ours = lab_planes(torch.from_numpy(tiles)).transpose(1, 2).reshape(2, 16, 16, 3)
    np.testing.assert_allclose(ours.numpy(), rgb2lab(tiles), atol=0.02)


def test_there_and_back() -> None:
    tiles = torch.from_numpy(random_tiles(1, 32))
    back = rgb_planes(lab_planes(tiles)).transpose(1, 2).reshape(1, 32, 32, 3)
    assert float((back - tiles).abs().max()) < 0.1


@every_passes
def test_moments_are_those_of_scikit_image(passes_of: Callable[[torch.Tensor], LabPasses]) -> None:
    tiles = random_tiles(3, 40)
    tiles[2] = 255
    count, mean, std = passes_of(torch.from_numpy(tiles)).moments()
    for i in range(2):
        lab = rgb2lab(tiles[i])[tiles[i].min(axis=2) <= OPAQUE_MAX]
        assert int(count[i]) == len(lab)
        np.testing.assert_allclose(mean[i], lab.mean(axis=0), atol=0.01)
        np.testing.assert_allclose(std[i], lab.std(axis=0, ddof=1), atol=0.01)
    assert [float(count[2]), *mean[2].tolist(), *std[2].tolist()] == [0.0] * 7


@every_passes
def test_agrees_with_torchstain_where_all_is_tissue(
    passes_of: Callable[[torch.Tensor], LabPasses],
) -> None:
    source, target = he_tiles(2, seed=3).clip(max=200)
    theirs = TorchReinhardNormalizer()
    theirs.fit(torch.from_numpy(target).permute(2, 0, 1))
    expected = theirs.normalize(torch.from_numpy(source).permute(2, 0, 1))
    wanted = reinhard.fit(passes_of(torch.from_numpy(target)[None]))
    tiles = torch.from_numpy(source)[None]
    fit = reinhard.fit(passes_of(tiles))
    assert bool(fit.trusted[0])
    to_target = reinhard.transfer(fit.mean, fit.std, wanted.mean[0], wanted.std[0])
    ours = applied(passes_of, tiles, *to_target)[0]
    assert int((ours.int() - expected.int()).abs().max()) <= 1


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(0.02, 5.0), min_size=3, max_size=3),
    st.lists(st.floats(-300.0, 300.0), min_size=3, max_size=3),
)
def test_tables_hold_the_formula(gain: list[float], offset: list[float]) -> None:
    """Also for results far outside of what a screen can show; steeper maps make more of float32's own errors."""
    tiles = torch.from_numpy(random_tiles(1, 48, most=205))
    to_target = torch.tensor([gain], dtype=torch.float64), torch.tensor([offset])
    ours = applied(CompiledLabPasses, tiles, *to_target).int()
    assert int((ours - applied(TorchLabPasses, tiles, *to_target).int()).abs().max()) <= 1


@pytest.mark.parametrize("offset", [0.0, 1e20, -1e20, 1e30, -1e30])
def test_results_beyond_all_numbers_are_no_places_in_a_table(offset: float) -> None:
    tiles = torch.from_numpy(random_tiles(1, 16))
    for gain in (1.0, 1e13):
        gains, offsets = torch.full((1, 3), gain), torch.full((1, 3), offset, dtype=torch.float64)
        assert applied(CompiledLabPasses, tiles, gains, offsets).shape == tiles.shape


@every_passes
def test_every_colour_maps_to_itself(passes_of: Callable[[torch.Tensor], LabPasses]) -> None:
    """Each corner, edge and face of the cube, and what lies between."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, 1, -1, 3)
    tiles = torch.from_numpy(cube)
    same = torch.ones((1, 3), dtype=torch.float64), torch.zeros((1, 3), dtype=torch.float64)
    off = applied(passes_of, tiles, *same).int() - tiles.int()
    assert int(off.abs().max()) <= 1  # fractions are cut off


@every_passes
def test_glass_stays_white_and_is_no_evidence(
    passes_of: Callable[[torch.Tensor], LabPasses],
) -> None:
    half = he_tiles(1)[0]
    half[:, :48] = blank_tile()[:, :48]
    tiles = torch.from_numpy(np.stack([half, blank_tile()]))
    fit = reinhard.fit(passes_of(tiles))
    assert fit.trusted.tolist() == [True, False]
    target = torch.tensor([40.0, 40.0, -30.0]), torch.tensor([9.0, 9.0, 9.0])
    gain, offset = reinhard.transfer(fit.mean[:1], fit.std[:1], *target)
    out = applied(passes_of, tiles[:1], gain, offset)
    glass = out[0, :, :44].int() - tiles[0, :, :44].int()
    assert int(glass.abs().max()) <= 20  # faded, not turned purple
    moved = out[0, :, 48:].float().mean() - tiles[0, :, 48:].float().mean()
    assert abs(float(moved)) > 10


@every_passes
def test_tiles_that_are_not_wanted_are_copied(
    passes_of: Callable[[torch.Tensor], LabPasses],
) -> None:
    tiles = torch.from_numpy(he_tiles(3))
    gain, offset = torch.full((3, 3), 0.5), torch.full((3, 3), 10.0)
    out = torch.empty_like(tiles)
    passes_of(tiles).apply(gain, offset, np.array([False, True, False]), out)
    assert torch.equal(out[[0, 2]], tiles[[0, 2]])
    assert not torch.equal(out[1], tiles[1])


def test_the_cpu_computes_in_compiled_loops() -> None:
    assert isinstance(lab_passes(torch.zeros((1, 2, 2, 3), dtype=torch.uint8)), CompiledLabPasses)
