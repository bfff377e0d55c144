from __future__ import annotations

import numpy as np
import torch
from skimage.color import rgb2lab
from torchstain.torch.normalizers import TorchReinhardNormalizer

from dataflow import reinhard
from tests.dataflow.he_tiles import blank_tile, he_tiles


def test_lab_is_that_of_scikit_image() -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    ours = reinhard.lab_planes(torch.from_numpy(tiles)).transpose(1, 2).reshape(2, 16, 16, 3)
    np.testing.assert_allclose(ours.numpy(), rgb2lab(tiles), atol=0.02)


def test_there_and_back() -> None:
    tiles = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8))
    back = reinhard.rgb_planes(reinhard.lab_planes(tiles)).transpose(1, 2).reshape(1, 32, 32, 3)
    assert float((back - tiles).abs().max()) < 0.1


def test_agrees_with_torchstain_where_all_is_tissue() -> None:
    source, target = he_tiles(2, seed=3).clip(max=200)
    theirs = TorchReinhardNormalizer()
    theirs.fit(torch.from_numpy(target).permute(2, 0, 1))
    expected = theirs.normalize(torch.from_numpy(source).permute(2, 0, 1))
    target_mean, target_std, _ = reinhard.statistics(torch.from_numpy(target)[None])
    tiles = torch.from_numpy(source)[None]
    mean, std, trusted = reinhard.statistics(tiles)
    assert bool(trusted[0])
    ours = reinhard.apply(tiles, mean, std, target_mean[0], target_std[0])[0]
    assert int((ours.int() - expected.int()).abs().max()) <= 1


def test_glass_stays_white_and_is_no_evidence() -> None:
    half = he_tiles(1)[0]
    half[:, :48] = blank_tile()[:, :48]
    tiles = torch.from_numpy(np.stack([half, blank_tile()]))
    mean, std, trusted = reinhard.statistics(tiles)
    assert trusted.tolist() == [True, False]
    target_mean = torch.tensor([40.0, 40.0, -30.0])
    out = reinhard.apply(tiles[:1], mean[:1], std[:1], target_mean, torch.tensor([9.0, 9.0, 9.0]))
    glass = out[0, :, :44].int() - tiles[0, :, :44].int()
    assert int(glass.abs().max()) <= 20  # faded, not turned purple
    moved = out[0, :, 48:].float().mean() - tiles[0, :, 48:].float().mean()
    assert abs(float(moved)) > 10
