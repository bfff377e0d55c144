"""ABMIL against its formula."""

from __future__ import annotations

import pytest
import torch

from models.abmil import Abmil, AbmilConfig


@pytest.mark.parametrize("gated", [True, False])
def test_formula(gated: bool) -> None:
    torch.manual_seed(0)
    model = Abmil(AbmilConfig(6, 3, hidden=5, attention=4, gated=gated)).double().eval()
    for bias in (p for n, p in model.named_parameters() if n.endswith("bias")):
        torch.nn.init.normal_(bias)
    p = dict(model.named_parameters())
    bag = torch.randn(9, 6, dtype=torch.float64)

    h = torch.relu(bag @ p["embed.0.weight"].T + p["embed.0.bias"])
    score = torch.tanh(h @ p["scorer.v.weight"].T + p["scorer.v.bias"])
    if gated:
        score = score * torch.sigmoid(h @ p["scorer.u.weight"].T + p["scorer.u.bias"])
    else:
        assert not any(name.startswith("scorer.u") for name in p)
    e = torch.exp(score @ p["scorer.w.weight"][0] + p["scorer.w.bias"])
    a = e / e.sum()
    slide = torch.stack([a[i] * h[i] for i in range(9)]).sum(0)
    logits = p["classifier.weight"] @ slide + p["classifier.bias"]

    output = model(bag)
    torch.testing.assert_close(output.attention, a)
    torch.testing.assert_close(output.attention_logits, torch.log(e))
    torch.testing.assert_close(output.logits, logits)
