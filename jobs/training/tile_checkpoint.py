"""Where the model of a run lies, and what tiles it is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dataflow.stream_spec import ModelSlides
from jobs.tile_model_settings import GridCheck
from jobs.training.tile_scale import TileScale
from models.fit import checkpoint_paths
from store_schema.errors import InputError, ModelError
from store_schema.specs import GridSpec

VAE_SLIDES: Final = "vae_slides"
"""Key of what a head was trained on: the slides of the VAE that it stands on."""


def checkpoint_of(run: str) -> Path:
    """Return the checkpoint of a run directory, or the file that was given.

    Raises
    ------
    ModelError
        There is nothing such, or the run isn't finished.
    """
    path = Path(run).expanduser().absolute()
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
    raise ModelError(f"{run} has no trained model: give the run directory of a training.")


def scale_of(description: Mapping[str, Any]) -> TileScale:
    """Return which tiles a checked description is of."""
    mpp = description["mpp"]
    return TileScale(int(description["tile_px"]), None if mpp is None else float(mpp))


def scale_check(checkpoint: str, wanted: TileScale, *, allow_other_mpp: bool) -> GridCheck:
    """Return what refuses grids of another tile size or, unless that is allowed, of another pixel size.

    Parameters
    ----------
    checkpoint
        Of the model, for the sentence.
    wanted
        Which tiles it was trained on.
    allow_other_mpp
        Take tiles of another pixel size.
    """

    def check(grid: GridSpec) -> None:
        found = TileScale(grid.tile_px, grid.mpp)
        said = f"{checkpoint} was trained on {wanted}, and the grid {grid.name} has {found}"
        if found.tile_px != wanted.tile_px:
            raise InputError(f"{said}: make a grid with {wanted.making}.")
        if not (wanted.same_mpp(found) or allow_other_mpp):
            raise InputError(
                f"{said}: make a grid with {wanted.making}, or add --allow-other-grid."
            )

    return check


def model_slides(description: Mapping[str, Any]) -> ModelSlides | None:
    """Return the slides of a training, of a head with those of the VAE under it; None where they aren't known.

    Parameters
    ----------
    description
        As a training on tiles left it.
    """
    own = description.get("trained_on", {})
    stages = (own, own.get(VAE_SLIDES, {}))
    train, val = (
        frozenset(str(slide_id) for stage in stages for slide_id in stage.get(part, ()))
        for part in ("train_slides", "val_slides")
    )
    return ModelSlides(train, val) if train else None
