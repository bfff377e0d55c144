"""Where the tiles of a TIFF lie in its file: a small parser that trusts nothing it reads.

Classic TIFF and BigTIFF of both byte orders, only the tags that a lattice of JPEG tiles needs. What is read is bounded:
at most 256 directories of 512 entries (10 KB each), 64 KiB of JPEG tables, and 4 Mi tiles (64 MB of index, held as 64).
All offsets and counts are checked against the file's size before anything is allocated for them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dataflow.open_file import OpenFile

MAX_DIRECTORIES: Final = 256
MAX_ENTRIES: Final = 512
MAX_TABLES_BYTES: Final = 1 << 16
MAX_TILES: Final = 1 << 22  # 500,000 x 500,000 px in tiles of 256
TILE_SIDE_PX: Final = (
    64,
    2048,
)  # smaller are not worth their overhead; one of 2048 px is 12 MB of RGB

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
ORIENTATION, SAMPLES, PLANAR = 274, 277, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, JPEG_TABLES = 322, 323, 324, 325, 347
_SCALARS: Final = (WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES, PLANAR)
_KEPT: Final = frozenset(
    (*_SCALARS, BITS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, JPEG_TABLES)
)
_DEFAULTS: Final = {ORIENTATION: 1, SAMPLES: 1, PLANAR: 1, COMPRESSION: 1}
_INTEGERS: Final = {3: "u2", 4: "u4", 16: "u8"}  # SHORT, LONG, LONG8
_BYTES: Final = (1, 7)  # BYTE, UNDEFINED
_RGB, _YCBCR = 2, 6
_NEW_JPEG: Final = 7


class IndexRefusedError(Exception):
    """The index can't be used; the message is a clause that says why. Not for users: OpenSlide reads instead."""


@dataclass(frozen=True)
class Field:
    """An entry of a directory, not yet read.

    Attributes
    ----------
    kind
        TIFF field type.
    count
        Number of values that it claims.
    inline
        4 bytes (BigTIFF: 8): the values where they fit, or their offset.
    """

    kind: int
    count: int
    inline: bytes


@dataclass(frozen=True)
class Directory:
    """One image of a TIFF: its fields, as far as they matter here."""

    order: str
    fields: Mapping[int, Field]


