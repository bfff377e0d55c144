"""Scores are what a plain computation gives; other checkpoints, sizes and broken weights are refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage.metrics import structural_similarity
from torch.distributions import Normal, kl_divergence

from models.checkpoint import save_model
from models.tile_head import TileHead, TileHeadConfig
from models.vae import VaeConfig, VaeSkip96
from models.vae_checkpoint import (
    head_description,
    load_head,
    load_vae,
    read_vae_description,
    vae_description,
)
from models.vae_loss import VaeLossSpec
from models.vae_scorer import VaeScorerFactory, VaeScorerSpec
from store_schema.errors import DeviceError, InputError, ModelError

CONFIG = VaeConfig(tile_px=96, latent_channels=8, widths=(8, 16, 16, 16, 16))
STAIN = {"method": "macenko", "fit": "slide", "target": {"name": "x", "digest": "y"}}


def saved_vae(path: Path, config: VaeConfig = CONFIG, seed: int = 0) -> VaeScorerSpec:
    torch.manual_seed(seed)
    model = VaeSkip96(config)
    model.set_pixel_statistics((0.7, 0.6, 0.65), (0.2, 0.25, 0.15))
    description = vae_description(
        model, VaeLossSpec(), mpp=0.972, stain=STAIN, trained_on={"n_tiles": 7}
    )
    save_model(path, model, description)
    return VaeScorerSpec(str(path), device="cpu")


def saved_head(path: Path, vae: Path) -> VaeScorerSpec:
    model, description = load_vae(vae)
    torch.manual_seed(1)
    head = TileHead(model, TileHeadConfig(hidden=6))
    save_model(path, head, head_description(head, description, trained_on={"n_tiles": 3}))
    return VaeScorerSpec(str(path), device="cpu")


def close(
    found: npt.NDArray[np.generic], wanted: object, *, rtol: float = 0.0, atol: float = 0.0
) -> None:
    np.testing.assert_allclose(found.astype(np.float64), np.asarray(wanted), rtol=rtol, atol=atol)


@pytest.fixture
def spec(tmp_path: Path) -> VaeScorerSpec:
    """Return how to score with a VAE of random weights."""
    return saved_vae(tmp_path / "model.safetensors")


def test_scores_are_those_of_a_plain_computation(spec: VaeScorerSpec, tiles: torch.Tensor) -> None:
    factory = VaeScorerFactory(replace(spec, map_px=24))
    some = tiles[:5]
    scores = factory.load()(some)
    model, _ = load_vae(Path(spec.checkpoint))
    mean_rgb, std_rgb = np.array([0.7, 0.6, 0.65]), np.array([0.2, 0.25, 0.15])
    x = (some.numpy() / 255 - mean_rgb) / std_rgb  # (n, y, x, rgb)
    with torch.no_grad():
        nchw = torch.from_numpy(x).float().permute(0, 3, 1, 2).contiguous()
        mean, logvar, skips = model.encode(nchw)
        made = model.decode(mean, skips).permute(0, 2, 3, 1).double().numpy()
    error = np.abs(made - x)
    close(scores["l1"], error.mean((1, 2, 3)), rtol=1e-5)
    close(scores["l2"], (error**2).mean((1, 2, 3)), rtol=1e-5)
    small = error.mean(3).reshape(5, 24, 4, 24, 4).mean((2, 4))
    close(scores["error_map"], small, rtol=1e-3)
    posterior = Normal(mean.double(), (0.5 * logvar.double()).exp())
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum((1, 2, 3))
    close(scores["kl"], kl.numpy(), rtol=1e-4)
    shown = np.clip(made * std_rgb + mean_rgb, 0, 1)
    similar = [
        structural_similarity(  # type: ignore[no-untyped-call]
            a,
            b,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
        )
        for a, b in zip(some.numpy() / 255, shown, strict=True)
    ]
    close(scores["ssim"], 1 - np.array(similar), atol=1e-4)


def test_what_comes_is_what_was_declared(spec: VaeScorerSpec, tiles: torch.Tensor) -> None:
    for map_px in (None, 12):
        factory = VaeScorerFactory(replace(spec, map_px=map_px))
        scores = factory.load()(tiles[:3])
        assert scores.keys() == factory.outputs.keys()
        for name, array in factory.outputs.items():
            assert scores[name].shape == (3, *array.shape)
            assert scores[name].dtype == array.dtype
    assert list(VaeScorerFactory(spec).outputs) == ["l1", "l2", "ssim", "kl"]


def test_the_same_batches_give_the_same_bits(spec: VaeScorerSpec, tiles: torch.Tensor) -> None:
    factory = VaeScorerFactory(spec)
    first, second = factory.load()(tiles[:8]), factory.load()(tiles[:8])
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_factory_travels_and_tells_what_decides_the_numbers(
    spec: VaeScorerSpec, tmp_path: Path
) -> None:
    factory = VaeScorerFactory(spec)
    again = pickle.loads(pickle.dumps(factory))
    assert again == factory
    assert hash(again) == hash(factory)
    assert again.description == factory.description
    assert factory.mpp == 0.972
    assert factory.stain == STAIN
    assert factory.tile_px == 96
    assert factory.name == f"vae-{factory.digest[7:15]}"
    assert not factory.needs_gpu
    assert factory.device_note == "CPU, fp32"
    json.dumps(factory.provenance)
    other = VaeScorerFactory(saved_vae(tmp_path / "other" / "model.safetensors", seed=3))
    assert other.provenance != factory.provenance
    assert replace(factory.spec, batch_size=7) != factory.spec
    assert VaeScorerFactory(replace(spec, batch_size=7)).provenance == factory.provenance
    assert VaeScorerFactory(replace(spec, map_px=8)).provenance != factory.provenance


def test_a_checkpoint_that_was_replaced_is_noticed(spec: VaeScorerSpec) -> None:
    factory = VaeScorerFactory(spec)
    saved_vae(Path(spec.checkpoint), seed=5)
    assert VaeScorerFactory(spec) != factory  # a long-lived worker does not serve the old one
    with pytest.raises(ModelError, match="another file here than where the run was planned"):
        factory.load()


def test_a_head_scores_probabilities(
    spec: VaeScorerSpec, tmp_path: Path, tiles: torch.Tensor
) -> None:
    head_spec = saved_head(tmp_path / "head" / "model.safetensors", Path(spec.checkpoint))
    factory = VaeScorerFactory(head_spec)
    assert factory.is_head
    assert (factory.mpp, factory.stain, factory.tile_px) == (0.972, STAIN, 96)
    assert factory.name.startswith("vae-head-")
    scores = factory.load()(tiles[:4])
    assert scores.keys() == factory.outputs.keys() == {"probability"}
    head, description = load_head(Path(head_spec.checkpoint))
    assert description["vae"] == VaeScorerFactory(spec).digest
    with torch.no_grad():
        wanted = torch.sigmoid(head(tiles[:4]))
    close(scores["probability"], wanted.numpy(), rtol=1e-5)
    with pytest.raises(InputError, match="no map of errors"):
        VaeScorerFactory(replace(head_spec, map_px=8))
    with pytest.raises(ModelError, match=r"is a VAE's tile classifier .* give a VAE"):
        load_vae(Path(head_spec.checkpoint))
    with pytest.raises(ModelError, match=r"is a VAE .* give a VAE's tile classifier"):
        load_head(Path(spec.checkpoint))


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "mil" / "model.safetensors"
    save_model(other, torch.nn.Linear(2, 2), {"kind": "mil", "model": "abmil"})
    with pytest.raises(ModelError, match="model of kind 'mil': give a VAE"):
        VaeScorerFactory(VaeScorerSpec(str(other)))
    with pytest.raises(ModelError, match="no checkpoint at"):
        VaeScorerFactory(VaeScorerSpec(str(tmp_path / "none.safetensors")))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"config": {"layers": 3}}, "another architecture than this version's VaeConfig"),
        ({"config": {**CONFIG.__dict__, "groups": 7}}, "damaged \\(config\\)"),
        ({"config": {**CONFIG.__dict__, "widths": 3}}, "damaged \\(config\\)"),
        ({"tile_px": 64}, "damaged \\(tile_px, mpp or stain\\)"),
        ({"mpp": "fine"}, "damaged"),
        ({"mpp": -1}, "damaged"),
        ({"stain": None}, "damaged"),
    ],
)
def test_a_garbled_description_is_refused(
    spec: VaeScorerSpec, changes: dict[str, object], match: str
) -> None:
    sidecar = Path(spec.checkpoint).with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **changes}))
    with pytest.raises(ModelError, match=match):
        read_vae_description(Path(spec.checkpoint))


def test_weights_of_another_architecture_are_refused(spec: VaeScorerSpec) -> None:
    sidecar = Path(spec.checkpoint).with_suffix(".json")
    document = json.loads(sidecar.read_text())
    document["config"]["latent_channels"] = 9
    sidecar.write_text(json.dumps(document))
    # where the run is planned: a worker would find out after stored scores have made room
    with pytest.raises(ModelError, match="does not fit VaeSkip96"):
        VaeScorerFactory(spec)


def test_tiles_of_another_size_are_refused(spec: VaeScorerSpec) -> None:
    scorer = VaeScorerFactory(spec).load()
    with pytest.raises(ModelError, match="takes tiles of 96 px and got 64 x 64"):
        scorer(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    for map_px in (0, 7, 97):
        with pytest.raises(InputError, match="give a divisor"):
            VaeScorerFactory(replace(spec, map_px=map_px))


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (float("nan"), r"is damaged \(weights that are not finite\)"),
        (1e38, "not finite in fp32: its weights are damaged"),
    ],
)
def test_scores_that_are_not_finite_are_refused(
    tmp_path: Path, tiles: torch.Tensor, weight: float, match: str
) -> None:
    path = tmp_path / "model.safetensors"
    model = VaeSkip96(CONFIG)
    with torch.no_grad():
        model.posterior.weight.fill_(weight)
    description = vae_description(model, VaeLossSpec(), mpp=None, stain=STAIN, trained_on={})
    save_model(path, model, description)
    with pytest.raises(ModelError, match=match):
        VaeScorerFactory(VaeScorerSpec(str(path), device="cpu")).load()(tiles[:2])


def test_a_required_gpu_that_is_not_there(
    spec: VaeScorerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_available: Callable[[], bool] = lambda: False  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    with pytest.raises(DeviceError, match="GPU is required"):
        VaeScorerFactory(replace(spec, device="auto", require_gpu=True))
    planned = VaeScorerFactory(replace(spec, device="cuda"))
    assert planned.needs_gpu
    assert planned.precision == "fp16"
    with pytest.raises(DeviceError, match="sees no CUDA device"):
        planned.load()
