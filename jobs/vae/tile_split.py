"""Which tiles train and which validate: whole slides or patients on one side, as far as they are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.mil.splits import Split
from jobs.vae.prepared_tiles import PreparedTiles
from store_schema.errors import InputError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TileSplit:
    """Rows of the prepared tiles.

    Attributes
    ----------
    train, val
        int64 (n,), each row on one side at most.
    by
        ``file`` (of splits), ``patient``, ``slide``, or ``tile``.
    """

    train: Rows
    val: Rows
    by: str


def split_tiles(
    tiles: PreparedTiles,
    split: Split | None,
    val_fraction: float,
    seed: int,
    *,
    parts_are_slides: bool,
) -> TileSplit:
    """Split the tiles.

    Parameters
    ----------
    tiles
        All of them.
    split
        Slides of both sides; None draws.
    val_fraction
        Share of the tiles that is to validate; as close to it as whole groups come. Tiles of no group are drawn one by
        one. Groups with tumour tiles are drawn apart from those without.
    seed
        Of what is drawn.
    parts_are_slides
        Whether tiles are told apart by slide, so that a group of another name is a patient; else groups are slides.

    Raises
    ------
    InputError
        One of the sides has no tiles.
    """
    if split is not None:
        sides = [
            np.flatnonzero(np.isin(tiles.parts, members)).astype(np.int64)
            for members in (split.train, split.val)
        ]
        return _checked(TileSplit(sides[0], sides[1], "file"), len(tiles))
    named = set(tiles.groups) - {""}
    by_group = len(named) > 1 or (len(named) == 1 and "" in tiles.groups)
    numbers: dict[str | int, int] = {}
    # a tile of no group is a group of its own, and so is each where all are of one
    group_of = np.array(
        [
            numbers.setdefault(group if by_group and group else row, len(numbers))
            for row, group in enumerate(tiles.groups)
        ],
        np.int64,
    )
    rng = np.random.default_rng(seed)
    n_tiles, n_tumour = np.bincount(group_of), np.bincount(group_of, weights=tiles.labels)
    in_val = np.zeros(len(n_tiles), np.bool_)
    for stratum in (np.flatnonzero(n_tumour == 0), np.flatnonzero(n_tumour > 0)):
        in_val[_drawn(rng.permutation(stratum), n_tiles, val_fraction)] = True
    val = in_val[group_of]
    by = "tile"
    if by_group:
        of_patients = parts_are_slides and tiles.groups != tiles.parts
        by = "patient" if of_patients else "slide"
    return _checked(TileSplit(np.flatnonzero(~val), np.flatnonzero(val), by), len(tiles))


def _drawn(shuffled: Rows, n_tiles: npt.NDArray[np.int64], val_fraction: float) -> Rows:
    """Return the first groups that come closest to the share; one at least, and not all."""
    if len(shuffled) < 2:
        return shuffled[:0]
    so_far = np.cumsum(n_tiles[shuffled])
    nearest = int(np.argmin(np.abs(so_far[:-1] - val_fraction * so_far[-1])))
    return shuffled[: nearest + 1]


def _checked(split: TileSplit, n_tiles: int) -> TileSplit:
    for name, rows in (("train", split.train), ("validate", split.val)):
        if not len(rows):
            raise InputError(
                f"Of {n_tiles} tiles none is left to {name}: give more tiles, slides or patients."
            )
    return split
