"""CLAM: its two kinds of attention, and the clustering loss by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.clam import Clam, ClamConfig
from models.slide_model import SlideOutput


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def make(n_classes: int = 3, **settings: bool) -> Clam:
    torch.manual_seed(0)
    config = ClamConfig(6, n_classes, hidden=5, attention=4, k=2, **settings)
    return Clam(config).double().eval()


def output_of(attention_logits: Tensor, instance_logits: Tensor) -> SlideOutput:
    logits = torch.zeros(instance_logits.shape[1], dtype=torch.float64)
    return SlideOutput(logits, attention_logits.softmax(0), instance_logits, attention_logits)


SHARED = torch.tensor([0.1, 3.0, -2.0, 2.0, -1.0, 0.5], dtype=torch.float64)
OWN = torch.stack([SHARED, -SHARED, SHARED.roll(1)], 1)
Z = torch.tensor(  # rows 1 and 3 are most attended, 2 and 4 least
    [[9, 9, 9], [0.2, 1, -1], [-0.3, 2, 1], [0.7, 3, 0], [1.1, 4, 2], [9, 9, 9]],
    dtype=torch.float64,
)


def test_smooth_svm_is_what_softplus_says() -> None:
    scores = torch.tensor([0.3, -1.2], dtype=torch.float64)
    paper = torch.logsumexp(scores + torch.tensor([1.0, 0.0]), 0) - scores[1]  # y = 1
    assert float(paper) == pytest.approx(softplus(1 - (-1.2 - 0.3)))


def test_instance_loss_of_the_slides_class() -> None:
    expected = (softplus(1 - 0.2) + softplus(1 - 0.7) + softplus(1 - 0.3) + softplus(1 + 1.1)) / 4
    loss = make().instance_loss(output_of(SHARED, Z), torch.tensor(0))
    assert float(loss) == pytest.approx(expected)


def test_subtyping_lets_the_other_classes_speak() -> None:
    own = (softplus(1 - 1) + softplus(1 - 3) + softplus(1 + 2) + softplus(1 + 4)) / 4
    first = (softplus(1 + 0.2) + softplus(1 + 0.7)) / 2
    third = (softplus(1 - 1) + softplus(1 + 0)) / 2
    loss = make(subtyping=True).instance_loss(output_of(SHARED, Z), torch.tensor(1))
    assert float(loss) == pytest.approx((own + first + third) / 3)


def test_each_class_has_its_own_tiles_in_mb() -> None:
    model = make(multi_branch=True)  # class 1 attends to 2 and 4 most, to 1 and 3 least
    expected = (softplus(1 - 2) + softplus(1 - 4) + softplus(1 + 1) + softplus(1 + 3)) / 4
    loss = model.instance_loss(output_of(OWN, Z), torch.tensor(1))
    assert float(loss) == pytest.approx(expected)


def test_multilabel_takes_the_mean_of_the_classes_present() -> None:
    model = make()
    output = output_of(SHARED, Z)
    one = [float(model.instance_loss(output, torch.tensor(c))) for c in range(3)]
    both = model.instance_loss(output, torch.tensor([1.0, 0.0, 1.0]))
    assert float(both) == pytest.approx((one[0] + one[2]) / 2)
    assert float(model.instance_loss(output, torch.zeros(3))) == 0


def test_small_bags_take_half_and_one_tile_none() -> None:
    model = make()
    three = model.instance_loss(output_of(SHARED[1:4], Z[1:4]), torch.tensor(0))
    assert float(three) == pytest.approx((softplus(1 - 0.2) + softplus(1 - 0.3)) / 2)
    assert float(model.instance_loss(output_of(SHARED[:1], Z[:1]), torch.tensor(0))) == 0


@pytest.mark.parametrize("multi_branch", [False, True])
def test_loss_weights_and_bag_logits(multi_branch: bool) -> None:
    model = make(multi_branch=multi_branch)
    torch.nn.init.normal_(model.classifier.bias)
    bag = torch.randn(9, 6, dtype=torch.float64)
    output = model(bag)
    h = model.embed(bag)
    for c in range(3):
        a = output.attention[:, c] if multi_branch else output.attention
        pooled = torch.stack([a[i] * h[i] for i in range(9)]).sum(0)
        logit = model.classifier.weight[c] @ pooled + model.classifier.bias[c]
        torch.testing.assert_close(output.logits[c], logit)
    target = torch.tensor(1)
    loss = model.loss(output, target, lambda logits, t: logits[t])
    expected = 0.7 * output.logits[1] + 0.3 * model.instance_loss(output, target)
    torch.testing.assert_close(loss, expected)
