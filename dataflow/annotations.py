"""Outlines that people drew on a slide: whether they make sense, and the mask that they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import shapely

from store_schema.errors import InputError

Ring: TypeAlias = npt.NDArray[np.float64]
"""float64 (point, 2), (x, y) [px, level 0]; the last point need not repeat the first."""

CROSSING_TOLERANCE: Final = 0.01
"""Share of its area up to which an outline may be in doubt: hands often leave a tiny loop where they close one."""

_REACH: Final = 0.01  # of the slide's longer side: how far beyond the border an outline may reach


@dataclass(frozen=True)
class Annotation:
    """What somebody outlined.

    Attributes
    ----------
    name
        For messages, e.g. ``annotation 3 (tumor)``.
    polygons
        Each a sequence of rings: what is in the first and in none of the others.
    cut_out
        Whether its area is taken away from that of the others.
    """

    name: str
    polygons: tuple[tuple[Ring, ...], ...]
    cut_out: bool = False


def checked_crossings(annotations: Sequence[Annotation], path: Path) -> tuple[str, ...]:
    """Refuse annotations that cross themselves, and tell of those that do in a tiny part only.

    An outline that touches itself at a point, or runs back along itself, is no problem: what it encloses is clear.

    Parameters
    ----------
    annotations, path
        What was read, and where from.

    Returns
    -------
    tuple
        Sentences about outlines of which at most :data:`CROSSING_TOLERANCE` is in doubt. They are drawn even-odd: what
        an outline goes around twice is outside.

    Raises
    ------
    InputError
        An outline crosses itself, so that it isn't clear what it encloses; names it, and where.
    """
    notes = []
    for annotation in annotations:
        for rings in annotation.polygons:
            for ring in rings:
                where = _crossing(ring)
                if where is None:
                    continue
                doubt = _area_in_doubt(ring)
                said = f"{annotation.name} of {path} crosses itself near ({where[0]:.0f}, {where[1]:.0f})"
                if doubt > CROSSING_TOLERANCE:
                    raise InputError(
                        f"{said}, so that it isn't clear what it encloses: mend the outline in the program that drew it"
                    )
                notes.append(f"{said}, which leaves {doubt:.2%} of its area in doubt")
    return tuple(notes)


def check_reach(annotations: Sequence[Annotation], path: Path, width: int, height: int) -> None:
    """Refuse annotations that reach beyond the slide: they are of another one, shifted, or not in level-0 pixels.

    Parameters
    ----------
    annotations, path
        What was read, and where from.
    width, height
        Size of the slide [px, level 0].

    Raises
    ------
    InputError
        An annotation reaches beyond a border by more than 1 % of the slide's longer side.
    """
    size, reach = np.array([width, height]), _REACH * max(width, height)
    for annotation in annotations:
        for rings in annotation.polygons:
            low, high = rings[0].min(axis=0), rings[0].max(axis=0)
            if (low < -reach).any() or (high > size + reach).any():
                raise InputError(
                    f"{annotation.name} of {path} spans ({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f}, {high[1]:.0f}) "
                    f"and the slide only {width} by {height} px: it is of another slide, shifted, or not in level-0 "
                    "pixels; check which slide and which level it was drawn on"
                )


def draw(
    annotations: Sequence[Annotation], width: int, height: int, px_level0: float
) -> npt.NDArray[np.bool_]:
    """Draw annotations: a pixel is inside if its centre is.

    Parameters
    ----------
    annotations
        Those that add area are drawn first, then those that cut out are taken away, whatever their order.
    width, height
        Size of the slide [px, level 0]; what lies beyond is cut off.
    px_level0
        Side of a pixel of the mask [px, level 0].

    Returns
    -------
    array
        bool (y, x), begins at the slide's origin and covers the slide.
    """
    rows, columns = (max(1, math.ceil(side / px_level0 - 1e-6)) for side in (height, width))
    mask = np.zeros((rows, columns), dtype=bool)
    for annotation in sorted(annotations, key=lambda each: each.cut_out):
        for rings in annotation.polygons:
            # only the part of the mask that the polygon can touch: cheap for thousands of small ones
            low = np.clip(np.floor(rings[0].min(axis=0) / px_level0), 0, None).astype(int)
            high = np.clip(np.ceil(rings[0].max(axis=0) / px_level0), 0, None).astype(int)
            window = mask[low[1] : high[1], low[0] : high[0]]
            if not window.size:
                continue
            insides = [_inside(ring / px_level0 - low, window.shape) for ring in rings]
            inside = insides[0]
            for hole in insides[1:]:
                inside &= ~hole
            if annotation.cut_out:
                window &= ~inside
            else:
                window |= inside
    return mask


def _inside(ring: Ring, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return which pixel centres are inside by the even-odd rule, bool (y, x); ring in pixels, centres at i + 0.5.

    Every edge toggles, in each row whose middle it crosses, all pixels to its right. Polygons that share an edge
    neither overlap nor leave a gap.
    """
    rows, columns = shape
    start, end = ring, np.roll(ring, -1, axis=0)
    low, high = (f(start[:, 1], end[:, 1]) for f in (np.minimum, np.maximum))
    first, last = (np.clip(np.ceil(y - 0.5), 0, rows).astype(np.intp) for y in (low, high))
    counts = last - first
    edge = np.repeat(np.arange(len(ring)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    toggles = np.zeros((rows, columns + 1), dtype=bool)
    column = np.clip(np.ceil(x - 0.5), 0, columns).astype(np.intp)
    np.logical_xor.at(toggles, (row, column), True)
    inside: npt.NDArray[np.bool_] = np.logical_xor.accumulate(toggles, axis=1)[:, :columns]
    return inside


def _crossing(ring: Ring) -> Ring | None:
    """Return a point (x, y) in which two edges of a ring cross, None where there is none."""
    line = shapely.LinearRing(ring)
    if line.is_simple:
        return None
    # where edges cross each other the noded line has a point that the ring hasn't; where they only touch it hasn't
    nodes = shapely.get_coordinates(shapely.node(line))
    known = set(map(tuple, ring.tolist()))
    return next((node for node in nodes if tuple(node.tolist()) not in known), None)


def _area_in_doubt(ring: Ring) -> float:
    """Return the share of what a ring goes around that isn't its main part: more loops, what it goes around twice."""
    parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(shapely.Polygon(ring))))
    areas = [part for part in parts if isinstance(part, shapely.Polygon)]
    around = shapely.union_all([shapely.Polygon(part.exterior) for part in areas]).area
    return 1.0 - max(part.area for part in areas) / around if around else 0.0
