"""Measures of a latent against hand computations; what histories warn of and what not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.vae import VaeConfig, VaeSkip96
from models.vae_diagnostics import (
    ActiveUnits,
    collapse_warnings,
    overfitting_warnings,
    prior_errors,
    skip_warnings,
)

HEALTHY = {
    "beta": 1.0,
    "capacity": 60.0,
    "val_kl": 58.0,
    "active_units": 100.0,
    "prior_recon_ratio": 1.8,
    "val_recon": 0.2,
    "train_recon": 0.25,
}


def epochs(n: int = 6, **changes: float) -> list[dict[str, float]]:
    return [{**HEALTHY, **changes} for _ in range(n)]


def test_active_units_are_those_whose_mean_varies_by_more_than_a_hundredth() -> None:
    rng = np.random.default_rng(0)
    deviations = np.sqrt([0.0, 0.005, 0.02, 1.0])
    means = 5 + deviations * rng.standard_normal((4000, 4))
    units = ActiveUnits()
    for part in np.split(means.astype(np.float32), 8):
        units.add(torch.from_numpy(part).view(-1, 1, 2, 2))
    assert units.count() == 2 == int((means.var(0) > 0.01).sum())
    assert ActiveUnits().count() == 0


def test_a_posterior_that_is_the_prior_makes_the_same_errors_exactly() -> None:
    torch.manual_seed(0)
    # of a single cell, a norm of each channel by itself would leave nothing of z
    model = VaeSkip96(VaeConfig(64, 4, (8, 8, 8, 8, 8))).eval()
    x, noise = torch.randn(3, 3, 64, 64), torch.randn(3, 4, 2, 2)
    with torch.no_grad():
        prior, own = prior_errors(model, x, noise, "l1")
        assert float((prior - own).abs().min()) > 1e-5
        mean, logvar, skips = model.encode(x)
        z = mean + (0.5 * logvar).exp() * noise
        plain = (model.decode(z, skips) - x).abs().mean((1, 2, 3))
        torch.testing.assert_close(own, plain)
        for weights in model.posterior.parameters():
            weights.zero_()
        prior, own = prior_errors(model, x, noise, "l1")
    assert torch.equal(prior, own)


@pytest.mark.parametrize(
    "changes",
    [
        {"val_kl": 16.0},  # of a capacity of 60: the reference's failure
        {"active_units": 0.0},  # 58 nats that are the same for all tiles
        {"capacity": 0.0, "val_kl": 0.4},
    ],
)
def test_collapse_is_warned_of(changes: dict[str, float]) -> None:
    (warning,) = collapse_warnings(epochs(6, **changes))
    assert warning.startswith("posterior collapse: ")
    assert collapse_warnings(epochs(4, **changes)) == []  # not by an accident of a few epochs
    assert collapse_warnings(epochs(6, **changes, beta=0.0)) == []
    assert collapse_warnings([*epochs(6, **changes), *epochs(1)]) == []


def test_skips_that_carry_everything_are_warned_of() -> None:
    (warning,) = skip_warnings(epochs(10, prior_recon_ratio=1.01))
    assert warning.startswith("skips carry everything: ")
    assert skip_warnings(epochs(9, prior_recon_ratio=1.01)) == []  # how every training begins
    assert skip_warnings([*epochs(9, prior_recon_ratio=1.01), *epochs(1)]) == []


def test_overfitting_is_warned_of() -> None:
    risen = [*epochs(1), *epochs(6, val_recon=0.23, train_recon=0.15)]
    (warning,) = overfitting_warnings(risen)
    assert warning.startswith("overfitting: ")
    assert overfitting_warnings(risen[:-2]) == []
    # both risen: not that
    assert overfitting_warnings([*epochs(1), *epochs(6, val_recon=0.23, train_recon=0.3)]) == []


def test_health_is_not_warned_of() -> None:
    assert collapse_warnings(epochs(val_kl=25.0)) == []  # of 60, but told by many numbers
    history = epochs(12)
    assert not [
        *collapse_warnings(history),
        *skip_warnings(history),
        *overfitting_warnings(history),
    ]
    without_capacity = epochs(capacity=0.0, val_kl=20.0)
    assert collapse_warnings(without_capacity) == []
