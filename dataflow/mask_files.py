"""Masks that somebody else made: an image of any scale, or GeoJSON polygons in level-0 pixels."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.draw import polygon2mask

from store_schema.errors import InputError

_GEOJSON: Final = (".geojson", ".json")


def read_mask_file(
    path: Path, width: int, height: int, px_level0: float
) -> tuple[npt.NDArray[np.uint8], float]:
    """Read a mask of a slide.

    Parameters
    ----------
    path
        ``.geojson`` or ``.json``, or an image that Pillow reads.
    width, height
        Size of the slide [px, level 0].
    px_level0
        Wanted size of a mask pixel [px, level 0].

    Returns
    -------
    tuple
        uint8 (y, x), 1 is tissue; and the size of its pixels [px, level 0]: as wanted for
        polygons; for an image, what comes close to it by repeating or pooling whole pixels, so
        that the image's own borders stay exact.

    Raises
    ------
    InputError
        The file can't be read, or doesn't fit the slide.
    """
    if not path.is_file():
        raise InputError(f"the mask {path} isn't there; check the path")
    if path.suffix.lower() in _GEOJSON:
        return _from_geojson(path, width, height, px_level0), px_level0
    return _from_image(path, width, height, px_level0)


def read_mask_image(path: Path, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Read a mask image of a slide as it is; what isn't black (nor transparent) is inside.

    Parameters
    ----------
    path
        An image that Pillow reads.
    width, height
        Size of the slide [px, level 0]; the image covers all of it.

    Returns
    -------
    array
        bool (y, x), in the image's own pixels.

    Raises
    ------
    InputError
        The file can't be read, or doesn't have the slide's proportions.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                mode, pixels = image.mode, np.asarray(image)
    except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"the mask {path} can't be read as an image: {error}") from error
    if mode in ("RGBA", "LA"):
        pixels = pixels[..., :-1] * (pixels[..., -1:] > 0)
    mask: npt.NDArray[np.bool_] = (pixels.reshape(*pixels.shape[:2], -1) != 0).any(axis=2)
    rows, columns = mask.shape
    # each side may be rounded to whole pixels, in the mask and in the slide
    if abs(height * columns / width - rows) > 1.0 + 0.005 * rows:
        raise InputError(
            f"the mask {path} ({columns} by {rows} px) doesn't have the proportions of the slide "
            f"({width} by {height} px); give a mask of the whole slide"
        )
    return mask


def _from_image(
    path: Path, width: int, height: int, px_level0: float
) -> tuple[npt.NDArray[np.uint8], float]:
    mask = read_mask_image(path, width, height)
    rows, columns = mask.shape
    own_px = width / columns
    if own_px > px_level0:
        times = math.ceil(own_px / px_level0)
        return mask.repeat(times, axis=0).repeat(times, axis=1).astype(np.uint8), own_px / times
    times = max(1, math.floor(px_level0 / own_px))
    padded = np.pad(mask, ((0, -rows % times), (0, -columns % times)))
    pooled = padded.reshape(padded.shape[0] // times, times, -1, times).mean(axis=(1, 3))
    return (pooled >= 0.5).astype(np.uint8), own_px * times


def _from_geojson(path: Path, width: int, height: int, px_level0: float) -> npt.NDArray[np.uint8]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the mask {path} can't be read as GeoJSON: {error}") from error
    shape = (math.ceil(height / px_level0 - 1e-6), math.ceil(width / px_level0 - 1e-6))
    mask = np.zeros((max(shape[0], 1), max(shape[1], 1)), dtype=bool)
    for rings in _polygons(data, path):
        _draw(mask, rings, px_level0, path)
    return mask.astype(np.uint8)


def _polygons(node: Any, path: Path) -> list[Any]:
    """All polygons, each a list of rings, of any GeoJSON object."""
    kind = node.get("type") if isinstance(node, dict) else None
    try:
        if kind == "FeatureCollection":
            return [rings for feature in node["features"] for rings in _polygons(feature, path)]
        if kind == "GeometryCollection":
            return [rings for part in node["geometries"] for rings in _polygons(part, path)]
        if kind == "Feature":
            return [] if node["geometry"] is None else _polygons(node["geometry"], path)
        if kind == "Polygon":
            return [node["coordinates"]]
        if kind == "MultiPolygon":
            return list(node["coordinates"])
    except (KeyError, TypeError) as error:
        raise InputError(f"the mask {path} isn't valid GeoJSON: a {kind} lacks {error}") from error
    if isinstance(node, list):  # QuPath writes a bare list of features
        return [rings for feature in node for rings in _polygons(feature, path)]
    raise InputError(
        f"the mask {path} holds a {kind or 'value'} where only polygons can be tissue; export the "
        "annotations as Polygon or MultiPolygon"
    )


def _draw(mask: npt.NDArray[np.bool_], rings: Any, px_level0: float, path: Path) -> None:
    """Add one polygon: pixels whose centre is in the first ring and in none of the others."""
    corners = []
    try:
        for ring in rings:
            points = np.array([point[:2] for point in ring], dtype=float)
            if len(points) < 3 or not np.isfinite(points).all():
                raise ValueError("a ring needs at least three points, all of them finite")
            corners.append(points / px_level0 - 0.5)  # pixel i has its centre at i + 0.5
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"the mask {path} has a polygon that can't be drawn: {error}") from error
    if not corners:
        return
    # only the part of the mask that the polygon can touch: cheap for thousands of small ones
    low = np.clip(np.floor(corners[0].min(axis=0)).astype(int), 0, None)
    high = np.ceil(corners[0].max(axis=0)).astype(int) + 1
    window = mask[low[1] : max(high[1], 0), low[0] : max(high[0], 0)]
    if window.size == 0:
        return
    insides = [
        polygon2mask(window.shape, (points - low)[:, ::-1])  # type: ignore[no-untyped-call]
        for points in corners
    ]
    window |= insides[0] & ~np.any(insides[1:], axis=0) if len(insides) > 1 else insides[0]
