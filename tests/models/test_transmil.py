"""TransMIL: the Nyström attention and what is said of the class token."""

from __future__ import annotations

import math

import pytest
import torch

from models.transmil import NystromAttention, Ppeg, Transmil, TransmilConfig, _pinv


def config(landmarks: int) -> TransmilConfig:
    return TransmilConfig(6, 2, hidden=8, heads=2, landmarks=landmarks)


def exact(attention: NystromAttention, tokens: torch.Tensor) -> torch.Tensor:
    """Return softmax attention with the same weights, without landmarks."""
    q, k, v = attention.split(tokens)
    mixed = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v + attention.residual(v)
    result: torch.Tensor = attention.out(mixed[0].transpose(0, 1).flatten(1))
    return result


@pytest.fixture
def converged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pseudo-inverse be one: six iterations are the method's compromise."""
    monkeypatch.setattr("models.transmil.PINV_ITERATIONS", 40)


def test_pinv_comes_near_in_six_iterations_and_nearer_in_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    matrices = torch.softmax(torch.randn(2, 5, 5) + 3 * torch.eye(5), -1)
    expected = torch.linalg.pinv(matrices)
    torch.testing.assert_close(_pinv(matrices), expected, rtol=1e-3, atol=1e-3)
    monkeypatch.setattr("models.transmil.PINV_ITERATIONS", 3)
    assert not torch.allclose(_pinv(matrices), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("converged")
def test_a_landmark_per_token_is_exact_attention() -> None:
    torch.manual_seed(0)
    attention = NystromAttention(config(landmarks=10)).double().eval()
    torch.nn.init.normal_(attention.qkv.weight)
    tokens = torch.randn(10, 8, dtype=torch.float64)
    torch.testing.assert_close(attention(tokens), exact(attention, tokens))


@pytest.mark.usefixtures("converged")
def test_few_landmarks_against_the_written_out_formula() -> None:
    torch.manual_seed(0)
    attention = NystromAttention(config(landmarks=4)).double().eval()
    tokens = torch.randn(10, 8, dtype=torch.float64)  # runs of 3, 3, 3 and 1 tokens
    q, k, v = attention.split(tokens)

    def marks(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.mean(2) for part in torch.split(x, 3, dim=2)], 2)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.softmax(a @ b.mT / 2, -1)  # √4, the width of a head

    middle = torch.linalg.pinv(kernel(marks(q), marks(k)))
    mixed = kernel(q, marks(k)) @ middle @ kernel(marks(q), k) @ v + attention.residual(v)
    expected = attention.out(mixed[0].transpose(0, 1).flatten(1))
    got = attention(tokens)
    assert not torch.allclose(got, exact(attention, tokens), rtol=1e-6)
    torch.testing.assert_close(got, expected)


def test_ppeg_leaves_the_class_token_and_convolves_the_square() -> None:
    torch.manual_seed(0)
    ppeg = Ppeg(4)
    with torch.no_grad():
        for convolution in ppeg.convolutions:
            for parameter in convolution.parameters():
                parameter.zero_()
            weight = convolution.get_parameter("weight")  # (4, 1, size, size)
            weight[:, 0, -1, weight.shape[-1] // 2] = 1.0
    tokens = torch.randn(1 + 36, 4)
    square = tokens[1:].reshape(6, 6, 4)
    expected = square.clone()
    for rows in (3, 2, 1):  # the lowest tap of the 7, 5 and 3 px kernels
        expected[:-rows] += square[rows:]
    got = ppeg(tokens)
    assert torch.equal(got[0], tokens[0])
    torch.testing.assert_close(got[1:].reshape(6, 6, 4), expected)


@pytest.mark.parametrize("n_tiles", [1, 2, 9, 11])
def test_attention_is_the_class_tokens_row_of_the_last_layer(n_tiles: int) -> None:
    torch.manual_seed(0)
    model = Transmil(config(landmarks=4)).double().eval()
    rows: list[torch.Tensor] = []

    def watch(module: NystromAttention, args: tuple[torch.Tensor], _: torch.Tensor) -> None:
        q, k, _v = module.split(args[0])
        rows.append(torch.softmax(q[0, :, 0:1] @ k[0].mT / 2, -1)[:, 0].mean(0))

    model.last.register_forward_hook(watch)
    output = model(torch.randn(n_tiles, 6, dtype=torch.float64))
    (row,) = rows
    assert len(row) == 1 + math.ceil(math.sqrt(n_tiles)) ** 2
    mass = row[1 : 1 + n_tiles].clone()
    for copy, value in enumerate(row[1 + n_tiles :]):
        mass[copy] += value
    torch.testing.assert_close(output.attention_logits.exp().double(), mass, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(output.attention.double(), mass / mass.sum(), rtol=1e-5, atol=1e-7)
