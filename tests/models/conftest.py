"""Real stained tissue for the encoders, shipped by a dependency."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch


@pytest.fixture(scope="session")
def tiles() -> torch.Tensor:
    """Return uint8 (32, 96, 96, rgb) of an immunohistochemistry image."""
    image = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
    corners = np.random.default_rng(0).integers(0, 416, (32, 2))
    return torch.from_numpy(np.stack([image[y : y + 96, x : x + 96] for y, x in corners]))
