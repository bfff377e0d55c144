"""The VAE's shapes, its skips, what is random in it and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.vae import VaeConfig, VaeSkip96, sample
from store_schema.errors import InputError

SMALL = VaeConfig(tile_px=64, latent_channels=5, widths=(8, 8, 16, 16, 16), groups=4)


def built(config: VaeConfig = SMALL, seed: int = 0) -> VaeSkip96:
    torch.manual_seed(seed)
    return VaeSkip96(config)


def pixels(n: int = 3, side_px: int = 64) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (n, side_px, side_px, 3), dtype=np.uint8))


def test_shapes_of_the_default() -> None:
    model = built(VaeConfig())
    x = model.normalize(pixels(2, 96))
    mean, logvar, skips = model.encode(x)
    assert mean.shape == logvar.shape == (2, 64, 3, 3) == (2, *model.config.latent_shape)
    shapes = [tuple(skip.shape[1:]) for skip in skips]
    assert shapes == [(256, 6, 6), (128, 12, 12), (64, 24, 24), (32, 48, 48)]
    assert model(x).reconstruction.shape == (2, 3, 96, 96)
    assert sum(weight.numel() for weight in model.parameters()) == 3_748_748


@pytest.mark.parametrize("side_px", [32, 128])
def test_other_sizes_of_tiles(side_px: int) -> None:
    model = built(replace(SMALL, tile_px=side_px))
    output = model(model.normalize(pixels(2, side_px)))
    assert output.reconstruction.shape == (2, 3, side_px, side_px)
    assert output.mean.shape[1:] == model.config.latent_shape == (5, side_px // 32, side_px // 32)


def test_pixels_are_normalized_channel_by_channel_and_back() -> None:
    model = built()
    model.set_pixel_statistics((0.7, 0.5, 0.6), (0.1, 0.2, 0.3))
    tiles = pixels()
    x = model.normalize(tiles)
    plain = (tiles.double() / 255 - torch.tensor([0.7, 0.5, 0.6])) / torch.tensor([0.1, 0.2, 0.3])
    np.testing.assert_allclose(x.permute(0, 2, 3, 1).numpy(), plain.numpy(), atol=1e-5)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    back = model.denormalize(x).permute(0, 2, 3, 1) * 255
    np.testing.assert_allclose(back.numpy(), tiles.numpy(), atol=1e-3)
    assert model.denormalize(torch.full((1, 3, 2, 2), 99.0)).max() == 1
    assert model.denormalize(torch.full((1, 3, 2, 2), -99.0)).min() == 0
    assert {"pixel_mean", "pixel_std"} <= model.state_dict().keys()


def test_the_output_is_linear() -> None:
    """With a sigmoid, the reference's first model made white images."""
    model = built().eval()
    with torch.no_grad():
        for weights in model.to_pixels.parameters():
            weights.mul_(50)
        reconstruction = model(model.normalize(pixels())).reconstruction
    assert reconstruction.min() < -3
    assert reconstruction.max() > 3


def test_whole_skips_are_dropped_each_by_itself_with_their_probability() -> None:
    model = built(replace(SMALL, skip_dropout=0.3))
    skips = tuple(torch.ones(2000, 2, 3, 3) for _ in range(3))
    rng = torch.Generator().manual_seed(0)
    kept = torch.stack(
        [skip.flatten(1) for skip in model.drop(skips, rng)]
    )  # (level, tile, number)
    assert set(kept.flatten().tolist()) == {0.0, 1.0}  # whole, and not rescaled
    assert torch.equal(kept.amin(2), kept.amax(2))
    dropped = kept.amax(2) == 0
    # within 4 standard errors of binomial counts
    np.testing.assert_allclose(dropped.double().mean(1).numpy(), 0.3, atol=4 * (0.21 / 2000) ** 0.5)
    together = (dropped[0] & dropped[1]).double().mean()
    assert together == pytest.approx(0.09, abs=4 * (0.082 / 2000) ** 0.5)
    never = built(replace(SMALL, skip_dropout=0.0))
    assert all(a is b for a, b in zip(never.drop(skips), skips, strict=True))
    always = built(replace(SMALL, skip_dropout=1.0))
    assert not any(skip.any() for skip in always.drop(skips))


