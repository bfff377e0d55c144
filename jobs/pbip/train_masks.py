"""True classes of the pixels of validation tiles, from the truth of their slides."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from jobs.evaluation.truth import Truth
from jobs.pbip.train_labels import TruthLabels
from jobs.pbip.weak_tiles import StoreWeakTiles
from models.weak_tiles import UNKNOWN

Masks = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class StoredMasks:
    """Masks of all validation tiles; a ``TileMasks`` of models.

    Attributes
    ----------
    masks
        uint8 (tile, y, x): a class's index, 255 where nothing is known.
    """

    masks: Masks = field(repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the masks."""
        return hashlib.blake2b(np.ascontiguousarray(self.masks).data, digest_size=16).hexdigest()

    def read_masks(self, indices: npt.NDArray[np.int64]) -> Masks:
        """Return the masks of some tiles: uint8 (n, y, x)."""
        return self.masks[indices]

    def floor(self, class_names: tuple[str, ...]) -> dict[str, float]:
        """Return the IoU of each class where every pixel is taken for it: its share of what is known."""
        known = self.masks[self.masks != UNKNOWN]
        return {name: float(np.mean(known == k)) for k, name in enumerate(class_names)}


def read_masks(tiles: StoreWeakTiles, labeller: TruthLabels, side_px: int) -> StoredMasks | None:
    """Read the masks of all tiles; None where the truth knows tiles alone, and no pixels.

    Parameters
    ----------
    tiles
        Of validation.
    labeller
        The truth, and which slides need none since they are negative.
    side_px
        Side of the masks [px], of each pixel the class at its centre.

    Raises
    ------
    InputError
        The truth of a slide can't be read or doesn't fit it: a mask of other proportions, annotations beyond it.
    """
    parts = [_of_slide(tiles, number, labeller, side_px) for number in range(len(tiles.slides))]
    if not any(is_known for _, is_known in parts):
        return None
    return StoredMasks(np.concatenate([masks for masks, _ in parts]))


def _of_slide(
    tiles: StoreWeakTiles, number: int, labeller: TruthLabels, side_px: int
) -> tuple[Masks, bool]:
    """Return uint8 (tile, y, x) of a slide, and whether its truth is known."""
    labelled = tiles.slides[number]
    truth: Truth = labeller.truth
    mask = truth.mask(labelled.slide.record)
    shape = (len(labelled.tiles), side_px, side_px)
    if mask is None:
        nothing = labeller.negative if labeller.is_negative(labelled.slide) else UNKNOWN
        return np.full(shape, nothing, np.uint8), False
    step = tiles.tile_level0(number) / side_px
    centres = (np.arange(side_px) + 0.5) * step
    of_slide = tiles.slide_of == number
    masks = np.empty(shape, np.uint8)
    for row, (x, y) in enumerate(zip(tiles.x[of_slide], tiles.y[of_slide], strict=True)):
        masks[row] = mask.at(x + centres, y + centres) ^ bool(labeller.negative)
    return masks, True
