"""Every slide model: shapes, invariances, settings, chunks, precision, and that it can learn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Tensor

from models.bag_losses import LossSpec, make_bag_loss
from models.slide_model import SlideModel, SlideOutput, TaskKind
from models.slide_models import SLIDE_MODELS, build_slide_model
from store_schema.errors import InputError, ModelError

NAMES = list(SLIDE_MODELS)
PER_CLASS = {"dsmil", "clam-mb", "max"}
WITH_INSTANCES = {"dsmil", "clam-sb", "clam-mb", "mean", "max"}
NARROW = {"hidden": 32, "attention": 16}
SMALL: dict[str, dict[str, int]] = {
    **dict.fromkeys(("abmil", "abmil-plain", "clam-sb", "clam-mb"), NARROW),
    "transmil": {"hidden": 32, "heads": 4, "landmarks": 16},
}
SUBTYPING = {"clam-sb": {"subtyping": True}, "clam-mb": {"subtyping": True}}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def build(
    name: str, n_features: int = 12, n_classes: int = 3, chunk_tiles: int = 16384
) -> SlideModel:
    """Return a small model in float64, its dropout on."""
    settings = {"chunk_tiles": chunk_tiles, **SMALL.get(name, {}), **SUBTYPING.get(name, {})}
    return build_slide_model(name, n_features, n_classes, settings).double()


def loss_of(model: SlideModel, output: SlideOutput, task: TaskKind = "multiclass") -> Tensor:
    target = torch.tensor(1) if task == "multiclass" else torch.tensor([0.0, 1.0, 1.0])
    return model.loss(
        output, target, make_bag_loss(LossSpec(), task, np.array([3, 2, 1]), epoch=0, epochs=1)
    )


def gradients(model: SlideModel, bag: Tensor) -> tuple[SlideOutput, dict[str, Tensor]]:
    model.zero_grad()
    output = model(bag)
    torch.autograd.backward(loss_of(model, output))
    return output, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("n_tiles", [1, 3, 300])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_gradients_of_bags_of_any_size(name: str, n_tiles: int, task: TaskKind) -> None:
    model = build(name).float()
    output = model(torch.randn(n_tiles, 12).half())
    shape = (n_tiles, 3) if name in PER_CLASS else (n_tiles,)
    assert output.logits.shape == (3,)
    assert output.attention.shape == output.attention_logits.shape == shape
    assert output.attention.dtype == torch.float32
    if name in WITH_INSTANCES:
        assert output.instance_logits is not None
        assert output.instance_logits.shape == (n_tiles, 3)
        told = model.instance_probabilities(output.instance_logits, task)
        assert told.shape == (n_tiles, 3)
        assert ((told >= 0) & (told <= 1)).all()
    else:
        assert output.instance_logits is None
    sums = output.attention.sum(0)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    torch.testing.assert_close(torch.softmax(output.attention_logits, 0), output.attention)
    loss = loss_of(model, output, task)
    torch.autograd.backward(loss)
    assert loss.shape == ()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(torch.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "transmil"])
def test_order_of_tiles_does_not_matter(name: str) -> None:
    model = build(name).eval()
    bag, order = torch.randn(50, 12, dtype=torch.float64), torch.randperm(50)
    straight, shuffled = model(bag), model(bag[order])
    torch.testing.assert_close(shuffled.logits, straight.logits)
    torch.testing.assert_close(shuffled.attention, straight.attention[order])


@pytest.mark.parametrize("n_tiles", [17, 64])
@pytest.mark.parametrize("name", NAMES)
def test_chunks_change_nothing(name: str, n_tiles: int) -> None:
    whole, chunked = build(name).eval(), build(name, chunk_tiles=7).eval()
    chunked.load_state_dict(whole.state_dict())
    bag = 3 * torch.randn(n_tiles, 12, dtype=torch.float64)
    expected, expected_grads = gradients(whole, bag)
    got, got_grads = gradients(chunked, bag)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)
    assert got_grads.keys() == expected_grads.keys()
    torch.testing.assert_close(got_grads, expected_grads, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(chunked(bag), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["abmil", "clam-mb", "dsmil", "transmil"])
def test_dropout_in_chunks_is_that_of_the_forward_pass_and_of_the_seed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_slide_model(
        name, 12, 3, {"chunk_tiles": 7, "dropout": 0.5, **SMALL.get(name, {})}
    ).double()
    bag = torch.randn(40, 12, dtype=torch.float64)

    def seeded(seed: int) -> tuple[SlideOutput, dict[str, Tensor]]:
        torch.manual_seed(seed)
        return gradients(model, bag)

    first, first_grads = seeded(1)
    again, again_grads = seeded(1)
    other, _ = seeded(2)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    torch.testing.assert_close(again_grads, first_grads, rtol=0, atol=0)
    assert not torch.equal(other.logits, first.logits)
    for module in ("models.attention_pool", "models.transmil"):
        monkeypatch.setattr(f"{module}.checkpoint", lambda f, *args, use_reentrant: f(*args))
    kept, kept_grads = seeded(1)  # the same chunks, nothing computed twice
    torch.testing.assert_close(kept, first, rtol=0, atol=0)
    torch.testing.assert_close(kept_grads, first_grads, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_gives_finite_float32_attention(name: str) -> None:
    model = build(name, chunk_tiles=16).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(40, 12))
        loss = loss_of(model, output)
    torch.autograd.backward(loss)
    assert loss.dtype == output.attention.dtype == output.attention_logits.dtype == torch.float32
    with torch.no_grad():
        exact = model.eval()(torch.randn(40, 12))
    assert torch.isfinite(loss)
    assert torch.isfinite(exact.logits).all()


@pytest.mark.parametrize("name", NAMES)
def test_config_builds_the_same_model_again(name: str) -> None:
    model = build(name)
    stored = json.loads(json.dumps(asdict(model.config)))
    again = build_slide_model(name, 12, 3, stored).double()
    assert again.config == model.config
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_the_callers_seed_decides_the_weights(name: str) -> None:
    drawn = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        drawn.append(torch.cat([p.flatten() for p in build(name).parameters()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_names_and_settings_that_are_not_there() -> None:
    with pytest.raises(ModelError, match=r"no slide model 'dsmill': did you mean dsmil"):
        build_slide_model("dsmill", 8, 2)
    with pytest.raises(InputError, match=r"abmil has no setting 'hiden': did you mean hidden"):
        build_slide_model("abmil", 8, 2, {"hiden": 3})
    with pytest.raises(InputError, match=r"hidden of abmil is 'x': give it as int"):
        build_slide_model("abmil", 8, 2, {"hidden": "x"})
    with pytest.raises(InputError, match="gated of this abmil-plain model is False, not True"):
        build_slide_model("abmil-plain", 8, 2, {"gated": True})
    with pytest.raises(InputError, match="n_features of this dsmil model is 8, not 9"):
        build_slide_model("dsmil", 8, 2, {"n_features": 9})
    with pytest.raises(InputError, match="hidden is 0"):
        build_slide_model("abmil", 8, 2, {"hidden": 0})
    with pytest.raises(InputError, match=r"dropout is 1\.0"):
        build_slide_model("abmil", 8, 2, {"dropout": 1})
    with pytest.raises(InputError, match="multiple of heads"):
        build_slide_model("transmil", 8, 2, {"hidden": 30})


@pytest.mark.parametrize("name", NAMES)
def test_learns_to_find_planted_tiles(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    bags = [torch.randn(12, 8, generator=generator) for _ in range(60)]
    labels = [i % 2 for i in range(60)]
    for bag, label in zip(bags, labels, strict=True):
        if label:
            bag[3:5, 0] += 6
    model = build(name, n_features=8, n_classes=2).float()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=1e-2 if name in {"mean", "max", "dsmil"} else 3e-3
    )
    loss = make_bag_loss(LossSpec(), "multiclass", np.array([20, 20]), epoch=0, epochs=1)
    for _ in range(8):
        for bag, label in zip(bags[:40], labels[:40], strict=True):
            optimizer.zero_grad()
            torch.autograd.backward(model.loss(model(bag), torch.tensor(label), loss))
            optimizer.step()
    model.eval()
    with torch.no_grad():
        outputs = [model(bag) for bag in bags[40:]]
    right = [int(o.logits.argmax()) == y for o, y in zip(outputs, labels[40:], strict=True)]
    assert np.mean(right) >= 0.9
    if name not in {"mean", "transmil"}:  # the others must also say where
        attention = [o.attention for o, y in zip(outputs, labels[40:], strict=True) if y]
        planted = [a[3:5].sum(0).max() for a in attention]  # for a class, or against the other
        assert np.mean([float(p) for p in planted]) > 0.5
