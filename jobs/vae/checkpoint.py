"""Where the model of a run lies, and what tiles it is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.vae.tile_scale import TileScale
from models.fit import checkpoint_paths
from store_schema.errors import ModelError


def checkpoint_of(run: str) -> Path:
    """Return the checkpoint of a run directory, or the file that was given.

    Raises
    ------
    ModelError
        There is nothing such, or the run isn't finished.
    """
    path = Path(run)
    if not path.is_dir():
        return path
    checkpoint, last = checkpoint_paths(path)
    # the description comes last: without it training goes on, or was stopped
    if checkpoint.with_suffix(".json").is_file():
        return checkpoint
    if last.is_file():
        raise ModelError(
            f"{run} is not finished: run its command with this --run-dir again to finish it."
        )
    raise ModelError(f"{run} has no trained model: give the run directory of `vae train`.")


def scale_of(description: Mapping[str, Any]) -> TileScale:
    """Return which tiles a checked description is of."""
    mpp = description["mpp"]
    return TileScale(int(description["tile_px"]), None if mpp is None else float(mpp))
