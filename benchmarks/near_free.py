"""The near-free encoder as the stream takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.networks import NEAR_FREE_DIM, NearFree
from store_schema import names
from store_schema.specs import ArraySpec


@dataclass(frozen=True)
class NearFreeFactory:
    """Makes the near-free encoder on the workers; a ``TileModelFactory`` of dataflow.

    Attributes
    ----------
    device
        ``cpu`` or ``cuda``.
    batch_size
        Tiles per call.
    precision
        Of the linear layer; the pooling is exact.
    """

    device: str = "cpu"
    batch_size: int = 32
    precision: str = "fp32"

    @property
    def name(self) -> str:
        """Name of the features' group."""
        return "near-free"

    @property
    def outputs(self) -> Mapping[str, ArraySpec]:
        """``features`` (tile, feature), float16."""
        attrs = {"long_name": "features of the near-free encoder", "units": "1"}
        return {
            "features": ArraySpec((names.TILE, names.FEATURE), (NEAR_FREE_DIM,), "float16", attrs)
        }

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What decides the numbers."""
        return {"encoder": self.name}

    @property
    def needs_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device == "cuda"

    def load(self) -> NearFreeModel:
        """Build the network on its device."""
        return NearFreeModel(self)


class NearFreeModel:
    """The loaded encoder; a ``TileModel`` of dataflow."""

    def __init__(self, factory: NearFreeFactory) -> None:
        self.device = torch.device(factory.device)
        self.batch_size = factory.batch_size
        self._network = NearFree().eval().to(self.device)

    def __call__(self, tiles: torch.Tensor) -> Mapping[str, npt.NDArray[np.generic]]:
        """Encode uint8 (n, y, x, rgb); returns ``features``, float16 (n, 192)."""
        with torch.inference_mode():
            return {"features": self._network(tiles).half().cpu().numpy()}
