"""The segmenter: what several networks, scales and views say; checkpoints that come back, and that are refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.checkpoint import save_model
from models.pbip import PbipConfig, class_probabilities, confidence, new_pbip, scale_confidences
from models.pbip_checkpoint import load_pbip, pbip_description, read_pbip_description, start_from
from models.pbip_losses import PbipLossSpec
from models.pbip_segmenter import PbipSegmenterFactory, PbipSegmenterSpec
from models.pbip_views import ALL_VIEWS, agreement, binary_entropy_nats
from store_schema.errors import DeviceError, InputError, ModelError

Floats = npt.NDArray[np.float64]

CONFIG = PbipConfig("test_efficientnet", ("benign", "tumor"), (3, 2), 12, 96, hidden=10)
BANK = {"name": "bank", "fingerprint": "0", "encoder": {"encoder": "efficientnet-lite0"}}


def saved(
    path: Path,
    seed: int = 0,
    config: PbipConfig = CONFIG,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    rng = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(config.n_prototypes, config.feature_dim, generator=rng)
    model = new_pbip(config, prototypes, seed=seed)
    description = pbip_description(
        model,
        PbipLossSpec(),
        mpp=0.972,
        stain={"method": "none"},
        bank=BANK,
        trained_on={"n_tiles": 3, "warnings": [f"warning {seed}"]},
    )
    save_model(path, model, description | dict(changes))
    return str(path)


@pytest.fixture
def spec(tmp_path: Path) -> PbipSegmenterSpec:
    """Return how to segment with a network of random weights."""
    return PbipSegmenterSpec((saved(tmp_path / "model.safetensors"),), map_px=24, device="cpu")


def segmented(spec: PbipSegmenterSpec, tiles: torch.Tensor) -> dict[str, Floats]:
    scores = PbipSegmenterFactory(spec).load()(tiles)
    return {name: values.astype(np.float64) for name, values in scores.items()}


def test_outputs_are_as_declared(spec: PbipSegmenterSpec, tiles: torch.Tensor) -> None:
    factory = PbipSegmenterFactory(spec)
    scores = factory.load()(tiles[:5])
    assert scores.keys() == factory.outputs.keys()
    for name, array in factory.outputs.items():
        assert scores[name].shape == (5, *array.shape)
        assert scores[name].dtype == array.dtype
    confidence_spec = factory.outputs["confidence"]
    assert confidence_spec.dims == ("tile", "class", "map_y", "map_x")
    assert confidence_spec.attrs["class_names"] == ["benign", "tumor"]
    assert PbipSegmenterFactory(replace(spec, map_px=None)).map_px == 24  # a quarter
    assert factory.warnings == ("warning 0",)
    assert hash(factory) == hash(pickle.loads(pickle.dumps(factory)))
    assert factory.name.startswith("pbip-")


def test_scores_are_those_of_a_plain_computation(
    spec: PbipSegmenterSpec, tiles: torch.Tensor
) -> None:
    scores = segmented(spec, tiles[:4])
    model, _ = load_pbip(Path(spec.checkpoints[0]))
    with torch.no_grad():
        output = model(model.normalize(tiles[:4]))
        wanted = confidence(output, CONFIG, 24).numpy()
        p = class_probabilities(output, CONFIG).numpy()
        scales = [(w, m.double().numpy()) for w, m in scale_confidences(output, CONFIG, 24)]
    np.testing.assert_allclose(scores["confidence"], wanted, atol=1e-3)
    np.testing.assert_allclose(scores["probability"], p, atol=1e-5)

    def entropy(q: Floats) -> Floats:
        return np.asarray(-(q * np.log(q) + (1 - q) * np.log(1 - q)))

    mean = np.sum([w * m for w, m in scales], 0)
    unsure = entropy(mean).mean((1, 2, 3))
    of_each = np.sum([w * entropy(m) for w, m in scales], 0).mean((1, 2, 3))
    np.testing.assert_allclose(scores["entropy"], unsure, atol=1e-5)
    np.testing.assert_allclose(scores["disagreement"], unsure - of_each, atol=1e-5)
    assert float(scores["disagreement"].min()) > 0


def test_the_same_batches_give_the_same_bits(spec: PbipSegmenterSpec, tiles: torch.Tensor) -> None:
    for asked in (replace(spec, tta=True), replace(spec, precision="bf16")):
        first, second = segmented(asked, tiles[:3]), segmented(asked, tiles[:3].clone())
        assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("view", ALL_VIEWS[1:])
def test_with_tta_a_turned_tile_gives_turned_maps(
    spec: PbipSegmenterSpec, tiles: torch.Tensor, view: Any
) -> None:
    some = tiles[:3]
    turned = view.apply(some.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
    model, _ = load_pbip(Path(spec.checkpoints[0]))
    with torch.no_grad():
        plain = agreement([model], some, 24, views=ALL_VIEWS)
        moved = agreement([model], turned, 24, views=ALL_VIEWS)
        torch.testing.assert_close(
            moved.confidence, view.apply(plain.confidence), rtol=0, atol=1e-5
        )
        torch.testing.assert_close(moved.probability, plain.probability, rtol=0, atol=1e-5)
        torch.testing.assert_close(moved.disagreement, plain.disagreement, rtol=0, atol=1e-5)
        without = agreement([model], turned, 24).confidence
        assert float(
            (without - view.apply(agreement([model], some, 24).confidence)).abs().max()
        ) > (1e-3)
    assert torch.equal(view.undo(view.apply(plain.confidence)), plain.confidence)


def test_the_eight_views_are_all_there_are() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert len({tuple(view.apply(x).flatten().tolist()) for view in ALL_VIEWS}) == 8


def test_an_ensemble_is_the_mean(tmp_path: Path, tiles: torch.Tensor) -> None:
    paths = [saved(tmp_path / f"{k}.safetensors", seed=k) for k in range(3)]
    one = [segmented(PbipSegmenterSpec((path,), device="cpu"), tiles[:4]) for path in paths]
    factory = PbipSegmenterFactory(PbipSegmenterSpec(tuple(paths), device="cpu"))
    all_three = segmented(factory.spec, tiles[:4])
    for name, atol in (("confidence", 1e-3), ("probability", 1e-5)):
        mean = np.mean([scores[name] for scores in one], 0)
        np.testing.assert_allclose(all_three[name], mean, atol=atol)
    # networks of random weights contradict each other, beyond what their scales do
    assert all_three["disagreement"].mean() > np.mean([s["disagreement"].mean() for s in one])
    assert factory.name.endswith("-and-2")
    assert len(factory.provenance["weights"]) == 3
    assert factory.warnings == ("warning 0", "warning 1", "warning 2")
    thrice = segmented(PbipSegmenterSpec((paths[0],) * 3, device="cpu"), tiles[:4])
    np.testing.assert_allclose(thrice["disagreement"], one[0]["disagreement"], atol=1e-5)


def test_gated_classes_have_no_confidence(spec: PbipSegmenterSpec, tiles: torch.Tensor) -> None:
    plain = segmented(spec, tiles[:3])
    gated = segmented(replace(spec, gate_classes=("benign",)), tiles[:3])
    assert np.array_equal(gated["confidence"][:, 0], plain["confidence"][:, 0])
    assert not gated["confidence"][:, 1].any()
    assert not gated["probability"][:, 1].any()
    assert np.array_equal(gated["entropy"], plain["entropy"])
    factories = [PbipSegmenterFactory(replace(spec, gate_classes=g)) for g in (None, ("benign",))]
    assert factories[0].provenance != factories[1].provenance
    with pytest.raises(InputError, match="stroma is no class"):
        PbipSegmenterFactory(replace(spec, gate_classes=("stroma",)))


def test_entropy_in_nats() -> None:
    p = torch.tensor([0.0, 0.5, 1.0, 1.0000001])
    np.testing.assert_allclose(binary_entropy_nats(p), [0, np.log(2), 0, 0], atol=1e-6)


def test_what_can_not_be_segmented_is_refused(
    spec: PbipSegmenterSpec, tmp_path: Path, tiles: torch.Tensor
) -> None:
    with pytest.raises(InputError, match="divisor"):
        PbipSegmenterFactory(replace(spec, map_px=36))
    with pytest.raises(InputError, match="no network"):
        PbipSegmenterFactory(replace(spec, checkpoints=()))
    with pytest.raises(ModelError, match="grid of 96 px"):
        segmented(spec, tiles[:2, :64, :64])
    other = saved(tmp_path / "other.safetensors", config=replace(CONFIG, tile_px=64))
    with pytest.raises(ModelError, match="tile_px is 64, not 96"):
        PbipSegmenterFactory(replace(spec, checkpoints=(spec.checkpoints[0], other)))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError):
            PbipSegmenterFactory(replace(spec, require_gpu=True))
    factory = PbipSegmenterFactory(spec)
    saved(Path(spec.checkpoints[0]), seed=5)
    with pytest.raises(ModelError, match="another file"):
        factory.load()


def test_damaged_weights_are_said(spec: PbipSegmenterSpec, tiles: torch.Tensor) -> None:
    path = Path(spec.checkpoints[0])
    model, description = load_pbip(path)
    with torch.no_grad():
        model.log_scale[2] = torch.nan
    save_model(path, model, {k: v for k, v in description.items() if k not in ("schema", "sha256")})
    with pytest.raises(ModelError, match="not finite in fp32: its weights are damaged"):
        segmented(spec, tiles[:2])


def test_a_checkpoint_comes_back(tmp_path: Path, tiles: torch.Tensor) -> None:
    path = Path(saved(tmp_path / "model.safetensors", seed=3))
    before = torch.get_rng_state()
    model, description = load_pbip(path)
    assert torch.equal(before, torch.get_rng_state())
    assert model.config == CONFIG
    assert not model.training
    rng = torch.Generator().manual_seed(3)
    assert torch.equal(model.prototypes, torch.randn(5, 12, generator=rng))
    assert description["bank"] == BANK
    assert description["class_names"] == ["benign", "tumor"]
    assert description["mpp"] == 0.972
    assert "random" in description["backbone_licence"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "vae"}, "kind 'vae'"),
        ({"tile_px": 64}, "damaged"),
        ({"class_names": ["tumor", "benign"]}, "damaged"),
        ({"mpp": -1}, "damaged"),
        ({"bank": None}, "damaged"),
        ({"config": {"hidden": 3}}, "another architecture"),
    ],
)
def test_other_checkpoints_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        read_pbip_description(Path(saved(tmp_path / "model.safetensors", changes=changes)))


def test_settings_that_make_no_sense_are_damage(tmp_path: Path) -> None:
    path = Path(saved(tmp_path / "model.safetensors"))
    document = json.loads(path.with_suffix(".json").read_bytes())
    document["config"]["k_list"] = [0, 1]
    path.with_suffix(".json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="damaged"):
        load_pbip(path)


def test_a_training_goes_on_from_another_with_prototypes_of_its_own(tmp_path: Path) -> None:
    path = Path(saved(tmp_path / "model.safetensors", seed=3))
    prototypes = torch.randn(5, 12)
    model = new_pbip(CONFIG, prototypes, seed=0)
    start_from(model, path)
    trained, _ = load_pbip(path)
    assert torch.equal(model.prototypes, prototypes)
    theirs = trained.state_dict()
    assert all(
        torch.equal(value, theirs[name])
        for name, value in model.state_dict().items()
        if name != "prototypes"
    )
    other = new_pbip(replace(CONFIG, hidden=11), prototypes, seed=0)
    with pytest.raises(ModelError, match="hidden is 10, here 11"):
        start_from(other, path)
