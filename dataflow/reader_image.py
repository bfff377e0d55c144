"""Plain RGB TIFF, PNG and JPEG files, as slides of one level."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from dataflow.physical_size import physical_size
from dataflow.reader_openslide import over_white
from dataflow.slide import Level, SeparateBoxes, SlideInfo
from store_schema.errors import ReadFailedError, UnreadableSlideError

MAX_IMAGE_PX: Final = 400_000_000  # 1.2 GB as RGB: the whole image is held while its slide is open

# The plugins are called by name: Image.open would also try formats that no slide has, and refuses
# (or warns of) images from 89 Mpx on, by a global setting.
_PLUGINS: Final[tuple[tuple[bytes, type[ImageFile.ImageFile]], ...]] = (
    (b"II*\0", TiffImageFile),
    (b"MM\0*", TiffImageFile),
    (b"II+\0", TiffImageFile),
    (b"MM\0+", TiffImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"\xff\xd8\xff", JpegImageFile),
)
_WARNING_FILTERS = threading.Lock()  # catch_warnings changes a global list
_OPAQUE_MODES: Final = ("RGB", "L")
_ALPHA_MODES: Final = ("RGBA", "LA", "P", "PA")  # a palette may hold transparency


def open_image(path: str, mpp: float | None) -> ImageReader | None:
    """Open a plain image; None when the file is no TIFF, PNG or JPEG.

    Raises
    ------
    UnreadableSlideError
        The header is damaged, the image too large to be held, or its pixels aren't 8-bit RGB(A),
        grey or palette.
    """
    with Path(path).open("rb") as file:
        magic = file.read(8)
    plugin = next((plugin for start, plugin in _PLUGINS if magic.startswith(start)), None)
    return None if plugin is None else ImageReader(path, mpp, plugin)


class ImageReader:
    """A :class:`dataflow.slide.SlideReader` that decodes the whole image at the first read.

    16-bit PNG is reduced to 8 bits; grey becomes RGB; transparency is composited over white.
    An EXIF orientation is ignored: pixels are where they are stored.
    """

    def __init__(self, path: str, mpp: float | None, plugin: type[ImageFile.ImageFile]) -> None:
        self._plugin = plugin
        self._pixels: npt.NDArray[np.uint8] | None = None
        self._lock = threading.Lock()
        self._closed = False
        size = physical_size({}, mpp)
        try:
            with _open_quietly(path, plugin) as image:
                _check_pixels(path, image)
                width, height = image.size
                name = (image.format or "unknown").lower()
        except (OSError, SyntaxError, ValueError) as error:
            raise UnreadableSlideError(
                f"{path}: the image's header can't be read ({error}); the file may be truncated"
            ) from error
        self._info = SlideInfo(
            path=path,
            vendor=f"image-{name}",
            width=width,
            height=height,
            levels=(Level(width, height, 1.0),),
            mpp=size.mpp,
            mpp_source=size.source,
            mpp_note=size.note,
            decoder="pillow",
        )

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""
        return self._info

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> npt.NDArray[np.uint8]:
        """Read a box of pixels; see :meth:`dataflow.slide.SlideReader.read_level`."""
        if level != 0:
            raise IndexError(f"a plain image has level 0 only, not {level}")
        pixels = self._decoded()
        box = np.full((height, width, 3), 255, np.uint8)
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, self._info.width), min(y + height, self._info.height)
        if left < right and top < bottom:
            box[top - y : bottom - y, left - x : right - x] = pixels[top:bottom, left:right]
        return box

    def shared(self, level: int, boxes: npt.NDArray[np.int64]) -> SeparateBoxes:
        """Announce boxes; see :meth:`dataflow.slide.SlideReader.shared`."""
        return SeparateBoxes(self, level, boxes)

    def close(self) -> None:
        """Give back the pixels."""
        with self._lock:
            self._closed = True
            self._pixels = None

    def _decoded(self) -> npt.NDArray[np.uint8]:
        with self._lock:
            if self._closed:
                raise ReadFailedError(f"{self._info.path}: read after it was closed")
            if self._pixels is None:
                try:
                    with _open_quietly(self._info.path, self._plugin) as image:
                        self._pixels = _rgb(image)
                except (OSError, SyntaxError, ValueError) as error:
                    raise ReadFailedError(
                        f"{self._info.path}: the image can't be decoded ({error}); "
                        "the file may be truncated"
                    ) from error
            return self._pixels


def _open_quietly(path: str, plugin: type[ImageFile.ImageFile]) -> ImageFile.ImageFile:
    # Pillow warns of odd tags; what matters of them ends in an error, the rest is noise
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plugin(path)


def _check_pixels(path: str, image: ImageFile.ImageFile) -> None:
    width, height = image.size
    if width * height > MAX_IMAGE_PX:
        raise UnreadableSlideError(
            f"{path}: {width} x {height} px is too large for a plain image, which is read whole; "
            "convert it to a tiled, pyramidal TIFF"
        )
    if image.mode not in _OPAQUE_MODES + _ALPHA_MODES:
        raise UnreadableSlideError(
            f"{path}: pixels of kind {image.mode} are not read; convert the image to 8-bit RGB"
        )
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(BITSPERSAMPLE, (8,))
        if max(bits) > 8:  # the range in use isn't known: 12 bits in 16 would come out black
            raise UnreadableSlideError(
                f"{path}: {max(bits)} bits a sample are not read; convert the image to 8-bit RGB"
            )


def _rgb(image: ImageFile.ImageFile) -> npt.NDArray[np.uint8]:
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return over_white(np.asarray(image.convert("RGBA")))
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))
