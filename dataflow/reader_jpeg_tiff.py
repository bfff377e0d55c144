"""TIFF slides whose tiles are JPEG, decoded without OpenSlide in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from dataflow.direct_level import Comparison, DirectLevel
from dataflow.jpeg_tiles import JpegTiles
from dataflow.keyed_cache import KeyedCache
from dataflow.open_file import OpenFile
from dataflow.reader_openslide import OpenSlideReader
from dataflow.shared_tiles import SharedTiles
from dataflow.slide import SeparateBoxes, SharedBoxes, SlideInfo
from dataflow.tiff_index import IndexRefusedError, image_size, read_directories, read_lattice

# of OpenSlide's formats those in which a level is one plain lattice of TIFF tiles: others stitch areas, let tiles
# overlap, or pad levels
_VENDORS: Final = ("aperio", "generic-tiff")
_DECODER: Final = "libjpeg-turbo"

# comparing takes some 2 ms a tile, and a worker opens a slide for its plan, its stain basis and its blocks
_compared: KeyedCache[dict[int, Comparison]] = KeyedCache(1024)


def decode_directly(slide: OpenSlideReader) -> JpegTiffReader | OpenSlideReader:
    """Return a reader that decodes tiles itself where that gives the same pixels, or the one that was given.

    A few tiles of each level are compared with OpenSlide's. ``info.decoder`` of what is returned says what decodes,
    and why not directly.

    Parameters
    ----------
    slide
        OpenSlide's reader of the slide.
    """
    try:
        if slide.info.vendor not in _VENDORS:
            raise IndexRefusedError(f"{slide.info.vendor} is no format of plain JPEG tiles")
        levels, reasons = _direct_levels(slide)
    except IndexRefusedError as error:
        slide.describe_decoder(f"openslide ({error})")
        return slide
    if not levels:
        slide.describe_decoder(f"openslide ({_listed(reasons)})")
        return slide
    others = f", and openslide ({_listed(reasons)})" if reasons else ""
    return JpegTiffReader(slide, levels, _DECODER + others)


class JpegTiffReader:
    """A :class:`dataflow.slide.SlideReader` that decodes JPEG tiles straight from the file.

    Parameters
    ----------
    slide
        OpenSlide's reader: it reads the other levels, and what the file holds no tile for.
    levels
        By index into ``info.levels``, those that are decoded here.
    decoder
        For ``info``.

    Notes
    -----
    The floor: reading a block of tiles reads the bytes of every TIFF tile under it once, and decodes each once
    (:class:`dataflow.shared_tiles.SharedTiles`); a tile of the block that is a TIFF tile is decoded in its place, with
    no copy. A call of ``read_level`` likewise decodes each tile under its box once.

    Pixels are those of OpenSlide, bit for bit, with two exceptions. A level of fractional downsample (4.0002) is read
    at its exact pixels, where OpenSlide interpolates. A tile that libjpeg warns of is an error, where OpenSlide
    returns what it could make of it.
    """

    def __init__(
        self, slide: OpenSlideReader, levels: dict[int, DirectLevel], decoder: str
    ) -> None:
        self._slide = slide
        self._levels = levels
        self._info = replace(slide.info, decoder=decoder)

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""
        return self._info

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> npt.NDArray[np.uint8]:
        """Read a box of pixels; see :meth:`dataflow.slide.SlideReader.read_level`."""
        if level not in self._levels:
            return self._slide.read_level(level, x, y, width, height)
        self._slide.check_open()
        out = np.empty((height, width, 3), np.uint8)
        SharedTiles(self._levels[level], np.array([[x, y, width, height]], np.int64)).read(0, out)
        return out

    def shared(self, level: int, boxes: npt.NDArray[np.int64]) -> SharedBoxes:
        """Announce boxes; see :meth:`dataflow.slide.SlideReader.shared`."""
        if level not in self._levels:
            return SeparateBoxes(self._slide, level, boxes)
        return SharedTiles(self._levels[level], boxes)

    def close(self) -> None:
        """Give back the file handles."""
        self._slide.close()
        self._levels = {}


def _direct_levels(slide: OpenSlideReader) -> tuple[dict[int, DirectLevel], dict[int, str]]:
    """Return the levels that can be decoded directly, and of the others why not, by level."""
    try:
        file = OpenFile(slide.info.path)
    except OSError as error:
        raise IndexRefusedError(f"the file can't be opened again: {error.strerror}") from error
    lattices, reasons = _lattices(file, slide.info)
    if slide.info.vendor == "aperio":
        # OpenSlide draws a coarser tile from the finer level where tiles of that are missing
        complete = True
        for level in range(len(slide.info.levels)):
            if not complete and lattices.pop(level, None) is not None:
                reasons[level] = "finer levels lack tiles"
            complete = complete and level in lattices and bool(lattices[level].lattice.counts.all())
    levels = {i: DirectLevel(slide, i, tiles) for i, tiles in lattices.items()}
    compared = _compared.get(
        file.identity, lambda: {i: level.compare() for i, level in levels.items()}
    )
    any_equal = any(each.n_equal for each in compared.values())
    for i, found in compared.items():
        if found.differing:
            reasons[i] = "its pixels came out different"
        elif found.unusual and not found.n_equal:
            reasons[i] = found.unusual
        elif not any_equal:  # a writer's habit, or all is damaged: not for this decoder to say
            reasons[i] = found.damaged or "no tile to compare"
    return {i: level for i, level in levels.items() if i not in reasons}, reasons


def _lattices(file: OpenFile, info: SlideInfo) -> tuple[dict[int, JpegTiles], dict[int, str]]:
    """Find each level's tiles in the file."""
    directories = read_directories(file)
    by_size: dict[tuple[int, int], list[int]] = {}
    for number, directory in enumerate(directories):
        size = image_size(file, directory)
        if size is not None:
            by_size.setdefault(size, []).append(number)
    found: dict[int, JpegTiles] = {}
    reasons: dict[int, str] = {}
    for i, level in enumerate(info.levels):
        numbers = by_size.get((level.width, level.height), [])
        if len(numbers) != 1:
            reasons[i] = f"{len(numbers)} images of the TIFF have its size"
            continue
        try:
            found[i] = JpegTiles.of(file, read_lattice(file, directories[numbers[0]]))
        except IndexRefusedError as error:
            reasons[i] = str(error)
    return found, reasons


def _listed(reasons: dict[int, str]) -> str:
    """Return reasons as one clause, levels of the same reason together."""
    levels: dict[str, list[str]] = {}
    for level, reason in sorted(reasons.items()):
        levels.setdefault(reason, []).append(str(level))
    return "; ".join(f"level {', '.join(numbers)}: {reason}" for reason, numbers in levels.items())
