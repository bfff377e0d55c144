"""A step of MIL training, VAE scoring and PBIP scoring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.conftest import Timed
from models.checkpoint import save_model
from models.fit_spec import FitSpec
from models.mil_training import MilSpec, MilTraining
from models.pbip import PbipConfig, new_pbip
from models.pbip_checkpoint import pbip_description
from models.pbip_losses import PbipLossSpec
from models.pbip_segmenter import PbipSegmenterFactory, PbipSegmenterSpec
from models.slide_models import build_slide_model
from models.vae import VaeConfig, VaeSkip96
from models.vae_checkpoint import vae_description
from models.vae_loss import VaeLossSpec
from models.vae_scorer import VaeScorerFactory, VaeScorerSpec

_VAE_PX = 96


class RandomBags:
    """Two bags of random features, one a class; a ``BagSource``."""

    def __init__(self, n_tiles: int, n_features: int) -> None:
        generator = np.random.default_rng(0)
        self.ids = ["normal", "tumour"]
        self.groups = self.ids
        self.targets = np.arange(2)
        self.lengths = np.array([n_tiles, n_tiles])
        self.n_features = n_features
        shape = (2, n_tiles, n_features)
        self._bags = generator.standard_normal(shape, dtype=np.float32).astype(np.float16)

    def load(
        self, index: int, tiles: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.floating]:
        """Return a bag."""
        bag: npt.NDArray[np.floating] = self._bags[index]
        return bag if tiles is None else bag[tiles]


@pytest.mark.parametrize("name", ["abmil", "clam-sb", "transmil"])
def test_mil_step(timed: Timed, full: bool, name: str) -> None:
    n_tiles, n_features = (10_000, 1_024) if full else (50, 32)
    bags = RandomBags(n_tiles, n_features)
    torch.manual_seed(0)
    model = build_slide_model(name, n_features, 2, {})
    spec = MilSpec("multiclass", ("normal", "tumour"), name, standardize=False)
    training = MilTraining(spec, FitSpec(epochs=1), bags, bags, model)
    (batch, *_) = training.batches(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        loss = training.loss(batch)["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    first = step()
    timed(step, n_tiles)
    assert (
        min(step() for _ in range(6)) < first
    )  # the same bag again and again; some models drop out


def test_vae_score(timed: Timed, tiles: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VaeSkip96(VaeConfig(tile_px=_VAE_PX))
    model.set_pixel_statistics((0.7, 0.6, 0.65), (0.2, 0.25, 0.15))
    description = vae_description(
        model, VaeLossSpec(), mpp=0.972, stain={"method": "none"}, trained_on={"n_tiles": 7}
    )
    save_model(tmp_path / "model.safetensors", model, description)
    factory = VaeScorerFactory(
        VaeScorerSpec(str(tmp_path / "model.safetensors"), map_px=24, device="cpu")
    )
    scorer = factory.load()
    batch = torch.from_numpy(tiles[: scorer.batch_size, :_VAE_PX, :_VAE_PX].copy())
    scores = timed(lambda: scorer(batch), len(batch), batch.numel())
    for array, spec in factory.outputs.items():
        assert scores[array].shape == (len(batch), *spec.shape)
        assert np.isfinite(scores[array]).all()
    # the map is the error's: their means agree, but for the map's float16
    np.testing.assert_allclose(
        scores["error_map"].mean((1, 2), np.float64), scores["l1"], rtol=1e-3
    )


def test_pbip_score(timed: Timed, full: bool, tiles: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    backbone, tile_px = ("mit_b0", 224) if full else ("test_efficientnet", 96)
    config = PbipConfig(backbone, ("benign", "tumour"), (3, 3), 128, tile_px)
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(config.n_prototypes, config.feature_dim, generator=generator)
    model = new_pbip(config, prototypes, seed=0)
    description = pbip_description(
        model,
        PbipLossSpec(),
        mpp=0.5,
        stain={"method": "none"},
        bank={"name": "bank", "fingerprint": "0", "encoder": {"encoder": "efficientnet-lite0"}},
        trained_on={"n_tiles": 3, "warnings": []},
    )
    path = tmp_path / "model.safetensors"
    save_model(path, model, description)
    factory = PbipSegmenterFactory(PbipSegmenterSpec((str(path),), device="cpu"))
    segmenter = factory.load()
    batch = torch.from_numpy(tiles[: segmenter.batch_size, :tile_px, :tile_px].copy())
    scores = timed(lambda: segmenter(batch), len(batch), batch.numel())
    for array, spec in factory.outputs.items():
        assert scores[array].shape == (len(batch), *spec.shape)
        assert np.isfinite(scores[array]).all()
    assert scores["confidence"].min() >= 0
    assert scores["confidence"].max() <= 1
