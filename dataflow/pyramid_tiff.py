"""Writing a tiled, pyramidal JPEG TIFF: the kind of file that slide scanners make."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

_SHORT, _LONG, _RATIONAL = 3, 4, 5  # TIFF field types
_SIZES: Final = {_SHORT: 2, _LONG: 4, _RATIONAL: 8}
_UM_PER_CM: Final = 10_000
_REDUCED_IMAGE: Final = 1
_BAND_ROWS: Final = 64  # of a coarse level, made at once

_Field = tuple[int, int, list[int]]  # tag, type, values (a rational is two)


def write_pyramid(
    path: str | Path,
    level0: npt.NDArray[np.uint8],
    mpp: float | None,
    *,
    tile_px: int = 256,
    downsamples: tuple[int, ...] = (1, 2, 4, 8),
    quality: int = 90,
) -> None:
    """Write a tiled, pyramidal JPEG TIFF, as slide scanners do.

    Pillow encodes the tiles and the container is written here (TIFF 6.0, with JPEG as of
    Technical Note 2): tifffile needs a further package for JPEG, and Pillow writes no tiles.

    Parameters
    ----------
    path
        File to write.
    level0
        uint8 (y, x, 3).
    mpp
        Size of a level-0 pixel [µm/px], written as resolution; None writes none.
    tile_px
        Side of a TIFF tile [px], a multiple of 16.
    downsamples
        Whole downsamples of the levels, beginning with 1. Levels are box means, rounded down in
        size.
    quality
        JPEG quality, 1 to 95; colours are subsampled 4:2:0.
    """
    with Path(path).open("wb") as file:
        file.write(struct.pack("<2sHI", b"II", 42, 0))
        next_ifd_at = 4
        for downsample in downsamples:
            level = _reduced(level0, downsample)
            fields = _fields(level, tile_px, None if mpp is None else mpp * downsample)
            if downsample > 1:
                fields.append((254, _LONG, [_REDUCED_IMAGE]))
            offsets, sizes = _write_tiles(file, level, tile_px, quality)
            fields += [(324, _LONG, offsets), (325, _LONG, sizes)]
            next_ifd_at = _write_ifd(file, fields, next_ifd_at)


def _reduced(level0: npt.NDArray[np.uint8], downsample: int) -> npt.NDArray[np.uint8]:
    if downsample == 1:
        return level0
    height, width = (side // downsample for side in level0.shape[:2])
    whole = level0[: height * downsample, : width * downsample]
    reduced = np.empty((height, width, 3), np.uint8)
    for row in range(0, height, _BAND_ROWS):  # in bands: Pillow copies what it is given
        band = whole[row * downsample : (row + _BAND_ROWS) * downsample]
        reduced[row : row + _BAND_ROWS] = Image.fromarray(band).reduce(downsample)
    return reduced


def _fields(level: npt.NDArray[np.uint8], tile_px: int, mpp: float | None) -> list[_Field]:
    height, width = level.shape[:2]
    fields: list[_Field] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8, 8, 8]),  # bits per sample
        (259, _SHORT, [7]),  # compression: JPEG
        (262, _SHORT, [6]),  # photometric: YCbCr
        (277, _SHORT, [3]),  # samples per pixel
        (284, _SHORT, [1]),  # planar configuration: together
        (322, _LONG, [tile_px]),
        (323, _LONG, [tile_px]),
        (530, _SHORT, [2, 2]),  # chroma subsampling
    ]
    if mpp is not None:
        px_per_cm = [round(_UM_PER_CM / mpp * 1000), 1000]
        fields += [(282, _RATIONAL, px_per_cm), (283, _RATIONAL, px_per_cm), (296, _SHORT, [3])]
    return fields


def _write_tiles(
    file: BinaryIO, level: npt.NDArray[np.uint8], tile_px: int, quality: int
) -> tuple[list[int], list[int]]:
    offsets, sizes = [], []
    for tile in _tiles(level, tile_px):
        encoded = io.BytesIO()
        Image.fromarray(tile).save(encoded, "JPEG", quality=quality, subsampling="4:2:0")
        offsets.append(file.tell())
        sizes.append(file.write(encoded.getvalue()))
    return offsets, sizes


def _tiles(level: npt.NDArray[np.uint8], tile_px: int) -> Iterator[npt.NDArray[np.uint8]]:
    height, width = level.shape[:2]
    for y, x in itertools.product(range(0, height, tile_px), range(0, width, tile_px)):
        tile = level[y : y + tile_px, x : x + tile_px]
        beyond = ((0, tile_px - tile.shape[0]), (0, tile_px - tile.shape[1]), (0, 0))
        yield np.pad(tile, beyond, mode="edge")


def _write_ifd(file: BinaryIO, fields: list[_Field], link_at: int) -> int:
    """Write an image file directory, link it, and return where its own link is."""
    entries = b""
    for tag, kind, values in sorted(fields):
        packed = struct.pack(f"<{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        if len(packed) > 4:
            _align(file)
            offset = file.tell()
            file.write(packed)
            packed = struct.pack("<I", offset)
        count = len(values) * (2 if kind == _SHORT else 4) // _SIZES[kind]
        entries += struct.pack("<HHI4s", tag, kind, count, packed)
    _align(file)
    start = file.tell()
    file.write(struct.pack("<H", len(fields)) + entries + struct.pack("<I", 0))
    end = file.tell()
    file.seek(link_at)
    file.write(struct.pack("<I", start))
    file.seek(end)
    return end - 4


def _align(file: BinaryIO) -> None:
    file.write(b"\0" * (file.tell() % 2))  # offsets in TIFF are even
