"""The head learns what the latent tells, leaves the VAE alone, and says what it can't measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.checkpoint import read_tensors
from models.fit import EpochRecord, FitSpec, fit
from models.tile_head import TileHead, TileHeadConfig
from models.tile_head_training import TileHeadTraining, TileHeadTrainingSpec
from models.tile_source import LabelledTiles
from models.vae import VaeConfig, VaeSkip96
from store_schema.errors import InputError, ModelError

VAE = VaeConfig(tile_px=64, latent_channels=8, widths=(16,) * 5, groups=2)
SPEC = TileHeadTrainingSpec(batch_size=16)


class InMemory(LabelledTiles, Protocol):
    tiles: Any
    labels: Any


MakeTiles = Callable[..., InMemory]


def training(
    fit_spec: FitSpec, train: InMemory, val: InMemory, spec: TileHeadTrainingSpec = SPEC
) -> TileHeadTraining:
    torch.manual_seed(fit_spec.seed)
    vae = VaeSkip96(VAE)
    return TileHeadTraining(spec, fit_spec, train, val, TileHead(vae, TileHeadConfig(hidden=16)))


def test_the_head_learns_and_the_vae_stays(array_tiles: MakeTiles, tmp_path: Path) -> None:
    fit_spec = FitSpec(epochs=10, lr=1e-2)
    train, val = array_tiles(64, seed=1), array_tiles(32, seed=2)
    for source in (train, val):
        source.tiles[source.labels == 1, ::4] //= 4
    job = training(fit_spec, train, val)
    before = {name: t.clone() for name, t in job.model.vae.state_dict().items()}
    result = fit(job, fit_spec, tmp_path)
    assert result.history[-1].values["val_auc"] > 0.75
    assert not any(record.warnings for record in result.history)
    after = job.model.vae.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    job.model.train()
    assert not job.model.vae.training
    assert job.model.layers.training


def test_the_default_has_about_a_hundred_thousand_weights_to_learn() -> None:
    head = TileHead(VaeSkip96(VaeConfig()), TileHeadConfig())
    assert sum(w.numel() for w in head.parameters() if w.requires_grad) == 576 * 160 + 160 + 161
    assert head(torch.zeros(2, 96, 96, 3, dtype=torch.uint8)).shape == (2,)


def test_latents_are_standardized_over_the_training_tiles(array_tiles: MakeTiles) -> None:
    train = array_tiles(40, seed=1)
    job = training(FitSpec(), train, array_tiles(8, seed=2))
    model = job.model
    latent = model.latent(torch.from_numpy(train.tiles)).double().numpy()
    mean, deviation = latent.mean(0), latent.std(0)
    np.testing.assert_allclose(model.latent_mean.numpy(), mean, atol=1e-5)
    floored = np.maximum(deviation, 0.1 * deviation.mean())
    np.testing.assert_allclose(model.latent_scale.numpy(), 1 / floored, rtol=1e-4)
    posterior = model.vae.encode(model.vae.normalize(torch.from_numpy(train.tiles)))[0]
    np.testing.assert_allclose(latent, posterior.detach().flatten(1).numpy(), atol=1e-6)


def test_a_latent_that_says_nothing_stays_finite(array_tiles: MakeTiles, tmp_path: Path) -> None:
    fit_spec = FitSpec(epochs=1)
    train, val = array_tiles(16, seed=1), array_tiles(8, seed=2)
    vae = VaeSkip96(VAE)
    torch.nn.init.zeros_(vae.posterior.weight)
    job = TileHeadTraining(SPEC, fit_spec, train, val, TileHead(vae, TileHeadConfig(8)))
    assert fit(job, fit_spec, tmp_path).history[0].values["val_auc"] == pytest.approx(0.5)


@pytest.mark.parametrize("balanced", [False, True])
def test_the_loss_is_binary_cross_entropy(array_tiles: MakeTiles, balanced: bool) -> None:
    train, val = array_tiles(30, seed=1), array_tiles(20, seed=2)
    train.labels = np.array([1] * 6 + [0] * 24, np.int8)
    job = training(FitSpec(), train, val, replace(SPEC, balanced=balanced))
    job.model.eval()
    batch = next(iter(job.batches(0)))
    p = torch.sigmoid(job.model(torch.from_numpy(batch.tiles))).double()
    y = torch.from_numpy(batch.labels).double()
    weight = 24 / 6 if balanced else 1
    wanted = -(weight * y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert float(job.loss(batch)["loss"].detach()) == pytest.approx(
        float(wanted.detach()), rel=1e-4
    )
    with torch.no_grad():
        values = job.validate(0)
    logits = job.model(torch.from_numpy(val.tiles))
    target = torch.from_numpy(val.labels).float()
    plain = F.binary_cross_entropy_with_logits(logits, target, pos_weight=torch.tensor(weight))
    assert values["val_loss"] == pytest.approx(float(plain.detach()), rel=1e-4)


def test_labels_follow_their_tiles(array_tiles: MakeTiles) -> None:
    train = array_tiles(40, seed=1)
    train.tiles[:] = np.arange(40, dtype=np.uint8)[:, None, None, None]
    train.labels = (np.arange(40) % 3 == 0).astype(np.int8)
    job = training(FitSpec(), train, array_tiles(8), replace(SPEC, augment=_only_turns()))
    for batch in job.batches(3):
        np.testing.assert_array_equal(batch.labels, batch.tiles[:, 0, 0, 0] % 3 == 0)


def test_resumed_training_is_the_same_bit_for_bit(array_tiles: MakeTiles, tmp_path: Path) -> None:
    fit_spec = FitSpec(epochs=3, lr=1e-2)

    class Kill:
        def on_epoch(self, record: EpochRecord) -> None:
            if record.epoch == 1:
                raise KeyboardInterrupt

    def job() -> TileHeadTraining:
        return training(fit_spec, array_tiles(40, seed=1), array_tiles(9, seed=2))

    fit(job(), fit_spec, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(job(), fit_spec, tmp_path / "killed", [Kill()])
    fit(job(), fit_spec, tmp_path / "killed")
    ours, _ = read_tensors(tmp_path / "killed" / "last.safetensors")
    theirs, _ = read_tensors(tmp_path / "whole" / "last.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_does_not_fit_is_refused_or_said(array_tiles: MakeTiles, tmp_path: Path) -> None:
    good = array_tiles(16, seed=1)
    one_class = array_tiles(8, seed=2)
    one_class.labels = np.zeros(8, np.int8)
    with pytest.raises(InputError, match=r"^0 of the 8 training tiles are tumour"):
        training(FitSpec(), one_class, good)
    fit_spec = FitSpec(epochs=2)
    result = fit(training(fit_spec, good, one_class), fit_spec, tmp_path)
    assert [len(record.warnings) for record in result.history] == [1, 0]
    assert result.history[0].warnings[0].startswith("validation tiles are all of one class")
    one_class.labels = np.full(8, 2, np.int8)
    with pytest.raises(InputError, match="validation tiles must be 0 or 1"):
        training(FitSpec(), good, one_class)
    with pytest.raises(ModelError, match="takes tiles of 64 px and the training tiles have 96"):
        training(FitSpec(), array_tiles(8, 96), good)
    with pytest.raises(InputError, match="hidden width"):
        TileHeadConfig(hidden=0)


def _only_turns() -> Any:
    return replace(SPEC.augment, colour=0.0)
