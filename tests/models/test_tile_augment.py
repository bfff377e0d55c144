"""Augmentation gives tiles as they might have been, follows from its generator, and can be switched off."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.tile_augment import NO_AUGMENTATION, AugmentSpec, augment
from store_schema.errors import InputError


def orientations(tile: npt.NDArray[np.uint8]) -> list[bytes]:
    turned = [np.rot90(tile, k) for k in range(4)]
    return [t.tobytes() for t in turned] + [t[:, ::-1].tobytes() for t in turned]


def test_all_eight_orientations_are_as_likely() -> None:
    tile = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    spec = AugmentSpec(colour=0)
    varied = augment(np.repeat(tile[None], 4000, 0), spec, np.random.default_rng(0))
    counts = Counter(one.tobytes() for one in varied)
    assert counts.keys() == set(orientations(tile))
    assert min(counts.values()) > 400
    flipped = augment(
        np.repeat(tile[None], 50, 0),
        AugmentSpec(quarter_turns=False, colour=0),
        np.random.default_rng(0),
    )
    assert {one.tobytes() for one in flipped} == {tile.tobytes(), tile[:, ::-1].tobytes()}


def test_colour_scales_optical_density_channel_by_channel() -> None:
    levels = (
        np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3).repeat(40, axis=0)
    )
    spec = AugmentSpec(flips=False, quarter_turns=False, colour=0.1)
    varied = augment(levels, spec, np.random.default_rng(0))
    assert (varied[:, -1, -1] == 255).all()  # glass
    assert (varied[:, 0, 0] == 0).all()
    assert not np.array_equal(varied[..., 0], varied[..., 1])
    density = np.log(varied[:, 8, 0].astype(float) / 255) / np.log(128 / 255)  # (tile, rgb)
    assert 0.89 < density.min() < 0.93
    assert 1.07 < density.max() < 1.11


def test_follows_from_the_generator_and_leaves_its_input(tiles: torch.Tensor) -> None:
    stored = tiles.numpy()
    before = stored.copy()
    first, again, other = (
        augment(stored, AugmentSpec(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(stored, before)
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous


def test_off_is_off(tiles: torch.Tensor) -> None:
    same = augment(tiles.numpy(), NO_AUGMENTATION, np.random.default_rng(0))
    np.testing.assert_array_equal(same, tiles.numpy())
    with pytest.raises(InputError, match="colour"):
        AugmentSpec(colour=1)
