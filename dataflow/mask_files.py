"""Masks that somebody else made: an image of any scale, or annotations in level-0 pixels."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openslide
from PIL import Image

from dataflow.annotation_files import ANNOTATION_SUFFIXES, EXCLUDED, read_annotations
from dataflow.annotations import checked_crossings, draw
from store_schema.errors import InputError

_MOST_PX: Final = 32_000_000  # of a mask that is too large to be read whole: 128 MB as RGBA


def read_mask_file(
    path: Path, width: int, height: int, px_level0: float
) -> tuple[npt.NDArray[np.uint8], float]:
    """Read a mask of a slide.

    Parameters
    ----------
    path
        Annotations (GeoJSON, or ASAP's ``.xml``), or an image.
    width, height
        Size of the slide [px, level 0].
    px_level0
        Wanted size of a mask pixel [px, level 0].

    Returns
    -------
    tuple
        uint8 (y, x), 1 is tissue; and the size of its pixels [px, level 0]: as wanted for
        annotations; for an image, what comes close to it by repeating or pooling whole pixels, so
        that the image's own borders stay exact.

    Raises
    ------
    InputError
        The file can't be read, or doesn't fit the slide.
    """
    if not path.is_file():
        raise InputError(f"the mask {path} isn't there; check the path")
    if path.suffix.lower() in ANNOTATION_SUFFIXES:
        annotations = read_annotations(path, EXCLUDED)
        checked_crossings(annotations, path)
        return draw(annotations, width, height, px_level0).astype(np.uint8), px_level0
    return _from_image(path, width, height, px_level0)


def read_mask_image(path: Path, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Read a mask image of a slide as it is; what isn't black (nor transparent, nor NaN) is inside.

    Of a JPEG, which blurs black at each edge, it is what has at least half of the greatest brightness.

    Parameters
    ----------
    path
        An image that Pillow reads; a larger one may be a pyramidal TIFF, of which the finest level of at most 32 Mpx
        is taken.
    width, height
        Size of the slide [px, level 0]; the image covers all of it.

    Returns
    -------
    array
        bool (y, x), in the image's own pixels, or those of its level.

    Raises
    ------
    InputError
        The file can't be read, or doesn't have the slide's proportions.
    """
    mode, pixels = _pixels(path)
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


def _pixels(path: Path) -> tuple[str, npt.NDArray[Any]]:
    """Return mode and pixels of an image, (y, x) or (y, x, channel)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.mode, _without_noise(np.asarray(image), image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "RGBA", _level(path)
    except OSError as error:
        raise InputError(f"the mask {path} can't be read as an image: {error}") from error


def _without_noise(pixels: npt.NDArray[Any], image: Image.Image) -> npt.NDArray[Any]:
    """Return the pixels with 0 where there is nothing, but for what a lossy format made of it."""
    if np.issubdtype(pixels.dtype, np.floating):
        return np.where(np.isnan(pixels), 0, pixels)
    if "jpeg" in (str(image.format).lower(), image.info.get("compression")):
        return np.where(pixels >= pixels.max() / 2, pixels, 0)
    return pixels


def _level(path: Path) -> npt.NDArray[np.uint8]:
    """Return a level of a pyramid, uint8 (y, x, rgba): what was never written is transparent there, so outside."""
    try:
        with openslide.OpenSlide(path) as pyramid:
            sizes = pyramid.level_dimensions
            level = next((i for i, (w, h) in enumerate(sizes) if w * h <= _MOST_PX), None)
            if level is not None:
                return np.asarray(pyramid.read_region((0, 0), level, sizes[level]))
    except openslide.OpenSlideError:
        pass  # said below: it isn't a pyramid
    raise InputError(
        f"the mask {path} is too large to be read whole, and no level of it is small enough: save it at a coarser "
        "scale, or as a tiled, pyramidal TIFF"
    )


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
