"""Training tiles varied as tissue varies by itself: its orientation, and how strongly it is stained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from store_schema.errors import InputError

Tiles = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class AugmentSpec:
    """What may happen to a training tile.

    Attributes
    ----------
    flips, quarter_turns
        Each of a tile's orientations is as likely as the others.
    colour
        Largest relative change of the optical density -log(I / 255) of each channel: I becomes
        255 (I / 255)^g, g uniform within 1 ± colour. Clear glass stays as it is.
    """

    flips: bool = True
    quarter_turns: bool = True
    colour: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.colour < 1:
            raise InputError("The change of colour must be at least 0 and below 1.")


NO_AUGMENTATION = AugmentSpec(flips=False, quarter_turns=False, colour=0.0)


def augment(tiles: Tiles, spec: AugmentSpec, rng: np.random.Generator) -> Tiles:
    """Vary each tile by itself.

    Parameters
    ----------
    tiles
        uint8 (n, y, x, rgb), square; left as they are.
    spec
        What may happen.
    rng
        All that is random; it is drawn from as often whatever ``spec`` says.
    """
    n = len(tiles)
    turns = rng.integers(0, 4, n) * spec.quarter_turns
    mirrored = rng.integers(0, 2, n) * spec.flips
    gamma = 1 + spec.colour * rng.uniform(-1, 1, (n, 3))
    varied = np.empty_like(tiles)
    levels = np.arange(256) / 255
    for i, tile in enumerate(tiles):
        placed = np.rot90(tile, turns[i])
        placed = placed[:, ::-1] if mirrored[i] else placed
        if not spec.colour:
            varied[i] = placed
            continue
        tables = np.rint(255 * levels ** gamma[i, :, None]).astype(np.uint8)  # (rgb, level)
        for channel in range(3):
            varied[i, ..., channel] = tables[channel][placed[..., channel]]
    return varied
