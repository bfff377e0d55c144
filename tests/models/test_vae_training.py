"""The VAE learns; the same seed gives the same bits, interrupted or not; what is planted is warned of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch

from models.checkpoint import read_tensors
from models.fit import EpochRecord, FitResult, FitSpec, fit
from models.tile_source import TileSource
from models.vae import VaeConfig, VaeSkip96
from models.vae_loss import VaeLossSpec, kl_nats
from models.vae_training import VaeTraining, VaeTrainingSpec
from store_schema.errors import InputError, ModelError, SettingsConflictError

CONFIG = VaeConfig(tile_px=64, latent_channels=16, widths=(16, 16, 32, 32, 32), groups=4)
LOSS = VaeLossSpec(reduction="sum", beta_warmup_epochs=2, capacity=20, capacity_epochs=4)


class InMemory(TileSource, Protocol):
    tiles: Any
    asked: list[list[int]]


MakeTiles = Callable[..., InMemory]


def training(
    fit_spec: FitSpec,
    train: InMemory,
    val: InMemory,
    config: VaeConfig = CONFIG,
    loss: VaeLossSpec = LOSS,
    batch_size: int = 16,
) -> VaeTraining:
    torch.manual_seed(fit_spec.seed)
    model = VaeSkip96(config)
    pixels = train.tiles.reshape(-1, 3) / 255
    model.set_pixel_statistics(pixels.mean(0), pixels.std(0))
    spec = VaeTrainingSpec(loss=loss, batch_size=batch_size)
    return VaeTraining(spec, fit_spec, train, val, model)


def heads(result: FitResult) -> set[str]:
    """Return the warnings of a training, without their numbers."""
    return {warning.split(":")[0] for record in result.history for warning in record.warnings}


def values(result: FitResult) -> list[dict[str, float]]:
    return [{k: v for k, v in r.values.items() if k != "seconds"} for r in result.history]


def test_a_healthy_training_learns_tissue_and_warns_of_nothing(
    array_tiles: MakeTiles, tmp_path: Path
) -> None:
    fit_spec = FitSpec(epochs=14, lr=3e-3)
    config = replace(CONFIG, skip_levels=1, skip_dropout=0.98)
    train, val = array_tiles(96, seed=1), array_tiles(16, seed=2)
    result = fit(training(fit_spec, train, val, config, batch_size=8), fit_spec, tmp_path)
    assert heads(result) == set()
    first, last = result.history[0].values, result.history[-1].values
    assert last["val_recon"] < 0.7 * first["val_recon"]
    assert last["kl_over_capacity"] > 1
    assert last["active_units"] > 50
    assert last["prior_recon_ratio"] > 1.1


def test_a_planted_collapse_is_warned_of(array_tiles: MakeTiles, tmp_path: Path) -> None:
    fit_spec = FitSpec(epochs=10, lr=3e-3)
    loss = replace(LOSS, reduction="mean", beta=1000, capacity=0)
    train, val = array_tiles(64, seed=1), array_tiles(24, seed=2)
    result = fit(training(fit_spec, train, val, loss=loss), fit_spec, tmp_path)
    assert heads(result) == {"posterior collapse", "skips carry everything"}
    assert result.history[-1].values["val_kl"] < 1
    assert result.history[-1].values["active_units"] == 0
    assert result.history[-1].values["prior_recon_ratio"] == pytest.approx(1, abs=0.01)


def test_resumed_training_is_the_same_bit_for_bit(array_tiles: MakeTiles, tmp_path: Path) -> None:
    fit_spec = FitSpec(epochs=3, lr=3e-3)

    class Kill:
        def on_epoch(self, record: EpochRecord) -> None:
            if record.epoch == 1:
                raise KeyboardInterrupt

    def job(loss: VaeLossSpec = LOSS) -> VaeTraining:
        return training(fit_spec, array_tiles(40, seed=1), array_tiles(9, seed=2), loss=loss)

    whole = fit(job(), fit_spec, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(job(), fit_spec, tmp_path / "killed", [Kill()])
    resumed = fit(job(), fit_spec, tmp_path / "killed")
    assert values(resumed) == values(whole)
    ours, _ = read_tensors(tmp_path / "killed" / "last.safetensors")
    theirs, _ = read_tensors(tmp_path / "whole" / "last.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(SettingsConflictError, match=r"capacity is 30, was 20"):
        fit(job(replace(LOSS, capacity=30)), fit_spec, tmp_path / "killed")


def test_the_seed_decides(array_tiles: MakeTiles, tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        fit_spec = FitSpec(epochs=1, seed=seed)
        job = training(fit_spec, array_tiles(20, seed=1), array_tiles(5, seed=2))
        found.append(values(fit(job, fit_spec, tmp_path / str(number))))
    assert found[0] == found[1] != found[2]


def test_training_in_half_precision(array_tiles: MakeTiles, tmp_path: Path) -> None:
    fit_spec = FitSpec(epochs=1, amp=True, lr=1e-3)
    job = training(fit_spec, array_tiles(16, seed=1), array_tiles(5, seed=2))
    whole = training(FitSpec(epochs=1, lr=1e-3), array_tiles(16, seed=1), array_tiles(5, seed=2))
    ours = fit(job, fit_spec, tmp_path / "half").history[0].values
    theirs = fit(whole, FitSpec(epochs=1, lr=1e-3), tmp_path / "whole").history[0].values
    for name in ("train_recon", "val_recon", "val_kl"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.05)
        assert ours[name] != theirs[name]


def test_every_tile_comes_once_an_epoch_in_another_order(array_tiles: MakeTiles) -> None:
    source = array_tiles(40, seed=1)
    job = training(FitSpec(), source, array_tiles(5, seed=2))
    orders = []
    for epoch in (0, 1, 0):
        source.asked.clear()
        batches = list(job.batches(epoch))
        assert [len(batch) for batch in batches] == [16, 16, 8]
        assert job.n_batches() == 3
        orders.append([index for asked in source.asked for index in asked])
        assert sorted(orders[-1]) == list(range(40))
    assert orders[0] == orders[2] != orders[1]


def test_the_training_loss_is_of_the_epoch_and_the_validation_loss_of_the_end(
    array_tiles: MakeTiles,
) -> None:
    train, val = array_tiles(20, seed=1), array_tiles(20, seed=2)
    loss = VaeLossSpec("l2", "sum", 3.0, 4, 2.0, 10)
    job = training(FitSpec(), train, val, loss=loss)
    with torch.no_grad():
        job.model.state_dict()["posterior.bias"].add_(1)  # off the prior
    list(job.batches(2))
    terms = job.loss(train.tiles[:16])
    wanted = terms["recon"] + 1.5 * torch.relu(terms["kl"] - 0.4)
    torch.testing.assert_close(terms["loss"], wanted)
    assert terms["kl"] > 0.4
    job.model.eval()
    with torch.no_grad():
        early, late = job.validate(0), job.validate(99)
        x = job.model.normalize(torch.from_numpy(val.tiles))
        output = job.model(x)
        recon = (output.reconstruction - x).square().sum((1, 2, 3)).mean()
        kl = kl_nats(output.mean, output.logvar).mean()
    assert early["val_loss"] == late["val_loss"]
    assert late["val_loss"] == pytest.approx(float(recon + 3 * torch.relu(kl - 2)), rel=1e-5)
    assert (early["beta"], early["capacity"], late["beta"], late["capacity"]) == (0, 0, 3, 2)
    assert "kl_over_capacity" not in early
    assert late["kl_over_capacity"] == pytest.approx(float(kl) / 2, rel=1e-5)


def test_noise_is_added_to_what_is_seen_and_not_to_what_is_wanted(array_tiles: MakeTiles) -> None:
    train = array_tiles(16, seed=1)
    seen = []

    def record(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0].detach().clone())

    loss = replace(LOSS, denoise_sigma=0.3)
    job = training(FitSpec(), train, array_tiles(5, seed=2), loss=loss)
    job.model.register_forward_pre_hook(record)
    list(job.batches(0))
    with torch.no_grad():
        job.loss(train.tiles)
        job.model.eval()
        job.validate(0)
    noise = seen[0] - job.model.normalize(torch.from_numpy(train.tiles))
    assert noise.std() == pytest.approx(0.3, rel=0.02)
    clean = job.model.normalize(torch.from_numpy(array_tiles(5, seed=2).tiles))
    assert torch.equal(seen[1], clean)


def test_examples_are_what_the_model_makes_of_validation_tiles(array_tiles: MakeTiles) -> None:
    val = array_tiles(30, seed=2)
    job = training(FitSpec(), array_tiles(16, seed=1), val)
    job.model.eval()
    examples = job.examples(4)
    assert examples.tiles.shape == examples.reconstructions.shape == (4, 64, 64, 3)
    np.testing.assert_array_equal(examples.tiles[[0, -1]], val.tiles[[0, -1]])
    with torch.no_grad():
        x = job.model.normalize(torch.from_numpy(examples.tiles))
        made = job.model(x).reconstruction
    shown = (job.model.denormalize(made) * 255).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(examples.reconstructions, shown, atol=0.501)
    np.testing.assert_allclose(examples.errors, (made - x).abs().mean(1).numpy(), rtol=1e-5)
    assert len(job.examples(99).tiles) == 30


def test_what_does_not_fit_is_refused(array_tiles: MakeTiles) -> None:
    good = array_tiles(4)
    with pytest.raises(InputError, match="validation split has no tiles"):
        training(FitSpec(), good, _empty(array_tiles(1)))
    with pytest.raises(
        ModelError, match="takes tiles of 64 px and the validation tiles have 96 px"
    ):
        training(FitSpec(), good, array_tiles(4, 96))
    with pytest.raises(InputError, match="batch size"):
        VaeTrainingSpec(batch_size=0)


def _empty(source: InMemory) -> InMemory:
    source.tiles = source.tiles[:0]
    return source
