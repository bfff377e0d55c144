"""A small, realistic slide made on the spot, for the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree
from skimage import data

from dataflow.pyramid_tiff import write_pyramid

DEMO_MPP: Final = 0.5  # [µm/px, level 0]
_COARSE_PX: Final = 8  # outlines are drawn on a raster of this pixel size


def write_demo_slide(path: str | Path) -> None:
    """Write :func:`demo_image` as a pyramidal TIFF at 0.5 µm/px, about 8 MB."""
    write_pyramid(path, demo_image(), DEMO_MPP)


def demo_image(width_px: int = 6000, height_px: int = 5000, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Make level 0 of a slide: pieces of real tissue with irregular outlines on white glass.

    The tissue is the immunohistochemistry picture that scikit-image ships (colon, DAB and
    haematoxylin; by Dr. P. Bankhead), in pieces that are mirrored, turned and shifted at random.

    Parameters
    ----------
    width_px, height_px
        Size [px].
    seed
        Of the outlines and of the arrangement.

    Returns
    -------
    array
        uint8 (height_px, width_px, 3). Meant as 0.5 µm/px.
    """
    rng = np.random.default_rng(seed)
    patch: npt.NDArray[np.uint8] = data.immunohistochemistry()  # type: ignore[no-untyped-call]
    tissue = _quilt(patch, width_px, height_px, rng)
    inside = _outlines(width_px, height_px, rng)
    glass = rng.integers(242, 248, (height_px, width_px, 1), dtype=np.uint8)
    return np.where(inside[..., None], tissue, glass)


def _quilt(
    patch: npt.NDArray[np.uint8], width_px: int, height_px: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Fill an area with irregular cells of the patch, each turned and shifted in its own way."""
    mirrored = np.concatenate([patch, patch[:, ::-1]], axis=1)  # edges meet themselves
    mirrored = np.concatenate([mirrored, mirrored[::-1]], axis=0)
    period_px = mirrored.shape[0]
    cells = _cells(width_px, height_px, rng)
    filled = np.empty((height_px, width_px, 3), np.uint8)
    for cell, (rows, columns) in enumerate(ndimage.find_objects(cells + 1)):
        source = np.rot90(mirrored, int(rng.integers(4)))
        shift_x, shift_y = rng.integers(0, period_px, 2)
        row = (np.arange(rows.start, rows.stop) + shift_y) % period_px
        column = (np.arange(columns.start, columns.stop) + shift_x) % period_px
        inside = cells[rows, columns] == cell
        filled[rows, columns][inside] = source[row[:, None], column][inside]
    return filled


def _cells(width_px: int, height_px: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Part an area into irregular cells: nearest of jittered seeds, with wavering borders."""
    spacing_px = 640
    y, x = (axis * _COARSE_PX for axis in np.indices(_coarse_shape(width_px, height_px)))
    noise = rng.normal(size=(2, *y.shape))
    waver_y, waver_x = ndimage.gaussian_filter(noise, (0, 6, 6)) * 12 * 60  # about 30 px
    seeds_y, seeds_x = np.mgrid[0 : height_px + 1 : spacing_px, 0 : width_px + 1 : spacing_px]
    jitter = rng.uniform(-0.45, 0.45, (2, seeds_y.size)) * spacing_px
    seeds = np.stack([seeds_y.ravel() + jitter[0], seeds_x.ravel() + jitter[1]], axis=1)
    places = np.stack([(y + waver_y).ravel(), (x + waver_x).ravel()], axis=1)
    nearest = KDTree(seeds).query(places)[1]
    _, cells = np.unique(nearest, return_inverse=True)
    return _enlarged(cells.reshape(y.shape).astype(np.int32), width_px, height_px)


def _outlines(width_px: int, height_px: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Draw two pieces of tissue: ellipses whose radius wavers smoothly."""
    y, x = (axis * _COARSE_PX for axis in np.indices(_coarse_shape(width_px, height_px)))
    inside = np.zeros(y.shape, np.int32)
    pieces = ((0.34, 0.45, 0.24, 0.32), (0.76, 0.58, 0.15, 0.24))  # centre x, y; radius x, y
    for centre_x, centre_y, radius_x, radius_y in pieces:
        u = (x / width_px - centre_x) / radius_x
        v = (y / height_px - centre_y) / radius_y
        angle = np.arctan2(v, u)
        radius = np.ones_like(u)
        for k in range(2, 12):
            radius += rng.normal(0, 0.14 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
        inside |= np.hypot(u, v) < radius
    return _enlarged(inside, width_px, height_px) > 0


def _coarse_shape(width_px: int, height_px: int) -> tuple[int, int]:
    return -(-height_px // _COARSE_PX), -(-width_px // _COARSE_PX)


def _enlarged(
    coarse: npt.NDArray[np.int32], width_px: int, height_px: int
) -> npt.NDArray[np.int32]:
    large = coarse.repeat(_COARSE_PX, axis=0).repeat(_COARSE_PX, axis=1)
    return large[:height_px, :width_px]
