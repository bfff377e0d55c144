"""What a precision comes to on a device."""

from __future__ import annotations

import pytest
import torch

from models.encoder import EncoderFactory, EncoderSpec
from models.precision import arithmetic, resolve_precision


def test_auto_is_exact_on_the_cpu() -> None:
    assert resolve_precision("auto", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"


@pytest.mark.parametrize(("capability", "precision"), [((6, 1), "fp32"), ((9, 0), "fp16")])
def test_auto_on_a_gpu_follows_its_tensor_cores(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert resolve_precision("auto", "cuda") == precision


def test_cuda_arithmetic_is_repeatable_and_leaves_no_trace() -> None:
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic)
    with arithmetic("fp32", "cuda"):
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.allow_tf32
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before


def test_low_precision_is_autocast() -> None:
    x = torch.rand(4, 4)
    with arithmetic("bf16", "cpu"):
        assert (x @ x).dtype == torch.bfloat16
    with arithmetic("fp32", "cpu"):
        assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "random_weights", "serves"),
    [
        ("timm:resnet10t", True, True),
        ("efficientnet-lite0", False, False),  # pretrained: 0.998
    ],
)
def test_auto_takes_bfloat16_where_the_processor_is_fast_at_it_and_features_stay(
    monkeypatch: pytest.MonkeyPatch, name: str, random_weights: bool, serves: bool
) -> None:
    spec = EncoderSpec(name, random_weights=random_weights, device="cpu")
    for capabilities in ({}, {"avx512_bf16": False, "avx2": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert EncoderFactory(spec).precision == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    factory = EncoderFactory(spec)
    assert factory.precision == ("bf16" if serves else "fp32")
