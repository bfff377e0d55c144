"""What a slide is to the stream: its levels, its size, and a reader of pixels."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dataflow.physical_size import MppSource
from store_schema.errors import UnreadableSlideError

UPSAMPLING_TOLERANCE = 0.01  # relative; a level (or slide) this much too coarse still serves


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Attributes
    ----------
    width, height
        Size [px, this level].
    downsample
        Side of a pixel of this level [px, level 0].
    """

    width: int
    height: int
    downsample: float


@dataclass(frozen=True)
class SlideInfo:
    """What is known of a slide without reading pixels.

    Attributes
    ----------
    path
        The file, as it was given.
    vendor
        The reader's name of the format, e.g. ``aperio``, or ``image-png`` for a plain image.
    width, height
        Size [px, level 0].
    levels
        Finest first; level 0 has downsample 1.
    mpp
        Side of a level-0 pixel [µm/px], mean of x and y, or None.
    mpp_source
        ``properties``, ``objective``, ``user`` or ``unknown``.
    mpp_note
        What a person should know about ``mpp``, or an empty string.
    objective_power
        Nominal magnification, or None.
    decoder
        What decodes pixels and, where that is not the fastest way, why: ``libjpeg-turbo``, or
        ``openslide (level 0 is stored as JPEG 2000)``.
    """

    path: str
    vendor: str
    width: int
    height: int
    levels: tuple[Level, ...]
    mpp: float | None
    mpp_source: MppSource
    mpp_note: str = ""
    objective_power: float | None = None
    decoder: str = ""

    def finer_level(self, downsample: float) -> int:
        """Return the index of the coarsest level that is still fine enough.

        Parameters
        ----------
        downsample
            Side of a wanted pixel [px, level 0]. A level that is up to 1 % coarser serves too.
        """
        limit = downsample * (1 + UPSAMPLING_TOLERANCE)
        serving = [i for i, level in enumerate(self.levels) if level.downsample <= limit]
        return max(serving, key=lambda i: self.levels[i].downsample, default=0)


class SharedBoxes(Protocol):
    """Boxes of one level that are read together, so that what they have in common is decoded once."""

    def read(self, i: int, out: npt.NDArray[np.uint8]) -> None:
        """Read a box; may be called from several threads, in any order.

        Parameters
        ----------
        i
            Which box. Reading one again works, but decodes again.
        out
            uint8 (height, width, 3), filled in place; white outside the slide.

        Raises
        ------
        ReadFailedError
            A part of the box can't be decoded; ``out`` is then undefined.
        """
        ...


class SlideReader(Protocol):
    """Reads pixels of one slide; may be used from several threads at once."""

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""
        ...

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> npt.NDArray[np.uint8]:
        """Read a box of pixels.

        Parameters
        ----------
        level
            Index into ``info.levels``.
        x, y
            Top-left corner [px, that level]; may lie outside the slide.
        width, height
            Size of the box [px, that level], at least 1.

        Returns
        -------
        array
            uint8 (height, width, 3), C-contiguous. What lies outside the slide, or was never
            scanned (transparent), is white.

        Raises
        ------
        ReadFailedError
            The pixels can't be decoded; a later read of other pixels may well work.
        """
        ...

    def shared(self, level: int, boxes: npt.NDArray[np.int64]) -> SharedBoxes:
        """Announce boxes that will be read, each once, in an order that keeps neighbours together.

        Parameters
        ----------
        level
            Index into ``info.levels``.
        boxes
            int64 (n, 4): x, y, width, height [px, that level].
        """
        ...

    def close(self) -> None:
        """Give back the file handles; later reads raise ReadFailedError."""
        ...


@dataclass(frozen=True)
class SeparateBoxes:
    """The :class:`SharedBoxes` of a reader that shares nothing, or does so by a cache of its own."""

    reader: SlideReader
    level: int
    boxes: npt.NDArray[np.int64]

    def read(self, i: int, out: npt.NDArray[np.uint8]) -> None:
        """Read a box; see :meth:`SharedBoxes.read`."""
        x, y, width, height = self.boxes[i].tolist()
        out[:] = self.reader.read_level(self.level, x, y, width, height)


def levels_of(sizes: Sequence[tuple[int, int]], downsamples: Sequence[float]) -> tuple[Level, ...]:
    """Describe a pyramid, with the true downsample of every level.

    A level whose size is level 0's divided by an integer, rounded either way, has exactly that
    downsample. The ratio of the rounded sizes, which libraries report (4.0002), would drift by a
    pixel over a large slide.

    Parameters
    ----------
    sizes
        (width, height) of every level [px, that level].
    downsamples
        The library's downsamples.
    """
    width0, height0 = sizes[0]
    levels = []
    for (width, height), reported in zip(sizes, downsamples, strict=True):
        whole = max(1, round(reported))
        fits = (
            width0 // whole <= width <= -(-width0 // whole)
            and height0 // whole <= height <= -(-height0 // whole)
        )  # fmt: skip
        levels.append(Level(width, height, float(whole) if fits else float(reported)))
    return tuple(levels)


def open_slide(path: str | Path, mpp: float | None = None) -> SlideReader:
    """Open a slide; pixels are read later.

    Parameters
    ----------
    path
        A local file: any format of OpenSlide (DICOM included: any file of the series), or a
        plain RGB TIFF, PNG or JPEG, which becomes a slide of one level.
    mpp
        Size of a level-0 pixel [µm/px] when given explicitly; wins over what the file says.

    Returns
    -------
    SlideReader
        Its ``info.mpp`` is None when the size is neither given nor known.

    Raises
    ------
    UnreadableSlideError
        Missing, not a file, empty, truncated, not recognised or refused by the reader.
    InputError
        ``mpp`` is not a positive number.
    """
    from dataflow.reader_image import open_image
    from dataflow.reader_jpeg_tiff import decode_directly
    from dataflow.reader_openslide import open_openslide

    _check_file(Path(path))
    slide = open_openslide(str(path), mpp)
    if slide is not None:
        return decode_directly(slide)
    image = open_image(str(path), mpp)
    if image is not None:
        return image
    raise UnreadableSlideError(
        f"{path}: not recognised as a slide; it may be truncated, or of a format that neither "
        "OpenSlide nor the plain TIFF, PNG and JPEG reader knows"
    )


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            with path.open("rb"):
                pass
    except FileNotFoundError as error:
        raise UnreadableSlideError(f"{path}: no such file; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableSlideError(f"{path}: can't be opened ({reason})") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableSlideError(f"{path}: a folder, not a slide; give the file inside")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableSlideError(f"{path}: not a regular file; a slide must be one")
    if status.st_size == 0:
        raise UnreadableSlideError(f"{path}: the file is empty (0 bytes); copy it again")
