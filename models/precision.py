"""fp32, bf16, fp16: what ``auto`` means on a device, and the context that a network runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
PrecisionChoice: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]
DeviceType: TypeAlias = Literal["cpu", "cuda"]

_DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}
VOLTA: Final = (7, 0)  # the first compute capability with tensor cores


def resolve_precision(choice: PrecisionChoice, device: DeviceType) -> Precision:
    """Return the precision that ``choice`` comes to.

    ``auto`` is fp16 on GPUs with tensor cores and fp32 elsewhere. Not bf16, which is no faster:
    its 8 bits of mantissa bend the features of efficientnet-lite0 to a cosine of 0.995 with those
    of fp32, fp16 keeps 0.9999. Where ``cuda`` is asked for on a machine that has none, as a client
    of a cluster does, the workers' GPUs are taken to have tensor cores.
    """
    if choice != "auto":
        return choice
    if device == "cuda":
        capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else VOLTA
        return "fp16" if capability >= VOLTA else "fp32"
    return "fp32"


@contextmanager
def arithmetic(precision: Precision, device: DeviceType) -> Iterator[None]:
    """Run a network in ``precision``, the same way every time.

    On CUDA, fp32 is fp32 and not TF32 (cuDNN's default for convolutions), and cuDNN takes
    deterministic kernels without trying out which is fastest: a run can be repeated bit by bit.
    """
    with ExitStack() as stack:
        if device == "cuda":
            stack.enter_context(
                torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
            )
        if precision != "fp32":
            stack.enter_context(torch.autocast(device, dtype=_DTYPES[precision]))
        yield
