"""Settings of the VAE that belong together, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from models.vae import VaeConfig
from models.vae_loss import VaeLossSpec


@dataclass(frozen=True)
class VaePreset:
    """Settings that belong together.

    Attributes
    ----------
    config, loss
        Of the network and its loss.
    epochs, patience
        Of the training; a patience of None does not stop early.
    batch_size
        Tiles a step.
    """

    config: VaeConfig
    loss: VaeLossSpec
    epochs: int = 20
    patience: int | None = None
    batch_size: int = 256


B1: Final = VaePreset(VaeConfig(), VaeLossSpec())
B2: Final = VaePreset(
    VaeConfig(skip_dropout=0.5), VaeLossSpec(beta=0.5, capacity=200.0), patience=5
)

PRESETS: Final[Mapping[str, VaePreset]] = MappingProxyType({"b1": B1, "b2": B2})
"""The experiments B1 and B2 of the document that this follows."""
