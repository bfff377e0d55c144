"""Where a tile model runs: decided once where the run is planned, checked again on the worker."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

from models.precision import DeviceType, Precision
from store_schema.errors import DeviceError

DeviceChoice: TypeAlias = Literal["auto", "cpu", "cuda"]


def resolve_tile_device(choice: DeviceChoice, *, require_gpu: bool) -> DeviceType:
    """Return the device that ``choice`` comes to.

    Raises
    ------
    DeviceError
        If a GPU is required and there is none.
    """
    if choice == "cuda":  # the client of a cluster need not see a GPU itself; the worker looks
        return "cuda"
    if choice == "auto" and torch.cuda.is_available():
        return "cuda"
    if require_gpu:
        why = "--device cpu is given" if choice == "cpu" else "no CUDA device is there"
        raise DeviceError(
            f"A GPU is required and {why}: leave out --require-gpu, or use a machine with one."
        )
    return "cpu"


def require_device_here(device: DeviceType) -> None:
    """Check on a worker that it sees the device that was decided on.

    Raises
    ------
    DeviceError
        If this process sees no GPU and one is wanted.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "This worker sees no CUDA device: use --device cpu, or workers with a GPU."
        )


def device_note(choice: DeviceChoice, device: DeviceType, precision: Precision) -> str:
    """Say where the work goes and why, for a summary."""
    if device == "cuda":
        return f"GPU, {precision}"
    return f"CPU{' (there is no CUDA device)' if choice == 'auto' else ''}, {precision}"
