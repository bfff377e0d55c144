"""Where a training runs, and the context in which it can be repeated bit by bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from models.precision import Precision
from store_schema.errors import DeviceError


def resolve_device(choice: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device that ``choice`` comes to in this process.

    Raises
    ------
    DeviceError
        If ``cuda`` is asked for and there is none.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "There is no CUDA device in this process: use --device cpu, or a GPU machine."
        )
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def autocast_precision(device: torch.device) -> Precision:
    """Return what autocast trains in: bf16, which needs no loss scaling, else fp16."""
    if device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16"


@contextmanager
def repeatable(device: torch.device, threads: int) -> Iterator[None]:
    """Compute with ``threads`` CPU threads and deterministic kernels; leave torch as it was found.

    The random states of the caller come back afterwards. A CUDA operation without a deterministic
    kernel warns and runs.
    """
    threads_before = torch.get_num_threads()
    strict_before = torch.are_deterministic_algorithms_enabled()
    lenient_before = torch.is_deterministic_algorithms_warn_only_enabled()
    cuda = device.type == "cuda"
    if cuda:  # read when the first matrix product makes its workspace
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []):
        torch.set_num_threads(threads)
        if cuda:
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.set_num_threads(threads_before)
            torch.use_deterministic_algorithms(strict_before, warn_only=lenient_before)