@dataclass(frozen=True)
class TileLattice:
    """Where the JPEG tiles of one image lie in the file.

    Attributes
    ----------
    width_px, height_px
        Size of the image; tiles of the last column and row reach beyond it.
    tile_width_px, tile_height_px
        Size of a tile.
    is_ycbcr
        Tiles are YCbCr; otherwise RGB. The tag says so, whatever the tiles' own markers say.
    tables
        Quantization and Huffman tables that all tiles share, without SOI and EOI; may be empty.
    offsets, counts
        int64 (rows * columns,), where each tile's bytes begin and how many there are; 0 bytes: no tile there.
    """

    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    is_ycbcr: bool
    tables: bytes
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width_px // self.tile_width_px)

    @property
    def rows(self) -> int:
        """Tiles in a column."""
        return -(-self.height_px // self.tile_height_px)


def read_directories(file: OpenFile) -> list[Directory]:
    """Read the chain of directories.

    Raises
    ------
    IndexRefusedError
        Not a TIFF, damaged, or more than is reasonable.
    """
    head = _read(file, 0, 8)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        raise IndexRefusedError("the file is no TIFF")
    version = _unpack(order, "H", head[2:4])
    if version == 42:
        big, offset = False, _unpack(order, "I", head[4:8])
    elif version == 43 and struct.unpack(order + "HH", head[4:8]) == (8, 0):
        big, offset = True, _unpack(order, "Q", _read(file, 8, 8))
    else:
        raise IndexRefusedError("the file is no TIFF")
    found: list[Directory] = []
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise IndexRefusedError("the chain of the TIFF's directories runs in a circle")
        if len(found) == MAX_DIRECTORIES:
            raise IndexRefusedError(f"the TIFF has more than {MAX_DIRECTORIES} directories")
        seen.add(offset)
        directory, offset = _read_directory(file, order, offset, big=big)
        found.append(directory)
    return found


def image_size(file: OpenFile, directory: Directory) -> tuple[int, int] | None:
    """Return width and height [px] of a tiled image; None of one in strips, or without a size."""
    if not {WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT} <= directory.fields.keys():
        return None
    return _integer(file, directory, WIDTH), _integer(file, directory, HEIGHT)


def read_lattice(file: OpenFile, directory: Directory) -> TileLattice:
    """Read where an image's tiles lie.

    Raises
    ------
    IndexRefusedError
        The image is no lattice of 8-bit JPEG tiles in YCbCr or RGB, or its index is damaged.
    """
    width, height = _integer(file, directory, WIDTH), _integer(file, directory, HEIGHT)
    tile_width = _integer(file, directory, TILE_WIDTH)
    tile_height = _integer(file, directory, TILE_HEIGHT)
    photometric = _check_kind(file, directory)
    low, high = TILE_SIDE_PX
    if not (low <= tile_width <= high and low <= tile_height <= high):
        raise IndexRefusedError(f"its tiles are {tile_width} x {tile_height} px")
    if width < 1 or height < 1:
        raise IndexRefusedError("it has no pixels")
    n_tiles = -(-width // tile_width) * -(-height // tile_height)
    if n_tiles > MAX_TILES:
        raise IndexRefusedError(f"it claims {n_tiles} tiles")
    offsets = _integers(file, directory, TILE_OFFSETS, n_tiles)
    counts = _integers(file, directory, TILE_BYTES, n_tiles)
    limit = 6 * tile_width * tile_height + (1 << 16)  # twice the pixels: no JPEG is larger
    if int(counts.max()) > min(limit, file.size):  # now both fit int64, and so does their sum
        raise IndexRefusedError("its index claims tiles of absurd size")
    there = counts > 0
    if bool((offsets[there] < 8).any()) or bool(
        (offsets[there] > np.uint64(file.size) - counts[there]).any()
    ):
        raise IndexRefusedError("its index points outside the file, which may be truncated")
    offsets[~there] = 0
    return TileLattice(
        width,
        height,
        tile_width,
        tile_height,
        photometric == _YCBCR,
        _shared_tables(file, directory),
        offsets.astype(np.int64),
        counts.astype(np.int64),
    )


def _check_kind(file: OpenFile, directory: Directory) -> int:
    compression = _integer(file, directory, COMPRESSION)
    if compression != _NEW_JPEG:
        raise IndexRefusedError(f"it is not stored as JPEG but by TIFF compression {compression}")
    photometric = _integer(file, directory, PHOTOMETRIC)
    samples, planar, orientation = (
        _integer(file, directory, tag) for tag in (SAMPLES, PLANAR, ORIENTATION)
    )
    if photometric not in (_RGB, _YCBCR) or samples != 3:
        raise IndexRefusedError(
            f"its pixels are neither RGB nor YCbCr (photometric {photometric}, {samples} samples)"
        )
    if planar != 1 or orientation != 1:
        raise IndexRefusedError("its pixels are stored by plane, or turned")
    if _integers(file, directory, BITS, 3).tolist() != [8, 8, 8]:
        raise IndexRefusedError("its samples are not of 8 bits")
    return photometric


def _shared_tables(file: OpenFile, directory: Directory) -> bytes:
    field = directory.fields.get(JPEG_TABLES)
    if field is None:
        return b""
    if field.kind not in _BYTES or not 4 <= field.count <= MAX_TABLES_BYTES:
        raise IndexRefusedError("its JPEG tables are damaged")
    tables = _values(file, directory, field, field.count)
    if not tables.startswith(b"\xff\xd8") or not tables.endswith(b"\xff\xd9"):
        raise IndexRefusedError("its JPEG tables are damaged")
    return tables[2:-2]


def _read_directory(file: OpenFile, order: str, offset: int, *, big: bool) -> tuple[Directory, int]:
    head, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
    n = _unpack(order, head, _read(file, offset, struct.calcsize(head)))
    if n > MAX_ENTRIES:
        raise IndexRefusedError(f"a directory of the TIFF claims {n} entries")
    start = offset + struct.calcsize(head)
    body = _read(file, start, n * entry + struct.calcsize(link))
    fields: dict[int, Field] = {}
    for at in range(0, n * entry, entry):
        tag, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), body, at)
        if tag in _KEPT and tag not in fields:
            fields[tag] = Field(kind, count, body[at + (12 if big else 8) : at + entry])
    return Directory(order, fields), _unpack(order, link, body[n * entry :])


def _integer(file: OpenFile, directory: Directory, tag: int) -> int:
    if tag not in directory.fields and tag in _DEFAULTS:
        return _DEFAULTS[tag]
    return int(_integers(file, directory, tag, 1)[0])


def _integers(file: OpenFile, directory: Directory, tag: int, count: int) -> npt.NDArray[np.uint64]:
    """Read exactly ``count`` integers; the caller has bounded the count."""
    field = directory.fields.get(tag)
    if field is None:
        raise IndexRefusedError(f"its TIFF tag {tag} is missing")
    code = _INTEGERS.get(field.kind)
    if code is None or field.count != count:
        raise IndexRefusedError(
            f"its TIFF tag {tag} has {field.count} values of type {field.kind}, {count} are needed"
        )
    dtype = np.dtype(directory.order + code)
    data = _values(file, directory, field, count * dtype.itemsize)
    return np.frombuffer(data, dtype).astype(np.uint64)


def _values(file: OpenFile, directory: Directory, field: Field, length: int) -> bytes:
    if length <= len(field.inline):
        return field.inline[:length]
    offset = _unpack(directory.order, "I" if len(field.inline) == 4 else "Q", field.inline)
    return _read(file, offset, length)


def _read(file: OpenFile, start: int, length: int) -> bytes:
    if start + length > file.size:
        raise IndexRefusedError("its index points outside the file, which may be truncated")
    try:
        data = file.read(start, length)
    except OSError as error:
        raise IndexRefusedError(f"the file can't be read ({error.strerror})") from error
    if len(data) < length:
        raise IndexRefusedError("the file has become shorter")
    return data


def _unpack(order: str, code: str, data: bytes) -> int:
    return int(struct.unpack(order + code, data)[0])
