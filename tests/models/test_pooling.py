"""The baselines against what their names say."""

from __future__ import annotations

import torch

from models.pooling import MaxPool, MeanPool
from models.slide_model import SlideModelConfig


def test_mean() -> None:
    torch.manual_seed(0)
    model = MeanPool(SlideModelConfig(4, 2, chunk_tiles=3)).double()
    bag = torch.randn(10, 4, dtype=torch.float64)
    output = model(bag)
    torch.testing.assert_close(output.logits, model.instance(bag.mean(0)))
    torch.testing.assert_close(output.attention, torch.full((10,), 0.1, dtype=torch.float64))


def test_max() -> None:
    torch.manual_seed(0)
    model = MaxPool(SlideModelConfig(4, 2, chunk_tiles=3)).double()
    bag = torch.randn(10, 4, dtype=torch.float64)
    with torch.no_grad():
        output = model(bag)
        each = model.instance(bag).T.tolist()
    assert output.logits.tolist() == [max(each[0]), max(each[1])]
    assert output.attention[:, 1].argmax() == each[1].index(max(each[1]))
