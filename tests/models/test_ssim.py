"""SSIM is what scikit-image computes by the paper's settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as reference

from models.ssim import structural_similarity


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_equals_scikit_image(tiles: torch.Tensor, noise: float) -> None:
    a = tiles[:6].float() / 255
    rng = torch.Generator().manual_seed(0)
    b = (a + noise * torch.randn(a.shape, generator=rng)).clamp(0, 1)
    b[1] = 1 - a[1]  # negative correlation
    b[2] = a[2].mean()  # no structure
    found = structural_similarity(a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2))
    wanted = [
        reference(  # type: ignore[no-untyped-call]
            x.double().numpy(),
            y.double().numpy(),
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
        )
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-5)
    assert found[1] < 0.2


def test_equal_images_are_wholly_similar_whatever_the_memory_order(tiles: torch.Tensor) -> None:
    a = tiles[:2].float().permute(0, 3, 1, 2) / 255
    flat = torch.ones_like(a)
    np.testing.assert_allclose(structural_similarity(a, a).numpy(), 1, atol=1e-5)
    np.testing.assert_allclose(structural_similarity(flat, flat).numpy(), 1, atol=1e-5)
    other = a.flip(0)
    torch.testing.assert_close(
        structural_similarity(a, other), structural_similarity(a.contiguous(), other.contiguous())
    )
