"""The encoders that the programs here measure, by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias, get_args

from benchmarks.near_free import NearFreeFactory
from benchmarks.networks import RESNET, save_resnet18
from dataflow.tile_model import TileModelFactory
from models.precision import PrecisionChoice
from models.tile_device import DeviceChoice, resolve_tile_device

EncoderName: TypeAlias = Literal["near-free", "resnet18", "vit-base"]
_VIT: Final = "vit_base_patch16_224"
ENCODERS: Final[tuple[EncoderName, ...]] = get_args(EncoderName)
PRECISIONS: Final[tuple[PrecisionChoice, ...]] = get_args(PrecisionChoice)


class PlacedFactory(TileModelFactory, Protocol):
    """A factory that says where and how exactly it computes."""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        ...

    @property
    def precision(self) -> str:
        """Arithmetic."""
        ...


def resnet_weights(work: Path) -> Path:
    """Return the file of ResNet-18's random weights, made unless it is there."""
    path = work / f"{RESNET}.safetensors"
    save_resnet18(path)
    return path


def encoder(
    name: EncoderName,
    work: Path,
    *,
    precision: PrecisionChoice = "fp32",
    compiled: bool = False,
    device: DeviceChoice = "auto",
    batch_size: int = 32,
) -> PlacedFactory:
    """Return the factory of an encoder.

    Parameters
    ----------
    name
        ``near-free``; ``resnet18`` at 256 px or ``vit-base`` (ViT-B/16) at its 224 px, with random weights.
    work
        Folder that keeps the weights.
    precision, compiled
        Of the networks; the near-free encoder is what it is.
    device
        ``auto`` takes a GPU where there is one.
    batch_size
        Tiles per call.
    """
    if name == "near-free":
        return NearFreeFactory(resolve_tile_device(device, require_gpu=False), batch_size)
    from models.encoder import EncoderFactory, EncoderSpec

    spec = EncoderSpec(
        f"timm:{_VIT}",
        random_weights=True,
        precision=precision,
        compile=compiled,
        device=device,
        batch_size=batch_size,
    )
    if name == "resnet18":
        named = f"timm:{RESNET}@{resnet_weights(work)}"
        spec = replace(spec, name=named, random_weights=False, resize="none")
    return EncoderFactory(spec)
