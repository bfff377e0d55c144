"""Which DICOM files belong together: a slide is a series, spread over files of one folder."""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

_SERIES_UID = (0x0020, 0x000E)
_TRANSFER_SYNTAX = (0x0002, 0x0010)
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_UNREAD_SYNTAXES = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")  # deflated, big endian
_ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_LONG_VR = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT")
_LONG_VRS = frozenset((*_LONG_VR, b"UV"))


def series_uid(path: str | Path) -> str | None:
    """Return the SeriesInstanceUID of a DICOM file; None when it isn't one, or holds none.

    Only the header up to that element is read (DICOM PS3.5, section 7, and PS3.10, section 7).
    """
    with Path(path).open("rb") as file:
        file.seek(128)
        if file.read(4) != b"DICM":
            return None
        try:
            return _find_series(file)
        except struct.error:  # the header ends before the element: truncated
            return None


def series_files(path: str | Path) -> list[Path]:
    """List the files of a DICOM file's series, sorted by name; empty when it isn't DICOM."""
    path = Path(path)
    uid = series_uid(path)
    if uid is None:
        return []
    folder = path.parent
    return list(_series_in(folder, folder.stat().st_mtime_ns)[uid])


@lru_cache(maxsize=16)  # a folder of 1000 series would otherwise be read once a series
def _series_in(folder: Path, _modified_ns: int) -> Mapping[str, tuple[Path, ...]]:
    found: dict[str, list[Path]] = defaultdict(list)
    with os.scandir(folder) as entries:
        for entry in entries:
            uid = _uid_or_none(entry.path) if entry.is_file() else None
            if uid is not None:
                found[uid].append(Path(entry.path))
    return {uid: tuple(sorted(files)) for uid, files in found.items()}


def _uid_or_none(path: str) -> str | None:
    try:
        return series_uid(path)
    except OSError:  # another file of the folder that we may not read is none of ours
        return None


def _find_series(file: BinaryIO) -> str | None:
    explicit = True  # of the file's own header; the data set may be implicit
    syntax = ""
    while True:
        tag, length = _element(file, explicit or _next_group(file) == 0x0002)
        if tag == _TRANSFER_SYNTAX:
            syntax = _text(file, length)
            if syntax in _UNREAD_SYNTAXES:
                return None
            explicit = syntax != _IMPLICIT_LITTLE
        elif tag == _SERIES_UID:
            return _text(file, length)
        elif tag > _SERIES_UID:  # elements are in ascending order
            return None
        else:
            _skip(file, length, explicit)


def _element(file: BinaryIO, explicit: bool) -> tuple[tuple[int, int], int]:
    """Read an element's header: its tag and the length of its value [bytes]."""
    group, element, length = struct.unpack("<HHI", file.read(8))
    if not explicit or group == 0xFFFE:
        return (group, element), length
    kind = struct.pack("<I", length)
    if kind[:2] in _LONG_VRS:
        (length,) = struct.unpack("<I", file.read(4))
        return (group, element), length
    return (group, element), int.from_bytes(kind[2:], "little")


def _skip(file: BinaryIO, length: int, explicit: bool) -> None:
    if length != _UNDEFINED:
        file.seek(length, os.SEEK_CUR)
        return
    while True:  # items (or elements of an item) up to the delimiter
        tag, inner = _element(file, explicit)
        if tag in (_ITEM_END, _SEQUENCE_END):
            return
        _skip(file, inner, explicit)


def _next_group(file: BinaryIO) -> int:
    (group,) = struct.unpack("<H", file.read(2))
    file.seek(-2, os.SEEK_CUR)
    return int(group)


def _text(file: BinaryIO, length: int) -> str:
    return file.read(length).rstrip(b"\0 ").decode("ascii", "replace")
