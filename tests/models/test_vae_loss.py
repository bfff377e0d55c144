"""The loss against formulas written out, and the schedules against the document's numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from models.vae_loss import VaeLossSpec, kl_nats, reconstruction_errors, total_loss
from models.vae_presets import PRESETS
from store_schema.errors import InputError


def test_kl_is_that_of_torch_distributions() -> None:
    rng = torch.Generator().manual_seed(0)
    mean, logvar = (torch.randn(4, 5, 3, 3, generator=rng) for _ in range(2))
    posterior = Normal(mean.double(), (0.5 * logvar.double()).exp())
    prior = Normal(torch.zeros_like(mean).double(), torch.ones_like(mean).double())
    wanted = kl_divergence(posterior, prior).sum((1, 2, 3))
    np.testing.assert_allclose(kl_nats(mean, logvar).numpy(), wanted.numpy(), rtol=1e-5)
    assert kl_nats(torch.zeros(2, 5, 3, 3), torch.zeros(2, 5, 3, 3)).tolist() == [0, 0]
    half = kl_nats(mean.to(torch.bfloat16), logvar.to(torch.bfloat16))
    assert half.dtype == torch.float32


def test_reconstruction_errors_by_hand() -> None:
    x = torch.zeros(2, 3, 4, 4)
    made = x.clone()
    made[0, 0, 0, 0] = -3.0
    made[1] = 0.5
    n = 3 * 4 * 4

    def found(kind: str, reduction: str) -> list[float]:
        errors: list[float] = reconstruction_errors(made, x, kind, reduction).tolist()  # type: ignore[arg-type]
        return errors

    assert found("l1", "sum") == [3.0, 0.5 * n]
    assert found("l2", "sum") == [9.0, 0.25 * n]
    assert found("l1", "mean") == pytest.approx([3.0 / n, 0.5])
    assert found("l2", "mean") == pytest.approx([9.0 / n, 0.25])


def test_the_mean_weighs_kl_27648_times_as_much_as_the_sum() -> None:
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    made = torch.zeros_like(x)
    mean, whole = (reconstruction_errors(made, x, "l1", r) for r in ("mean", "sum"))
    np.testing.assert_allclose((whole / mean).numpy(), 27648, rtol=1e-5)


def test_only_the_nats_above_the_capacity_cost() -> None:
    recon = torch.tensor(0.25)
    assert total_loss(recon, torch.tensor(16.3), 1.0, 24.0) == pytest.approx(0.25)
    assert total_loss(recon, torch.tensor(30.0), 0.8, 24.0) == pytest.approx(0.25 + 0.8 * 6)
    assert total_loss(recon, torch.tensor(418.0), 0.0, 0.0) == pytest.approx(0.25)
    kl = torch.tensor(20.0, requires_grad=True)
    total_loss(recon, kl, 1.0, 24.0).backward()  # type: ignore[no-untyped-call]
    assert kl.grad == 0  # below the capacity nothing pushes it either way


def test_schedules_are_those_of_the_document() -> None:
    b1 = PRESETS["b1"].loss
    # its epochs are counted from 1
    assert [b1.beta_at(epoch) for epoch in (0, 4, 5, 6, 19)] == [0, 0.8, 1, 1, 1]
    assert [b1.capacity_at(epoch) for epoch in (0, 4, 6, 20, 50)] == [0, 24, 36, 120, 120]
    at_once = VaeLossSpec(beta=2, beta_warmup_epochs=0, capacity=7, capacity_epochs=0)
    assert (at_once.beta_at(0), at_once.capacity_at(0)) == (2, 7)


def test_presets() -> None:
    b1, b2 = PRESETS["b1"], PRESETS["b2"]
    assert (b1.loss.beta, b1.config.skip_dropout, b1.loss.capacity) == (1, 0.25, 120)
    assert b1.loss == VaeLossSpec("l1", "mean", 1, 5, 120, 20, 0.03)
    assert (b2.loss.beta, b2.config.skip_dropout, b2.loss.capacity, b2.patience) == (
        0.5,
        0.5,
        200,
        5,
    )


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in ({"beta": -1.0}, {"capacity": -1.0}, {"denoise_sigma": -0.1}):
        with pytest.raises(InputError, match="can't be negative"):
            replace(VaeLossSpec(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="warm-up"):
        VaeLossSpec(beta_warmup_epochs=-1)
