"""One level of a slide as a lattice of JPEG tiles, each decoded straight from the file by libjpeg-turbo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg

from dataflow.jpeg_header import JpegHeader, read_header, table_segments
from dataflow.open_file import OpenFile
from dataflow.tiff_index import IndexRefusedError, TileLattice

_SOI: Final = b"\xff\xd8"
# libjpeg asks the tile's markers for its colours, OpenSlide the TIFF's tag: these markers say what the tag says
_SAY_RGB: Final = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_SAY_YCBCR: Final = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_SAMPLINGS: Final = ((0x11,) * 3, (0x21, 0x11, 0x11), (0x22, 0x11, 0x11))  # 4:4:4, 4:2:2, 4:2:0


class TileDamagedError(Exception):
    """A tile can't be decoded; the message is a clause that says why. Readers turn it into a ReadFailedError."""


class UnusualTileError(TileDamagedError):
    """A tile of a kind that is not decoded here: a slide of such is for OpenSlide; one among others is damaged."""


@dataclass(frozen=True)
class JpegTiles:
    """Decodes the tiles of one level; may be used from several threads at once.

    Attributes
    ----------
    file
        The slide.
    lattice
        Where its tiles lie.
    tables
        What is put in front of every tile's own segments.
    """

    file: OpenFile
    lattice: TileLattice
    tables: bytes

    @classmethod
    def of(cls, file: OpenFile, lattice: TileLattice) -> JpegTiles:
        """Make ready to decode; IndexRefusedError when the shared tables are damaged."""
        tables = table_segments(lattice.tables)
        if tables is None:
            raise IndexRefusedError("its JPEG tables are damaged")
        return cls(file, lattice, tables)

    def missing(self, tile: int) -> bool:
        """Whether the file holds nothing for a tile: what is there then, OpenSlide decides."""
        return int(self.lattice.counts[tile]) == 0

    def decode(self, tile: int, out: npt.NDArray[np.uint8]) -> None:
        """Decode a tile.

        Parameters
        ----------
        tile
            Its number, row by row.
        out
            uint8 (tile height, tile width, 3), C-contiguous, filled in place: also what lies beyond the image.

        Raises
        ------
        UnusualTileError
            It is no JPEG of the kind that is decoded here.
        TileDamagedError
            Anything else is wrong with it, warnings of libjpeg included, or its bytes can't be read.
        """
        data = self._encoded(tile)
        header = read_header(data)
        if header is None:
            raise UnusualTileError("it does not begin as a JPEG does")
        self._check(header)
        if header.taken_for_ycbcr != self.lattice.is_ycbcr:
            data = _SOI + (_SAY_YCBCR if self.lattice.is_ycbcr else _SAY_RGB) + data[2:]
        try:
            simplejpeg.decode_jpeg(data, "RGB", buffer=out, strict=True)
        except ValueError as error:
            raise TileDamagedError(str(error)) from error

    def _encoded(self, tile: int) -> bytes:
        lattice = self.lattice
        length = int(lattice.counts[tile])
        try:
            data = self.file.read(int(lattice.offsets[tile]), length)
        except OSError as error:
            raise TileDamagedError(f"the file can't be read: {error.strerror}") from error
        if len(data) < length:
            raise TileDamagedError("the file has become shorter")
        return _SOI + self.tables + data[2:] if self.tables and data[:2] == _SOI else data

    def _check(self, header: JpegHeader) -> None:
        """Check the declared size before any memory is used for it: the decoder's own check comes after the pixels."""
        lattice = self.lattice
        if (header.width_px, header.height_px) != (lattice.tile_width_px, lattice.tile_height_px):
            raise UnusualTileError(f"it declares {header.width_px} x {header.height_px} px")
        if not header.sequential or header.bits != 8 or header.sampling not in _SAMPLINGS:
            raise UnusualTileError("it is no sequential 8-bit JPEG in 4:4:4, 4:2:2 or 4:2:0")
        if not lattice.is_ycbcr and (header.jfif or header.adobe_transform):
            raise UnusualTileError("its markers say YCbCr, and the TIFF's tag RGB")
