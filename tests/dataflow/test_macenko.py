from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer
from torchstain.torch.normalizers import TorchMacenkoNormalizer

from dataflow import macenko
from dataflow.macenko import CONCENTRATION_GAIN
from dataflow.macenko_cpu import CompiledPasses
from dataflow.macenko_torch import TorchPasses
from dataflow.optical_density import OPAQUE_MAX, TRANSPARENT_OD, log_planes, moments
from dataflow.pixel_passes import PixelPasses, pixel_passes
from dataflow.slide import open_slide
from dataflow.stain import StainMethod, StainNormalizer, StainSpec
from dataflow.stain_target import StainTarget
from tests.dataflow.he_tiles import STAINS, blank_tile, he_tiles

CPU = torch.device("cpu")
PASSES: list[Callable[[torch.Tensor], PixelPasses]] = [CompiledPasses, TorchPasses]


def normalize(tiles: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], list[int]]:
    out, used = StainNormalizer(StainSpec("macenko", "tile"), None, CPU)(torch.from_numpy(tiles))
    return out.numpy(), used.tolist()


def difference(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def assert_agrees_with_torchstain(tiles: npt.NDArray[np.uint8]) -> None:
    ours, used = normalize(tiles)
    assert used == [StainMethod.MACENKO] * len(tiles)
    for tile, our in zip(tiles, ours, strict=True):
        theirs, _, _ = NumpyMacenkoNormalizer().normalize(tile, stains=False)
        assert difference(our, theirs) <= 1
        planar = torch.from_numpy(tile).permute(2, 0, 1)
        theirs, _, _ = TorchMacenkoNormalizer().normalize(planar, stains=False)
        assert difference(our, theirs.numpy()) <= 1


def test_agrees_with_torchstain_on_synthetic_tiles() -> None:
    assert_agrees_with_torchstain(he_tiles(6, side_px=128))


@pytest.mark.parametrize(
    ("name", "corners"),
    [
        ("CMU-1-Small-Region.svs", [(1000, 1200), (900, 600), (800, 2000), (1500, 2400)]),
        ("TCGA-CR-7395-01A-01-TS1.svs", [(1000, 1200), (2500, 2500), (2000, 800)]),
        ("CropBreastSlide.tiff", [(200, 1000), (900, 500), (1200, 300)]),
    ],
)
def test_agrees_with_torchstain_on_real_tiles(
    test_data: Path, name: str, corners: list[tuple[int, int]]
) -> None:
    reader = open_slide(test_data / "slides" / name)
    tiles = np.stack([reader.read_level(0, x, y, 256, 256) for x, y in corners])
    reader.close()
    assert_agrees_with_torchstain(tiles)


@pytest.mark.parametrize("passes", PASSES)
def test_finds_the_dyes_that_were_mixed(passes: Callable[[torch.Tensor], PixelPasses]) -> None:
    fit = macenko.fit(passes(torch.from_numpy(he_tiles(4, side_px=128))))
    assert bool(fit.trusted.all())
    expected = torch.from_numpy(STAINS.T)
    cosine = (fit.stains * expected).sum(dim=1)
    assert float(torch.rad2deg(torch.acos(cosine.clamp(max=1))).max()) < 6


def test_opaque_max_is_the_grey_level_of_beta() -> None:
    od = -np.log((np.arange(256) + 1) / 240.0)
    assert int(np.flatnonzero(od >= TRANSPARENT_OD).max()) == OPAQUE_MAX


def test_moments_are_those_of_numpy() -> None:
    planes = log_planes(torch.from_numpy(he_tiles(2)))
    keep = planes[:, 0] < 7.5
    count, mean, covariance = moments(planes, keep)
    for i in range(2):
        kept = planes[i][:, keep[i]].double().numpy()
        assert int(count[i]) == kept.shape[1]
        np.testing.assert_allclose(mean[i].numpy(), kept.mean(axis=1), atol=1e-4)
        np.testing.assert_allclose(covariance[i].numpy(), np.cov(kept), atol=1e-4)


@pytest.mark.parametrize("passes", PASSES)
def test_evidence_against_a_fit(passes: Callable[[torch.Tensor], PixelPasses]) -> None:
    side = 64
    grey_ramp = np.repeat(np.linspace(20, 200, side * side), 3).reshape(1, side, side, 3)
    cases = {
        "too few stained pixels": blank_tile(side)[None],
        "only one colour": grey_ramp.astype(np.uint8),
    }
    for expected, tiles in cases.items():
        fit = macenko.fit(passes(torch.from_numpy(tiles)))
        assert not bool(fit.trusted[0])
        assert expected in fit.objections(0)
        for numbers in (fit.stains, fit.max_concentrations, fit.angle_degrees):
            assert bool(numbers.isfinite().all())


@pytest.mark.parametrize("passes", PASSES)
def test_concentrations_beyond_the_histogram_are_not_trusted(
    passes: Callable[[torch.Tensor], PixelPasses],
) -> None:
    """A strip of ink makes a fit whose gain would be plausible, were the concentration known."""
    tiles = he_tiles(1)
    target = StainTarget.default().macenko_tensors()[1]
    assert macenko.fit(passes(torch.from_numpy(tiles)), target).objections(0) == []
    tiles[0, :, :4] = 0
    fit = macenko.fit(passes(torch.from_numpy(tiles)), target)
    assert fit.objections(0) == ["implausible stain concentrations"]
    assert bool((fit.gain > CONCENTRATION_GAIN[0]).all())


@pytest.mark.parametrize("level", [0, 3, 128, 255])
@pytest.mark.parametrize("shape", [(32, 32), (1, 3), (1, 1)])
def test_tiles_of_one_colour_or_few_pixels_never_fail(level: int, shape: tuple[int, int]) -> None:
    tiles = np.full((2, *shape, 3), level, dtype=np.uint8)
    tiles[1, 0, 0] = (200, 90, 150)  # one stained pixel, or the only one
    out, used = normalize(tiles)
    assert used == [StainMethod.UNTOUCHED] * 2
    assert np.array_equal(out, tiles)
    for passes in PASSES:
        fit = macenko.fit(passes(torch.from_numpy(tiles)), torch.tensor([1.0, 1.0]))
        for numbers in (fit.stains, fit.max_concentrations, fit.angle_degrees, fit.gain):
            assert bool(numbers.isfinite().all())


def test_the_cpu_computes_in_compiled_loops() -> None:
    assert isinstance(pixel_passes(torch.zeros((1, 2, 2, 3), dtype=torch.uint8)), CompiledPasses)


def test_compiled_loops_and_torch_give_the_same() -> None:
    """What a GPU would compute, computed on the CPU."""
    tiles = torch.from_numpy(np.concatenate([he_tiles(12, seed=3), blank_tile()[None]]))
    target = torch.tensor(STAINS.T), torch.tensor([1.9, 1.1])
    results, fits = [], []
    for passes in (each(tiles) for each in PASSES):
        fit = macenko.fit(passes, target[1])
        out = torch.empty_like(tiles)
        transfer = macenko.transfer(fit.stains, fit.max_concentrations, *target)
        passes.apply(*transfer, fit.trusted.numpy(), out)
        results.append(out)
        fits.append(fit)
    for moments_of_one, of_other in zip(*(each(tiles).moments() for each in PASSES), strict=True):
        assert torch.equal(moments_of_one, of_other)
    trusted = fits[0].trusted
    assert trusted.tolist() == fits[1].trusted.tolist() == [True] * 12 + [False]
    one, other = (fit.stains[trusted] for fit in fits)
    assert float((one - other).abs().max()) < 1e-3
    one, other = (fit.max_concentrations[trusted] for fit in fits)
    assert float((one - other).abs().max()) < 2e-3
    assert difference(results[0].numpy(), results[1].numpy()) <= 1
    assert torch.equal(results[0][-1], tiles[-1])
