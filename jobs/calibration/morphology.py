"""Flagged tiles made into regions: tumours grow in one piece, and single tiles are mostly false alarms."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Connectivity: TypeAlias = Literal[4, 8]
Lattice: TypeAlias = npt.NDArray[np.bool_]

_DUAL: dict[Connectivity, Connectivity] = {4: 8, 8: 4}


@dataclass(frozen=True)
class MorphologySpec:
    """What is done to the flagged tiles of a slide, in the order of the attributes.

    Attributes
    ----------
    opening, closing
        Radius of a binary opening, then of a closing [tiles]; 0 does none. The footprint is a square of
        ``2 · radius + 1`` tiles a side for connectivity 8, the diamond of that diameter for 4.
    min_tiles
        Components of fewer tiles are dropped; 1 keeps all.
    fill_holes
        Whether tiles that flagged ones enclose are flagged, too.
    connectivity
        Of components: 8 joins tiles that touch at a corner, 4 only those that share an edge. Holes have the dual
        one, so that a line of tiles which is one component is closed for what it encloses.
    """

    opening: int = 0
    closing: int = 0
    min_tiles: int = 5
    fill_holes: bool = True
    connectivity: Connectivity = 8

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides the result, JSON-able."""
        return asdict(self)


def cleaned(flagged: Lattice, has_tile: Lattice, spec: MorphologySpec) -> Lattice:
    """Open, close, drop small components, fill holes.

    A place of the lattice without a tile (no tissue) is background like all that lies around the lattice, and is
    never flagged: there is nothing that was scored. So a hole may contain such places; its tiles are filled, they
    stay as they are. What a gap in the tissue joins to the outside is no hole, unless flagged tiles enclose both.

    Parameters
    ----------
    flagged
        bool (row, col), within ``has_tile``.
    has_tile
        bool (row, col), places of the grid's tiles.
    spec
        What to do.

    Returns
    -------
    array
        bool (row, col).
    """
    mask = flagged & has_tile
    # wide enough that neither step meets the array's end, where it would not be what it is on the plane
    margin = max(spec.opening, spec.closing) + 1
    mask = np.pad(mask, margin)
    within = np.pad(has_tile, margin)
    near = _structure(spec.connectivity)
    if spec.opening:
        mask = ndimage.binary_opening(mask, near, iterations=spec.opening)
    if spec.closing:
        mask = ndimage.binary_closing(mask, near, iterations=spec.closing) & within
    if spec.min_tiles > 1:
        mask = _without_small(mask, spec.min_tiles, near)
    if spec.fill_holes:
        mask = ndimage.binary_fill_holes(mask, _structure(_DUAL[spec.connectivity])) & within
    inner: Lattice = mask[margin:-margin, margin:-margin]
    return inner


def cleaned_tiles(
    flagged: npt.NDArray[np.bool_],
    row: npt.NDArray[np.integer],
    col: npt.NDArray[np.integer],
    lattice_shape: tuple[int, int],
    spec: MorphologySpec,
) -> Lattice:
    """Return the mask that flagged tiles make, bool (row, col).

    Parameters
    ----------
    flagged
        bool (tile,).
    row, col
        int (tile,), places in the lattice. Where tiles share one, it is flagged if any of them is.
    lattice_shape
        Number of rows and columns.
    spec
        What to do.
    """
    has_tile = np.zeros(lattice_shape, dtype=bool)
    has_tile[row, col] = True
    mask = np.zeros(lattice_shape, dtype=bool)
    mask[row[flagged], col[flagged]] = True
    return cleaned(mask, has_tile, spec)


def _structure(connectivity: Connectivity) -> Lattice:
    structure: Lattice = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    return structure


def _without_small(mask: Lattice, min_tiles: int, near: Lattice) -> Lattice:
    labels, n_components = ndimage.label(mask, near)
    sizes = np.bincount(labels.ravel(), minlength=n_components + 1)
    keep = sizes >= min_tiles
    keep[0] = False  # the background
    kept: Lattice = keep[labels]
    return kept
