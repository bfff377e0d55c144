"""Slides that OpenSlide reads, DICOM included."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import openslide

from dataflow.physical_size import objective_power, physical_size
from dataflow.slide import SeparateBoxes, SlideInfo, levels_of
from store_schema.errors import ReadFailedError, UnreadableSlideError


def open_openslide(path: str, mpp: float | None) -> OpenSlideReader | None:
    """Open a slide with OpenSlide; None when OpenSlide does not know the format.

    Raises
    ------
    UnreadableSlideError
        OpenSlide knows the format but refuses the file.
    """
    if openslide.OpenSlide.detect_format(path) is None:
        return None
    try:
        return OpenSlideReader(path, mpp)
    except openslide.OpenSlideError as error:
        raise UnreadableSlideError(f"{path}: OpenSlide refuses the file ({error})") from error


class OpenSlideReader:
    """A :class:`dataflow.slide.SlideReader` on an OpenSlide handle.

    Notes
    -----
    OpenSlide places a box by its level-0 corner, which must be whole, and interpolates when that
    is no whole pixel of the level (downsamples like 4.0002). Pixels of such levels may therefore
    be off by up to half a level-0 pixel; those of level 0 and of whole downsamples are exact.

    After an error a handle of OpenSlide fails for ever. So a failed read is tried once more on a
    fresh handle of its own: the error may be that of another thread.
    """

    def __init__(self, path: str, mpp: float | None) -> None:
        handle = openslide.OpenSlide(path)
        properties = handle.properties
        size = physical_size(properties, mpp)
        self._handle: openslide.OpenSlide | None = handle
        self._lock = threading.Lock()
        self._closed = False
        self._downsamples = handle.level_downsamples
        width, height = handle.dimensions
        self._info = SlideInfo(
            path=path,
            vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
            width=width,
            height=height,
            levels=levels_of(handle.level_dimensions, handle.level_downsamples),
            mpp=size.mpp,
            mpp_source=size.source,
            mpp_note=size.note,
            objective_power=objective_power(properties),
            decoder="openslide",
        )

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""
        return self._info

    def openslide_downsample(self, level: int) -> float:
        """Return the downsample by which OpenSlide itself places a level's boxes: a ratio of rounded sizes."""
        return float(self._downsamples[level])

    def describe_decoder(self, text: str) -> None:
        """Set ``info.decoder``: why it is OpenSlide that decodes."""
        self._info = replace(self._info, decoder=text)

    def check_open(self) -> None:
        """Raise ReadFailedError after :meth:`close`."""
        if self._closed:
            raise ReadFailedError(f"{self._info.path}: read after it was closed")

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> npt.NDArray[np.uint8]:
        """Read a box of pixels; see :meth:`dataflow.slide.SlideReader.read_level`."""
        downsample = self._downsamples[level]
        corner_level0 = (round(x * downsample), round(y * downsample))
        handle = self._shared_handle()
        try:
            region = handle.read_region(corner_level0, level, (width, height))
        except openslide.OpenSlideError:
            self._replace(handle, None)
            fresh = self._reopened()
            try:
                region = fresh.read_region(corner_level0, level, (width, height))
            except openslide.OpenSlideError as error:
                raise ReadFailedError(
                    f"{self._info.path}: pixels at x={corner_level0[0]}, y={corner_level0[1]} "
                    f"(level {level}) can't be decoded ({error}); the file may be damaged"
                ) from error
            self._replace(None, fresh)
        return over_white(np.asarray(region))

    def shared(self, level: int, boxes: npt.NDArray[np.int64]) -> SeparateBoxes:
        """Announce boxes; see :meth:`dataflow.slide.SlideReader.shared`."""
        return SeparateBoxes(self, level, boxes)

    def close(self) -> None:
        """Give back the file handles."""
        with self._lock:
            self._closed = True
            self._handle = None  # closed with its last reference: a thread may still be reading

    def _shared_handle(self) -> openslide.OpenSlide:
        with self._lock:
            self.check_open()
            if self._handle is None:
                self._handle = self._reopened()
            return self._handle

    def _reopened(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(self._info.path)
        except openslide.OpenSlideError as error:
            raise ReadFailedError(
                f"{self._info.path}: can't be opened any more ({error})"
            ) from error

    def _replace(
        self, expected: openslide.OpenSlide | None, new: openslide.OpenSlide | None
    ) -> None:
        with self._lock:
            if self._handle is expected and not self._closed:
                self._handle = new


def over_white(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Composite over white.

    Parameters
    ----------
    rgba
        uint8 (y, x, 4), colours not premultiplied.

    Returns
    -------
    array
        uint8 (y, x, 3), C-contiguous.
    """
    alpha = rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[..., :3])
    weight = alpha.astype(np.uint16)
    mixed = rgba[..., :3] * weight + 255 * (255 - weight)  # at most 255 * 255: fits uint16
    return ((mixed + 127) // 255).astype(np.uint8)