def test_dropped_skips_leave_no_trace_in_a_training_pass() -> None:
    model = built(replace(SMALL, skip_dropout=1.0))
    x = model.normalize(pixels())
    rng = torch.Generator().manual_seed(1)
    output = model(x, rng)
    z = sample(output.mean, output.logvar, torch.Generator().manual_seed(1))
    torch.testing.assert_close(output.reconstruction, model.decode(z, ()))


def test_eval_takes_the_mean_and_all_skips_and_nothing_random() -> None:
    model = built().eval()
    x = model.normalize(pixels())
    with torch.no_grad():
        first, second = model(x), model(x)
        mean, _, skips = model.encode(x)
        assert torch.equal(first.reconstruction, second.reconstruction)
        assert torch.equal(first.reconstruction, model.decode(mean, skips))
        for level in range(len(skips)):
            without = [s * (k != level) for k, s in enumerate(skips)]
            assert not torch.allclose(model.decode(mean, without), first.reconstruction)


def test_training_passes_follow_from_the_generator() -> None:
    model = built()
    x = model.normalize(pixels())

    def passed(seed: int) -> Tensor:
        output: Tensor = model(x, torch.Generator().manual_seed(seed)).reconstruction
        return output

    assert torch.equal(passed(1), passed(1))
    assert not torch.equal(passed(1), passed(2))


@pytest.mark.parametrize("levels", [0, 2])
def test_fewer_levels_with_skips(levels: int) -> None:
    model = built(replace(SMALL, skip_levels=levels)).eval()
    x = model.normalize(pixels())
    _, _, skips = model.encode(x)
    assert [skip.shape[-1] for skip in skips] == [4, 8, 16, 32][:levels]
    output = model(x)
    assert output.reconstruction.shape == x.shape
    output.reconstruction.sum().backward()
    assert all(weights.grad is not None for name, weights in model.named_parameters())


def test_samples_have_the_posterior_s_moments() -> None:
    mean, logvar = torch.full((1, 1, 300, 300), 2.0), torch.full((1, 1, 300, 300), -1.0)
    drawn = sample(mean, logvar, torch.Generator().manual_seed(0))
    assert drawn.mean() == pytest.approx(2.0, abs=0.01)
    assert drawn.var() == pytest.approx(np.exp(-1.0), rel=0.02)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        VaeConfig(tile_px=100)
    with pytest.raises(InputError, match="five multiples of the 8 groups"):
        VaeConfig(widths=(32, 64, 128, 256))
    with pytest.raises(InputError, match="five multiples"):
        VaeConfig(widths=(30, 64, 128, 256, 256))
    with pytest.raises(InputError, match="skip dropout from 0 to 1"):
        VaeConfig(skip_dropout=1.5)
    with pytest.raises(InputError, match="4 levels"):
        VaeConfig(skip_levels=5)
    for deviation in ((0.0, 0.1, 0.1), (float("nan"), 0.1, 0.1)):
        with pytest.raises(InputError, match="can't normalize"):
            built().set_pixel_statistics((0.5, 0.5, 0.5), deviation)


def test_no_border_of_a_tile_is_seen_worse_than_its_opposite() -> None:
    # with kernels that are their own mirror images, a mirrored tile has the mirrored latent and skips: the pairs of
    # pixels that become one lie in the middle of what sees them
    model = built(SMALL)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                mirrored = module.weight.flip(-1)
                module.weight.copy_((module.weight + mirrored) / 2)
        x = model.normalize(pixels(2, SMALL.tile_px))
        mean, _, skips = model.encode(x)
        mean_of_mirrored, _, skips_of_mirrored = model.encode(x.flip(-1))
    torch.testing.assert_close(mean_of_mirrored, mean.flip(-1), rtol=1e-4, atol=1e-5)
    for skip, of_mirrored in zip(skips, skips_of_mirrored, strict=True):
        torch.testing.assert_close(of_mirrored, skip.flip(-1), rtol=1e-4, atol=1e-5)
