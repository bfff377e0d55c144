"""What tile models take and give: tiles of their size in, finite arrays as declared out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.precision import Precision
from store_schema.errors import ModelError
from store_schema.specs import ArraySpec

Scores: TypeAlias = Mapping[str, npt.NDArray[np.generic]]


def check_tile_size(tiles: Tensor, tile_px: int) -> None:
    """Check that uint8 (n, y, x, rgb) are of the model's size.

    Raises
    ------
    ModelError
        If they are not.
    """
    if tiles.shape[1:3] != (tile_px, tile_px):
        raise ModelError(
            f"The model takes tiles of {tile_px} px and got {tiles.shape[2]} x {tiles.shape[1]} px: use a grid "
            f"of {tile_px} px."
        )


def stored_arrays(
    scores: Mapping[str, Tensor],
    outputs: Mapping[str, ArraySpec],
    precision: Precision,
    model: str,
) -> Scores:
    """Return the declared outputs in their dtypes, on the CPU.

    Parameters
    ----------
    scores
        At least those of ``outputs``.
    outputs
        As the factory declares them.
    precision, model
        What the network computed in, and its checkpoint, for the error.

    Raises
    ------
    ModelError
        If a value is not finite.
    """
    found = {}
    for name, array in outputs.items():
        stored = scores[name].to(getattr(torch, array.dtype))
        if not bool(torch.isfinite(stored).all()):
            raise ModelError(
                f"{name} of {model} is not finite in {precision}: "
                + ("its weights are damaged." if precision == "fp32" else "use --precision fp32.")
            )
        found[name] = stored.cpu().numpy()
    return found
