"""The seam between registry and model libraries: where a network and its weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import nn

from models.cards import EncoderCard


class EncoderSource(Protocol):
    """One encoder that can be built. Small, and without weights of its own."""

    @property
    def card(self) -> EncoderCard:
        """What is known about the encoder; does not read weights."""
        ...

    @property
    def label(self) -> str:
        """Name for groups and provenance: no path, no machine in it."""
        ...

    def weights(self) -> Path:
        """Return the weights' file; ModelError when it can't be had."""
        ...

    def network(self, weights: Path | None) -> nn.Module:
        """Build the network.

        Parameters
        ----------
        weights
            File to load; None leaves the random initialization, drawn from torch's default
            generator.

        Returns
        -------
        torch.nn.Module
            float32 (n, 3, y, x) → (n, dim), normalized input, in no particular mode or device.
        """
        ...
