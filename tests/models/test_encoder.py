"""Encoders as tile models: provenance, precision, determinism, and what bad requests get."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import skimage.data
import timm
import torch
from safetensors.torch import save_file
from timm.data.imagenet_info import ImageNetInfo
from torch import nn

from dataflow.tile_model import TileModel, TileModelFactory
from models.encoder import EncoderFactory, EncoderSpec, TileEncoder
from models.fold import fold_batch_norms
from models.preprocess import Preprocess
from models.pretrained import PackagedLite0
from models.registry import find_source
from store_schema.errors import DeviceError, ModelError

RANDOM = EncoderSpec("timm:test_resnet", random_weights=True, dtype="float32", device="cpu")
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")


@pytest.fixture(scope="module")
def lite0() -> TileEncoder:
    return EncoderFactory(EncoderSpec(device="cpu", dtype="float32", resize="none")).load()


def features_of(encoder: TileEncoder, tiles: torch.Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    return np.asarray(encoder(tiles)["features"])


def test_it_is_a_tile_model() -> None:
    factory: TileModelFactory = EncoderFactory(RANDOM)  # mypy checks the protocols here
    model: TileModel = factory.load()
    assert factory.name == "timm-test_resnet-random0"
    assert (model.device.type, model.batch_size) == ("cpu", 32)


def test_default_encoder_recognises_what_imagenet_has() -> None:
    source = PackagedLite0()
    network = timm.create_model("tf_efficientnet_lite0").eval()
    source.load(network, source.weights())
    info = ImageNetInfo()
    factory = EncoderFactory(EncoderSpec(device="cpu"))
    for image, word in (
        (skimage.data.cat()[:300, 80:380], "cat"),  # type: ignore[no-untyped-call]
        (skimage.data.coffee(), "espresso"),  # type: ignore[no-untyped-call]
    ):
        side = min(image.shape[:2])
        square = torch.from_numpy(np.ascontiguousarray(image[:side, -side:]))[None]
        with torch.inference_mode():
            best = int(network(factory.preprocess(square)).argmax())
        assert word in info.index_to_description(best).lower()


def test_default_encoder_refuses_other_weights(tmp_path: Any) -> None:
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    names = list(state)
    state[names[0]], state[names[1]] = state[names[1]], state[names[0]]  # order is what counts
    swapped = tmp_path / "swapped.pt"
    torch.save(state, swapped)
    with pytest.raises(ModelError, match="is not efficientnet-lite0"):
        PackagedLite0(str(swapped)).network(swapped)
    save_file({"a": torch.zeros(1)}, tmp_path / "one.safetensors")
    with pytest.raises(ModelError, match="holds 1 tensors"):
        PackagedLite0().network(tmp_path / "one.safetensors")


def test_folded_batch_norms_change_nothing_that_matters(tiles: torch.Tensor) -> None:
    source = PackagedLite0()
    plain = timm.create_model("tf_efficientnet_lite0").eval()
    source.load(plain, source.weights())
    folded = source.network(source.weights())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    x = EncoderFactory(EncoderSpec(device="cpu")).preprocess(tiles[:4])
    with torch.inference_mode():
        plain.reset_classifier(0)  # type: ignore[operator]
        expected = plain(x)
        torch.testing.assert_close(folded(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "left"),
    [
        ("resnet10t", 0),
        ("resnetv2_50d_frn", 0),  # no batch norms at all
        ("test_resnet", 0),
        ("mobilevit_xxs", 32),  # can't be traced
        ("densenet121", 62),  # norms before convolutions stay
    ],
)
def test_batch_norms_are_folded_by_what_sees_what(model: str, left: int) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(model, num_classes=0).eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: all that is folded matters
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    folded = fold_batch_norms(copy.deepcopy(plain))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == left
    with torch.inference_mode():
        x = torch.rand(1, 3, 96, 96)
        torch.testing.assert_close(folded(x), plain(x), rtol=1e-4, atol=1e-4)


def test_features_do_not_depend_on_order_or_threads(
    lite0: TileEncoder, tiles: torch.Tensor
) -> None:
    whole = features_of(lite0, tiles)
    np.testing.assert_array_equal(features_of(lite0, tiles), whole)
    np.testing.assert_array_equal(features_of(lite0, tiles.flip(0))[::-1], whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        np.testing.assert_array_equal(features_of(lite0, tiles), whole)
    finally:
        torch.set_num_threads(threads)


def test_neighbours_in_the_batch_do_not_matter(lite0: TileEncoder, tiles: torch.Tensor) -> None:
    others = tiles.clone()
    others[1:] = 255 - others[1:]
    np.testing.assert_array_equal(features_of(lite0, others)[0], features_of(lite0, tiles)[0])


def test_batch_size_matters_by_rounding_only(lite0: TileEncoder, tiles: torch.Tensor) -> None:
    one_by_one = np.concatenate([features_of(lite0, tile[None]) for tile in tiles[:3]])
    np.testing.assert_allclose(one_by_one, features_of(lite0, tiles)[:3], rtol=1e-4, atol=1e-5)


def test_random_weights_are_seeded_and_leave_the_generator_alone(tiles: torch.Tensor) -> None:
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    first = EncoderFactory(RANDOM)
    features = features_of(first.load(), tiles[:2])
    assert torch.equal(torch.rand(1), expected)
    np.testing.assert_array_equal(features_of(EncoderFactory(RANDOM).load(), tiles[:2]), features)
    other = EncoderFactory(replace(RANDOM, seed=1))
    assert not np.array_equal(features_of(other.load(), tiles[:2]), features)
    assert first.provenance == EncoderFactory(RANDOM).provenance
    assert first.provenance["weights"] != other.provenance["weights"]
    assert first.name != other.name


def test_factory_travels(tiles: torch.Tensor) -> None:
    factory = EncoderFactory(RANDOM)
    travelled = pickle.loads(pickle.dumps(factory))
    assert travelled == factory
    assert hash(travelled) == hash(factory)
    assert len(pickle.dumps(factory)) < 4096  # no weights in it
    np.testing.assert_array_equal(
        features_of(travelled.load(), tiles[:2]), features_of(factory.load(), tiles[:2])
    )


def test_outputs_are_known_without_weights() -> None:
    (spec,) = EncoderFactory(EncoderSpec("uni", device="cpu")).outputs.values()
    assert (spec.dims, spec.shape, spec.dtype) == (("tile", "feature"), (1024,), "float16")
    assert spec.attrs["units"] == "1"


def test_provenance_holds_what_decides_the_numbers() -> None:
    base = EncoderSpec(device="cpu")
    made_by = EncoderFactory(base).provenance
    assert made_by["weights"].startswith("sha256:")
    assert made_by["precision"] == "fp32"
    assert (made_by["resize_px"], made_by["crop_px"]) == (256, 224)
    for changed in (
        replace(base, resize="none"),
        replace(base, precision="bf16"),
        replace(base, dtype="float32"),
        replace(base, random_weights=True),
        replace(base, compile=True),
    ):
        assert EncoderFactory(changed).provenance != made_by
    assert EncoderFactory(replace(base, batch_size=7)).provenance == made_by


def test_checkpoint_provenance_is_its_content_not_its_path(tmp_path: Any) -> None:
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    provenances = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_file(state, tmp_path / folder / "own.safetensors")
        spec = EncoderSpec(
            f"timm:test_resnet@{tmp_path / folder / 'own.safetensors'}", device="cpu"
        )
        provenances.append(EncoderFactory(spec).provenance)
        assert EncoderFactory(spec).name == "timm-test_resnet-own"
    assert provenances[0] == provenances[1]
    assert str(tmp_path) not in str(provenances[0])


@pytest.mark.parametrize(("precision", "cosine"), [("bf16", 0.99), ("fp16", 0.9998)])
def test_low_precision_stays_near(
    tiles: torch.Tensor, precision: Any, cosine: float, lite0: TileEncoder
) -> None:
    spec = replace(lite0.factory.spec, precision=precision)
    low = features_of(EncoderFactory(spec).load(), tiles[:2])
    full = features_of(lite0, tiles[:2])
    norms = np.linalg.norm(low, axis=1) * np.linalg.norm(full, axis=1)
    assert ((low * full).sum(axis=1) / norms).min() > cosine


class Constant(nn.Module):
    """A network of one value."""

    def __init__(self, value: float, dim: int) -> None:
        super().__init__()
        self.value, self.dim = value, dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), self.dim), self.value)


@pytest.mark.parametrize(
    ("value", "dtype", "precision", "sentence"),
    [
        (1e5, "float16", "fp32", "reaches 1e.05.*--dtype float32"),
        (float("inf"), "float32", "fp16", "--precision fp32"),
        (float("nan"), "float32", "fp32", "weights are damaged"),
    ],
)
def test_features_that_are_not_finite_are_refused(
    tiles: torch.Tensor, value: float, dtype: Any, precision: Any, sentence: str
) -> None:
    factory = EncoderFactory(EncoderSpec(device="cpu", dtype=dtype, precision=precision))
    encoder = TileEncoder(factory, Constant(value, 1280))
    with pytest.raises(ModelError, match=sentence):
        encoder(tiles[:2])


def test_wrong_feature_length_is_refused(tiles: torch.Tensor) -> None:
    factory = EncoderFactory(EncoderSpec(device="cpu"))
    with pytest.raises(ModelError, match="instead of 1280"):
        TileEncoder(factory, Constant(0, 3))(tiles[:2])


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "open_clip:ViT-S-32-alt"])
def test_tiles_that_a_transformer_cannot_take(tiles: torch.Tensor, name: str) -> None:
    spec = EncoderSpec(name, random_weights=True, device="cpu", resize="none")
    encoder = EncoderFactory(spec).load()
    with pytest.raises(ModelError, match=r"takes no tiles of 96 px: use --resize model"):
        encoder(tiles[:2])


@no_cuda
def test_gpu_required_and_absent() -> None:
    with pytest.raises(DeviceError, match="no CUDA device"):
        EncoderFactory(replace(RANDOM, device="auto", require_gpu=True))
    with pytest.raises(DeviceError, match="--device cpu is given"):
        EncoderFactory(replace(RANDOM, require_gpu=True))


@no_cuda
def test_devices() -> None:
    auto = EncoderFactory(replace(RANDOM, device="auto"))
    assert not auto.needs_gpu
    assert "no CUDA device" in auto.device_note
    client = EncoderFactory(replace(RANDOM, device="cuda"))  # its workers may well have GPUs
    assert client.needs_gpu
    assert client.precision == "fp16"
    with pytest.raises(DeviceError, match="sees no CUDA device"):
        client.load()


def test_failing_compiler_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_nothing(network: nn.Module) -> Callable[..., torch.Tensor]:
        def call(x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no g++ here")

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    with pytest.raises(ModelError, match=r"leave out --compile \(no g\+\+ here\)"):
        EncoderFactory(replace(RANDOM, compile=True)).load()


def test_a_compiled_network_meets_one_size_of_batch_until_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, tiles: torch.Tensor
) -> None:
    sizes: list[int] = []
    most = 4

    def compile_nothing(network: nn.Module) -> Callable[..., torch.Tensor]:
        def call(x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            if len(x) > most:
                raise torch.OutOfMemoryError
            features: torch.Tensor = network(x)
            return features

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    spec = replace(RANDOM, compile=True, batch_size=4)
    compiled = EncoderFactory(spec).load()
    eager = EncoderFactory(replace(spec, compile=False)).load()
    for n in (4, 3, 1):
        np.testing.assert_array_equal(
            features_of(compiled, tiles[:n]), features_of(eager, tiles[:4])[:n]
        )
    assert sizes == [4, 4, 4, 4]

    most = 2
    with pytest.raises(torch.OutOfMemoryError):
        features_of(compiled, tiles[:4])
    assert len(features_of(compiled, tiles[:1])) == 1
    assert sizes[4:] == [4, 2]


def test_memory_that_is_short_at_the_first_call_is_no_matter_of_the_compiler(
    monkeypatch: pytest.MonkeyPatch, tiles: torch.Tensor
) -> None:
    def convert(self: Preprocess, tiles: torch.Tensor) -> torch.Tensor:
        if len(tiles) > 2:
            raise torch.OutOfMemoryError
        return whole(self, tiles)

    whole = Preprocess.__call__
    monkeypatch.setattr(torch, "compile", lambda network: network)
    monkeypatch.setattr(Preprocess, "__call__", convert)
    compiled = EncoderFactory(replace(RANDOM, compile=True, batch_size=4)).load()
    assert len(features_of(compiled, tiles[:1])) == 1
    with pytest.raises(torch.OutOfMemoryError):
        features_of(compiled, tiles[:3])


def test_open_clip_runs_with_random_weights(tiles: torch.Tensor) -> None:
    spec = EncoderSpec("open_clip:ViT-S-32-alt", random_weights=True, device="cpu")
    assert find_source(spec.name).label == "open_clip:ViT-S-32-alt"
    features = EncoderFactory(spec).load()(tiles[:2])["features"]
    assert features.shape == (2, 256)
    assert features.dtype == np.float16


def test_caller_can_print_the_device() -> None:
    assert EncoderFactory(EncoderSpec(device="cpu")).device_note == "CPU, fp32"
