"""Each term of the loss against its formula in numpy; where gradients of the matching go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from models.encoder import EncoderFactory, EncoderSpec
from models.pbip import PbipConfig, PbipOutput, class_logits, class_maps, new_pbip
from models.pbip_losses import (
    PbipLossSpec,
    classification_loss,
    foreground_masks,
    map_mean,
    map_variation,
    matching_losses,
    selected_subclasses,
)
from models.preprocess import Preprocess
from models.prompt_encoder import PromptEncoder
from store_schema.errors import InputError, ModelError

Floats = npt.NDArray[np.float64]

CONFIG = PbipConfig("test_efficientnet", ("benign", "tumor"), (3, 2), 12, 64, hidden=10)


def random_output(n: int = 3, sides: tuple[int, ...] = (16, 8, 4, 2)) -> PbipOutput:
    rng = torch.Generator().manual_seed(2)
    maps = tuple(4 * torch.randn(n, 5, side, side, generator=rng) for side in sides)
    return PbipOutput(maps, tuple(m.mean((2, 3)) for m in maps))  # type: ignore[arg-type]


def sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-z)))


def test_classification_is_the_weighted_cross_entropy_of_four_scales() -> None:
    output = random_output()
    labels = np.array([[1, 0], [1, 1], [0, 0]])
    spec = PbipLossSpec(scale_weights=(0.0, 0.1, 1.0, 1.5))
    wanted = 0.0
    for weight, logits in zip(spec.scale_weights, class_logits(output.logits, CONFIG), strict=True):
        p = sigmoid(logits.double().numpy())
        wanted += weight * -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    found = classification_loss(output.logits, CONFIG, torch.tensor(labels).float(), spec)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_variation_and_mean_of_the_maps() -> None:
    output = random_output()
    variation = mean = 0.0
    for weight, maps in zip((0, 0.3, 0.3, 0.4), class_maps(output.maps, CONFIG), strict=True):
        p = sigmoid(maps.double().numpy())
        variation += weight * (
            np.abs(np.diff(p, axis=2)).mean() + np.abs(np.diff(p, axis=3)).mean()
        )
        mean += weight * p.mean()
    assert float(map_variation(output, CONFIG)) == pytest.approx(variation, rel=1e-5)
    assert float(map_mean(output, CONFIG)) == pytest.approx(mean, rel=1e-5)


def test_a_map_of_one_pixel_varies_not_at_all() -> None:
    output = random_output(sides=(8, 4, 2, 1))  # of tiles of 32 px
    assert np.isfinite(float(map_variation(output, CONFIG)))
    flat = PbipOutput(tuple(torch.ones_like(m) for m in output.maps), output.logits)  # type: ignore[arg-type]
    assert float(map_variation(flat, CONFIG)) == 0.0


def test_subclasses_above_their_classs_mean_are_selected_where_the_class_is() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.5, -2.0, -1.0], [1.0, 5.0, 3.5, -2.0, -1.0], [0.0] * 5])
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = selected_subclasses(logits, CONFIG, labels)
    assert found.tolist() == [
        [False, True, True, False, False],
        [False, True, True, False, True],
        [False] * 5,  # no class, nothing to select
    ]
    single = replace(CONFIG, k_list=(1, 1))
    assert selected_subclasses(torch.tensor([[-3.0, 2.0]]), single, labels[:1]).tolist() == [
        [True, False]
    ]


def test_masks_part_every_pixel_between_foreground_and_background() -> None:
    maps = torch.tensor([[[[4.0, 2.0], [1.0, -8.0]]]])
    foreground, background = foreground_masks(maps, 0.5)
    assert foreground.tolist() == [[[[1.0, 0.5], [0.0, 0.0]]]]
    assert background.tolist() == [[[[0.0, 0.0], [0.75, 1.0]]]]
    nothing = torch.zeros(1, 1, 2, 2)
    assert all(bool(torch.isfinite(mask).all()) for mask in foreground_masks(nothing, 0.5))


def test_matching_is_infonce_with_one_and_with_many_positives() -> None:
    rng = np.random.default_rng(0)
    foreground, background = rng.normal(size=(2, 4, 6))
    prototypes = rng.normal(size=(5, 6))
    subclass = np.array([0, 3, 3, 4])
    tau = 0.2
    unit = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)

    def loss(features: Floats, own_is_positive: bool) -> float:
        terms = []
        for feature, k in zip(features, subclass, strict=True):
            e = np.exp(unit @ feature / np.linalg.norm(feature) / tau)
            positive = e[k] if own_is_positive else e.sum() - e[k]
            terms.append(-np.log(positive / e.sum()))
        return float(np.mean(terms))

    found = matching_losses(
        torch.tensor(foreground),
        torch.tensor(background),
        torch.tensor(prototypes),
        torch.tensor(subclass),
        tau,
    )
    assert float(found[0]) == pytest.approx(loss(foreground, True), rel=1e-4)
    assert float(found[1]) == pytest.approx(loss(background, False), rel=1e-4)


def small_encoder(preprocess: Preprocess | None = None) -> PromptEncoder:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 12, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plain = Preprocess(None, None, "bilinear", (0.6, 0.5, 0.55), (0.2, 0.25, 0.3))
    return PromptEncoder(layers, preprocess or plain, 12)


def test_the_gradient_of_matching_reaches_the_maps_and_not_the_encoder() -> None:
    rng = torch.Generator().manual_seed(3)
    encoder = small_encoder()
    tiles = torch.randint(0, 256, (2, 32, 32, 3), generator=rng).to(torch.uint8)
    prototypes = torch.randn(5, 12, generator=rng)
    maps = torch.randn(3, 1, 8, 8, generator=rng).requires_grad_()
    tile_of = torch.tensor([0, 1, 1])
    masks = torch.cat(foreground_masks(nn.functional.interpolate(maps, (32, 32)), 0.5))
    features = encoder(tiles, tile_of.repeat(2), masks)
    assert features.shape == (6, 12)
    foreground, background = features.chunk(2)
    losses = matching_losses(foreground, background, prototypes, torch.tensor([0, 3, 4]), 0.07)
    (losses[0] + losses[1]).backward()  # type: ignore[no-untyped-call]
    assert maps.grad is not None
    assert all(float(g.abs().sum()) > 0 for g in maps.grad)
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())
    assert not encoder.train().training


def test_a_masked_tile_is_a_tile_in_the_encoders_mean_colour() -> None:
    encoder = small_encoder()
    rng = torch.Generator().manual_seed(3)
    tiles = torch.randint(0, 256, (2, 32, 32, 3), generator=rng).to(torch.uint8)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :10] = 1
    painted = tiles[1:].clone().float()
    painted[:, :, 10:] = torch.tensor([0.6, 0.5, 0.55]) * 255
    x = (
        painted.permute(0, 3, 1, 2) / 255 - torch.tensor(encoder.preprocess.mean).view(3, 1, 1)
    ) / (torch.tensor(encoder.preprocess.std).view(3, 1, 1))
    with torch.no_grad():
        found = encoder(tiles, torch.tensor([1]), mask)
        torch.testing.assert_close(found, encoder.network(x), rtol=1e-4, atol=1e-5)


def test_masks_are_cropped_as_tiles_are() -> None:
    encoder = small_encoder(Preprocess(48, 32, "bilinear", (0.0,) * 3, (1.0,) * 3))
    tiles = torch.full((1, 24, 24, 3), 255, dtype=torch.uint8)
    assert encoder.frame_px(24) == 48
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., :8, :] = 1  # what the crop cuts off
    with torch.no_grad():
        nothing = encoder.network(torch.zeros(1, 3, 32, 32))
        assert torch.equal(encoder(tiles, torch.tensor([0]), mask), nothing)
        mask[..., 8, :] = 1
        assert not torch.equal(encoder(tiles, torch.tensor([0]), mask), nothing)


def test_the_encoder_must_be_that_of_the_bank() -> None:
    factory = EncoderFactory(EncoderSpec("efficientnet-lite0", device="cpu"))
    bank = dict(factory.provenance)
    encoder = PromptEncoder.of(factory, bank | {"dtype": "float32", "precision": "fp16"})
    tiles = torch.randint(0, 256, (2, 64, 64, 3)).to(torch.uint8)
    whole = torch.ones(2, 1, 64, 64)
    with torch.no_grad():
        features = encoder(tiles, torch.arange(2), whole)
    np.testing.assert_allclose(
        features.numpy(), factory.load()(tiles)["features"].astype(np.float32), atol=2e-2
    )
    with pytest.raises(ModelError, match="another encoder"):
        PromptEncoder.of(factory, bank | {"weights": "sha256:0"})


def test_senseless_weights_are_refused() -> None:
    for change in (
        {"contrastive": -1.0},
        {"scale_weights": (0.0, 0.0, 0.0, 0.0)},
        {"temperature": 0.0},
        {"mask_alpha": 0.0},
    ):
        with pytest.raises(InputError):
            replace(PbipLossSpec(), **change)


def test_a_scale_of_no_weight_gets_no_gradient() -> None:
    model = new_pbip(CONFIG, torch.randn(5, 12), seed=0)
    x = model.normalize(torch.randint(0, 256, (2, 64, 64, 3)).to(torch.uint8))
    output: PbipOutput = model(x)
    classification_loss(output.logits, CONFIG, torch.eye(2), PbipLossSpec()).backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in model.project.named_parameters()}
    assert gradients["0.0.weight"] is None
    coarsest = gradients["3.0.weight"]
    assert coarsest is not None
    assert float(coarsest.abs().sum()) > 0
