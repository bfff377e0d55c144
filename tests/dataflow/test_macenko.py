from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer
from torchstain.torch.normalizers import TorchMacenkoNormalizer

from dataflow import macenko
from dataflow.optical_density import OPAQUE_MAX, TRANSPARENT_OD, log_planes, moments
from dataflow.slide import open_slide
from dataflow.stain import StainMethod, StainNormalizer, StainSpec
from tests.dataflow.he_tiles import STAINS, blank_tile, he_tiles

CPU = torch.device("cpu")


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


def test_finds_the_dyes_that_were_mixed() -> None:
    fit = macenko.fit(log_planes(torch.from_numpy(he_tiles(4, side_px=128))))
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


def test_evidence_against_a_fit() -> None:
    side = 64
    grey_ramp = np.repeat(np.linspace(20, 200, side * side), 3).reshape(1, side, side, 3)
    cases = {
        "too few stained pixels": blank_tile(side)[None],
        "only one colour": grey_ramp.astype(np.uint8),
    }
    for expected, tiles in cases.items():
        fit = macenko.fit(log_planes(torch.from_numpy(tiles)))
        assert not bool(fit.trusted[0])
        assert expected in fit.objections(0)
        for numbers in (fit.stains, fit.max_concentrations, fit.angle_degrees):
            assert bool(numbers.isfinite().all())


@pytest.mark.parametrize("level", [0, 3, 128, 255])
def test_uniform_tiles_never_fail(level: int) -> None:
    tiles = np.full((2, 32, 32, 3), level, dtype=np.uint8)
    out, used = normalize(tiles)
    assert used == [StainMethod.UNTOUCHED] * 2
    assert np.array_equal(out, tiles)
