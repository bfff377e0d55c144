"""DSMIL against a literal writing-out of its formulas."""

from __future__ import annotations

import math

import torch

from models.dsmil import Dsmil, DsmilConfig


def make() -> tuple[Dsmil, torch.Tensor]:
    torch.manual_seed(0)
    model = Dsmil(DsmilConfig(6, 3)).double()
    for bias in (p for n, p in model.named_parameters() if n.endswith("bias")):
        torch.nn.init.normal_(bias)
    return model, torch.randn(11, 6, dtype=torch.float64)


def test_forward_formula() -> None:
    model, bag = make()
    p = dict(model.named_parameters())

    def query(x: torch.Tensor) -> torch.Tensor:
        hidden = (p["query.0.weight"] @ x + p["query.0.bias"]).clamp(min=0)
        return torch.tanh(p["query.2.weight"] @ hidden + p["query.2.bias"])

    instance = torch.stack([p["instance.weight"] @ x + p["instance.bias"] for x in bag])
    attention = torch.zeros(11, 3, dtype=torch.float64)
    embedding = torch.zeros(3, 6, dtype=torch.float64)
    for c in range(3):
        critical = bag[int(instance[:, c].argmax())]
        e = torch.stack([torch.exp(query(x) @ query(critical) / math.sqrt(128)) for x in bag])
        attention[:, c] = e / e.sum()
        for i in range(11):
            embedding[c] += attention[i, c] * bag[i]
    logits = torch.stack(
        [(p["bag.weight"][c] * embedding).sum() + p["bag.bias"][c] for c in range(3)]
    )

    output = model(bag)
    assert query(bag[0]).shape == (128,)
    torch.testing.assert_close(output.instance_logits, instance)
    torch.testing.assert_close(output.attention, attention)
    torch.testing.assert_close(output.logits, logits)


def test_loss_is_the_mean_of_both_streams() -> None:
    model, bag = make()
    output = model(bag)
    assert output.instance_logits is not None
    seen: list[torch.Tensor] = []

    def bag_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(logits)
        return logits[target]

    loss = model.loss(output, torch.tensor(2), bag_loss)
    largest = max(output.instance_logits[:, 2].tolist())
    torch.testing.assert_close(loss, 0.5 * output.logits[2] + 0.5 * largest)
    assert len(seen) == 2


def test_only_the_critical_tiles_teach_the_instance_stream() -> None:
    model, bag = make()
    bag.requires_grad_()
    output = model(bag)
    assert output.instance_logits is not None
    critical = output.instance_logits.max(0).values.sum()
    (gradient,) = torch.autograd.grad(critical, bag)
    touched = set(gradient.abs().sum(1).nonzero().flatten().tolist())
    assert touched == set(output.instance_logits.argmax(0).tolist())
