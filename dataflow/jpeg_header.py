"""What a JPEG says of itself before its first pixel."""

from __future__ import annotations

from typing import Final, NamedTuple

_SOI: Final = b"\xff\xd8"
_SEQUENTIAL: Final = (0xC0, 0xC1)  # Huffman-coded, in one pass: SOF0, SOF1
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DQT, _DHT, _DRI, _COM = 0xDB, 0xC4, 0xDD, 0xFE
_APP0, _APP14 = 0xE0, 0xEE
_SKIPPED: Final = frozenset((_DQT, _DHT, _DRI, _COM)) | frozenset(range(0xE0, 0xF0))
_MAX_SEGMENTS: Final = 64
_RGB_IDS: Final = b"RGB"


class JpegHeader(NamedTuple):
    """The frame header of a JPEG, and what decides its colours.

    Attributes
    ----------
    sequential
        Huffman-coded in one pass (SOF0, SOF1): neither progressive nor arithmetic nor lossless.
    width_px, height_px
        Size.
    bits
        Of a sample.
    sampling
        Of each component, horizontal and vertical factor, 4 bits each: ``(0x22, 0x11, 0x11)`` is 4:2:0.
    ids
        Of each component, a byte.
    jfif
        There is a JFIF marker, so decoders take it for YCbCr.
    adobe_transform
        Of the Adobe marker (0 is RGB, 1 is YCbCr), or None.
    """

    sequential: bool
    width_px: int
    height_px: int
    bits: int
    sampling: tuple[int, ...]
    ids: bytes
    jfif: bool
    adobe_transform: int | None

    @property
    def taken_for_ycbcr(self) -> bool:
        """What libjpeg takes three components for: JFIF, then Adobe's marker, then their ids decide."""
        if self.jfif or self.adobe_transform is not None:
            return self.jfif or self.adobe_transform != 0
        return self.ids != _RGB_IDS


def read_header(data: bytes) -> JpegHeader | None:
    """Read up to the first frame header; None when there is none, or anything unexpected before it.

    Stricter than decoders, so that both find the same frame header: its size is what memory is provided for.
    """
    if data[:2] != _SOI:
        return None
    at, jfif, adobe = 2, False, None
    for _ in range(_MAX_SEGMENTS):
        if data[at : at + 1] != b"\xff" or at + 4 > len(data):
            return None
        marker = data[at + 1]
        length = data[at + 2] << 8 | data[at + 3]
        body = at + 4
        at += 2 + length
        if length < 2 or at > len(data):
            return None
        if marker in _FRAMES:
            return _frame(marker, data[body:at], jfif, adobe)
        if marker not in _SKIPPED:
            return None
        if marker == _APP0 and length >= 16 and data[body : body + 5] == b"JFIF\0":
            jfif = True
        elif marker == _APP14 and length >= 14 and data[body : body + 5] == b"Adobe":
            adobe = data[body + 11]
    return None


def table_segments(tables: bytes) -> bytes | None:
    """Return the quantization and Huffman tables among a TIFF's shared segments; None when those are damaged.

    Anything else in there has no effect on tiles: a decoder forgets it at their SOI.
    """
    kept, at = b"", 0
    while at < len(tables):
        length = int.from_bytes(tables[at + 2 : at + 4], "big")
        end = at + 2 + length
        if tables[at] != 0xFF or tables[at + 1 : at + 2] == b"" or length < 2 or end > len(tables):
            return None
        if tables[at + 1] in (_DQT, _DHT):
            kept += tables[at:end]
        at = end
    return kept


def _frame(marker: int, body: bytes, jfif: bool, adobe: int | None) -> JpegHeader | None:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        return None
    return JpegHeader(
        marker in _SEQUENTIAL,
        body[3] << 8 | body[4],
        body[1] << 8 | body[2],
        body[0],
        tuple(body[7::3]),
        body[6::3],
        jfif,
        adobe,
    )
