"""Maps are scaled cosines to projected prototypes; classes, confidences and the public protocol as written out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.pbip import (
    Merge,
    Pbip,
    PbipConfig,
    PbipOutput,
    Similarity,
    class_logits,
    class_maps,
    class_probabilities,
    confidence,
    merge_subclasses,
    new_pbip,
)
from models.pbip_published import published_background, published_cam, published_prediction
from store_schema.errors import InputError, ModelError

CONFIG = PbipConfig("test_efficientnet", ("benign", "tumor"), (3, 2), 12, 64, hidden=10)


def network(config: PbipConfig = CONFIG, seed: int = 0) -> Pbip:
    rng = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(config.n_prototypes, config.feature_dim, generator=rng)
    return new_pbip(config, prototypes, seed=seed).eval()


def tiles_of(n: int = 2, tile_px: int = 64) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, tile_px, tile_px, 3), generator=rng).to(torch.uint8)


def random_output(n: int = 3) -> PbipOutput:
    rng = torch.Generator().manual_seed(2)
    maps = tuple(4 * torch.randn(n, 5, side, side, generator=rng) for side in (16, 8, 4, 2))
    return PbipOutput(maps, tuple(m.mean((2, 3)) for m in maps))  # type: ignore[arg-type]


@pytest.mark.parametrize("similarity", ["cosine", "projected"])
@torch.no_grad()
def test_maps_are_scaled_similarities_to_projected_prototypes(similarity: Similarity) -> None:
    model = network(replace(CONFIG, similarity=similarity))
    model.log_scale.add_(torch.arange(4) / 10)
    x = model.normalize(tiles_of())
    features = model.backbone(x)
    output = model(x)
    weights = {name: value.numpy() for name, value in model.project.state_dict().items()}
    for k, pixels in enumerate(features):
        hidden = model.prototypes.numpy() @ weights[f"{k}.0.weight"].T + weights[f"{k}.0.bias"]
        kernel = np.maximum(hidden, 0) @ weights[f"{k}.2.weight"].T + weights[f"{k}.2.bias"]
        if similarity == "cosine":
            kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)
        values = pixels.numpy()
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
        wanted = np.exp(k / 10) / 0.07 * np.einsum("ncyx,kc->nkyx", values, kernel)
        np.testing.assert_allclose(output.maps[k].numpy(), wanted, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(output.logits[k].numpy(), wanted.mean((2, 3)), rtol=0, atol=1e-3)
    if similarity == "cosine":
        assert max(float(m.abs().max()) for m in output.maps) <= np.exp(0.3) / 0.07 + 1e-3


@pytest.mark.parametrize("how", ["mean", "max", "softmax"])
def test_classes_are_made_of_their_subclasses_alone(how: Merge) -> None:
    output = random_output()
    logits = class_logits(output.logits, CONFIG, how)
    maps = class_maps(output.maps, CONFIG, how)
    for scale in range(4):
        for values, merged in ((output.logits, logits), (output.maps, maps)):
            v = values[scale].double()
            for c, group in enumerate((v[:, :3], v[:, 3:])):
                if how == "softmax":
                    e = torch.exp(group)
                    wanted = (e / e.sum(1, keepdim=True) * group).sum(1)
                else:
                    wanted = group.mean(1) if how == "mean" else group.max(1).values
                torch.testing.assert_close(merged[scale][:, c].double(), wanted, rtol=0, atol=1e-5)


def test_confidence_fuses_three_scales_of_sigmoids() -> None:
    output = random_output()
    merged = class_maps(output.maps, CONFIG, "max")
    wanted = sum(
        w * torch.nn.functional.interpolate(torch.sigmoid(merged[k]), (32, 32), mode="bilinear")
        for k, w in ((1, 0.3), (2, 0.3), (3, 0.4))
    )
    found = confidence(output, CONFIG, 32, "max")
    torch.testing.assert_close(found, wanted)
    assert found.shape == (3, 2, 32, 32)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    logits = class_logits(output.logits, CONFIG, "max")
    torch.testing.assert_close(
        class_probabilities(output, CONFIG, "max"),
        0.3 * logits[1].sigmoid() + 0.3 * logits[2].sigmoid() + 0.4 * logits[3].sigmoid(),
    )


def test_a_tile_without_a_class_has_no_confident_pixel_of_it_but_in_the_public_protocol() -> None:
    absent = [torch.full((1, 5, side, side), -9.0) for side in (16, 8, 4, 2)]
    for maps in absent:
        maps[:, 3:, 0, 0] = 0.1  # the least of a hint of the second class
    output = PbipOutput(tuple(absent), tuple(m.mean((2, 3)) for m in absent))  # type: ignore[arg-type]
    assert float(confidence(output, CONFIG, 16)[:, 1].max()) < 0.55
    cam = published_cam(output, CONFIG, torch.ones(1, 2), 16)
    assert float(cam[:, 1].max()) > 0.99  # stretched
    told = published_cam(output, CONFIG, torch.tensor([[1.0, 0.0]]), 16)
    assert float(told[:, 1].max()) == 0.0
    torch.testing.assert_close(published_background(cam), (1 - cam.max(1).values) ** 10)


@torch.no_grad()
def test_the_public_protocol_looks_at_mirror_images_and_brightnesses() -> None:
    model, tiles, labels = network(), tiles_of(), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    seen = []
    for factor in (0.9, 1.0, 1.1):
        x = factor * model.normalize(tiles)
        seen.append(published_cam(model(x), CONFIG, labels, 64))
        seen.append(published_cam(model(x.flip(3)), CONFIG, labels, 64).flip(3))
    wanted = torch.stack(seen).mean(0)
    torch.testing.assert_close(published_prediction(model, tiles, labels, 64), wanted)


def test_the_seed_decides_and_leaves_the_callers_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = network(), network(), network(seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )
    states = [model.project.state_dict()["0.0.weight"] for model in (first, other)]
    assert not torch.equal(*states)


def test_prototypes_stay_and_their_projections_learn() -> None:
    model = network().train()
    output: PbipOutput = model(model.normalize(tiles_of()))
    torch.stack([logits.sum() for logits in output.logits]).sum().backward()  # type: ignore[no-untyped-call]
    assert not model.prototypes.requires_grad
    for parameter in model.project.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().sum()) > 0
    assert model.log_scale.grad is not None
    assert bool((model.log_scale.grad != 0).all())


def test_similarities_are_float32_under_autocast() -> None:
    model = network()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output: PbipOutput = model(model.normalize(tiles_of()))
    assert {m.dtype for m in (*output.maps, *output.logits)} == {torch.float32}


def test_merging_takes_any_trailing_dimensions() -> None:
    values = torch.arange(10.0).view(2, 5)
    assert merge_subclasses(values, (3, 2), "mean").tolist() == [[1.0, 3.5], [6.0, 8.5]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tile_px": 80}, "multiple of 32"),
        ({"tile_px": 0}, "multiple of 32"),
        ({"k_list": (3,)}, "2 classes and 1"),
        ({"k_list": (3, 0)}, "1 or more"),
        ({"class_names": ("a", "a")}, "name of its own"),
        ({"hidden": 0}, "1 or more"),
        ({"similarity": "dot"}, "cosine or projected"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(CONFIG, **change)  # type: ignore[arg-type]


def test_other_prototypes_and_backbones_are_refused() -> None:
    with pytest.raises(ModelError, match="use the bank"):
        new_pbip(CONFIG, torch.zeros(4, 12), seed=0)
    with pytest.raises(ModelError, match="not finite"):
        new_pbip(CONFIG, torch.full((5, 12), torch.nan), seed=0)
    other = network(replace(CONFIG, backbone="test_resnet")).backbone
    with pytest.raises(ModelError, match="test_resnet"):
        Pbip(CONFIG, torch.zeros(5, 12), other)


def test_planning_a_segmentation_imports_no_model_library() -> None:
    code = "import sys, models.pbip_segmenter; print({'timm', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
