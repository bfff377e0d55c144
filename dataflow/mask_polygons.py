"""The regions of a mask as polygons: its exact outlines, with holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage


@dataclass(frozen=True)
class Region:
    """One piece of a mask.

    Attributes
    ----------
    value
        What its pixels hold.
    shape
        Its outline with holes [px, level 0], valid after the OGC Simple Features (06-103r4): a polygon, or several
        that touch at corners.
    """

    value: int
    shape: shapely.Polygon | shapely.MultiPolygon


def mask_regions(
    mask: npt.NDArray[np.integer],
    px_level0: float,
    origin_level0: tuple[float, float] = (0.0, 0.0),
) -> list[Region]:
    """Return the regions of a mask, those of the least value first, then from top to bottom.

    Pixels of one value that share an edge or a corner are one region, as morphology counts them by default. Those that
    share a corner only are two polygons of it, since one ring around both would cross itself.

    Parameters
    ----------
    mask
        Integer (y, x), 0 is outside.
    px_level0
        Side of its pixels [px, level 0].
    origin_level0
        (x, y) of its top-left corner [px, level 0].
    """
    found = []
    x0, y0 = origin_level0
    for value in np.unique(mask[mask != 0]):
        inside = np.pad(mask == value, 1)
        # in whole pixels, so that nothing is rounded where borders meet
        faces = shapely.get_parts(shapely.polygonize(_borders(inside)))
        at = shapely.get_coordinates(shapely.point_on_surface(faces)).astype(np.intp)
        labels, n_regions = ndimage.label(inside, structure=np.ones((3, 3)))
        region_of = labels[at[:, 1] + 1, at[:, 0] + 1]  # 0: holes
        scaled = shapely.transform(
            shapely.orient_polygons(faces), lambda corners: corners * px_level0 + (x0, y0)
        )
        for label in range(1, n_regions + 1):
            parts = scaled[region_of == label]
            shape = parts[0] if len(parts) == 1 else shapely.multipolygons(parts)
            found.append(Region(int(value), shape))
    return found


def _borders(padded: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return the straight borders between set and other pixels, from one corner or crossing to the next.

    Parameters
    ----------
    padded
        bool (y, x), with a frame of unset pixels, which the coordinates don't count.
    """
    # [y, x] is the border above, or on the left, of pixel (x, y)
    above = padded[1:, 1:] != padded[:-1, 1:]
    left = padded[1:, 1:] != padded[1:, :-1]
    # corners (x, y) where an upright border begins, ends or crosses; and so for level ones
    upright = left | np.pad(left, ((1, 0), (0, 0)))[:-1]
    level = above | np.pad(above, ((0, 0), (1, 0)))[:, :-1]
    y, x0 = np.nonzero(above & upright)
    _, x1 = np.nonzero(above[:, :-1] & upright[:, 1:])
    across = np.stack([np.stack([x0, y], axis=1), np.stack([x1 + 1, y], axis=1)], axis=1)
    x, y0 = np.nonzero((left & level).T)
    _, y1 = np.nonzero((left[:-1] & level[1:]).T)
    down = np.stack([np.stack([x, y0], axis=1), np.stack([x, y1 + 1], axis=1)], axis=1)
    lines: npt.NDArray[Any] = shapely.linestrings(np.concatenate([across, down]).astype(float))
    return lines
