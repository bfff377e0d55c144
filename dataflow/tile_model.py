"""The seam between the stream and every model: encoders, VAE scorers and segmenters are all tile models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from store_schema.specs import ArraySpec


class TileModel(Protocol):
    """A loaded model, living on one device of one worker process."""

    @property
    def device(self) -> torch.device:
        """Where tiles are to be put before the call."""
        ...

    @property
    def batch_size(self) -> int:
        """Tiles per call."""
        ...

    def __call__(self, tiles: torch.Tensor) -> Mapping[str, npt.NDArray[np.generic]]:
        """Run the model on one batch.

        Parameters
        ----------
        tiles
            uint8 (n, y, x, rgb) on ``device``; stain-normalized, otherwise as read.

        Returns
        -------
        mapping
            One array (n, …) per declared output.
        """
        ...


class TileModelFactory(Protocol):
    """What travels to the workers: small, picklable, hashable, and enough to plan and to claim a group.

    It must not hold weights; ``load`` finds them on the worker.
    """

    def __hash__(self) -> int:
        """Workers keep one loaded model for each factory."""
        ...

    @property
    def name(self) -> str:
        """Name of the group that the outputs go to, e.g. ``efficientnet-lite0``."""
        ...

    @property
    def outputs(self) -> Mapping[str, ArraySpec]:
        """The arrays that the model makes, by name."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What decides the numbers: weights digest, preprocessing, precision, dtype. JSON-able."""
        ...

    @property
    def needs_gpu(self) -> bool:
        """Whether tasks must be placed on workers with a GPU resource."""
        ...

    def load(self) -> TileModel:
        """Load the weights and put the model on its device; called once per worker process."""
        ...
