"""The slides of the benchmarks: real stained pixels, made here, once, into a folder.

A quilt of turned copies of ``skimage.data.immunohistochemistry()`` (512 x 512 px), written as scanners write: JPEG
tiles of 256 px, quality 80, colours 4:2:0, and two coarse levels. The slide of the tables is 20,480 px square: 6,400
tiles, 105 MB.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dataflow.pyramid_tiff import write_pyramid

TILE_PX: Final = 256
MPP: Final = 0.5
FULL_TILES: Final = 6_400
QUALITY: Final = 80
_DOWNSAMPLES: Final = (1, 4, 16)


def default_work() -> Path:
    """Return the folder that keeps slides and environments from one run to the next."""
    return Path(tempfile.gettempdir()) / "slidestream-benchmarks"


def stained_pixels() -> npt.NDArray[np.uint8]:
    """Return uint8 (512, 512, rgb), the picture that all slides are made of."""
    from skimage import data

    return np.asarray(data.immunohistochemistry(), dtype=np.uint8)  # type: ignore[no-untyped-call]


def benchmark_slide(folder: Path, n_tiles: int = FULL_TILES) -> Path:
    """Return the slide of about ``n_tiles`` tiles, made unless it is there.

    Parameters
    ----------
    folder
        Where slides are kept; made when it is missing.
    n_tiles
        Rounded to a square of whole tiles.

    Returns
    -------
    Path
        A TIFF of 0.5 µm/px.
    """
    side = max(1, round(n_tiles**0.5))
    path = folder / f"quilt_{side}x{side}.tif"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            # on disk, not in memory: the full slide is 1.3 GB of pixels
            pixels = np.memmap(
                Path(scratch) / "pixels", np.uint8, "w+", shape=(side * TILE_PX, side * TILE_PX, 3)
            )
            _quilt(pixels, np.random.default_rng(0))
            made = Path(scratch) / path.name
            write_pyramid(made, pixels, MPP, downsamples=_DOWNSAMPLES, quality=QUALITY)
            made.replace(path)
    return path


def small_slides(folder: Path, n_slides: int, side_tiles: int = 6) -> list[Path]:
    """Return ``n_slides`` small slides of different pixels, made unless they are there.

    Parameters
    ----------
    folder
        Where they are kept.
    n_slides
        How many.
    side_tiles
        Tiles along a side.
    """
    folder = folder / f"small_{side_tiles}x{side_tiles}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"s{i:05d}.tif" for i in range(n_slides)]
    side_px = side_tiles * TILE_PX
    for i, path in enumerate(paths):
        if path.is_file():
            continue
        pixels = np.empty((side_px, side_px, 3), np.uint8)
        _quilt(pixels, np.random.default_rng(i + 1))
        made = path.with_suffix(".partial")
        write_pyramid(made, pixels, MPP, downsamples=(1, 16), quality=QUALITY)
        made.replace(path)
    return paths


def _quilt(pixels: npt.NDArray[np.uint8], generator: np.random.Generator) -> None:
    """Fill uint8 (y, x, rgb) with copies of the picture, turned and moved at random."""
    picture = stained_pixels()
    patch_px = picture.shape[0]
    for y in range(0, pixels.shape[0], patch_px):
        for x in range(0, pixels.shape[1], patch_px):
            turns, down, right = generator.integers((4, patch_px, patch_px))
            patch = np.roll(np.rot90(picture, turns), (down, right), axis=(0, 1))
            patch = patch[: pixels.shape[0] - y, : pixels.shape[1] - x]
            pixels[y : y + patch_px, x : x + patch_px] = patch
