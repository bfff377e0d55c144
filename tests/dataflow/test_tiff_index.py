from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataflow.jpeg_header import read_header, table_segments
from dataflow.open_file import OpenFile
from dataflow.tiff_index import IndexRefusedError, image_size, read_directories, read_lattice

# a 256 x 128 px image of two tiles, as (type, values); what tests change is replaced
FIELDS: dict[int, tuple[int, list[int]]] = {
    256: (4, [256]), 257: (4, [128]), 258: (3, [8, 8, 8]), 259: (3, [7]), 262: (3, [6]),
    277: (3, [3]), 322: (4, [128]), 323: (4, [128]), 324: (4, [8, 100]), 325: (4, [50, 60]),
}  # fmt: skip
CODES = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}


def tiff(
    path: Path,
    fields: Mapping[int, tuple[int, list[int]]] | None = None,
    counts: Mapping[int, int] | None = None,
    next_at: int = 0,
    size: int = 4096,
) -> OpenFile:
    """Write a classic TIFF of one directory at 1000; ``counts`` are claimed instead of the true ones."""
    values_at, entries, values = 2000, b"", b""
    for tag, (kind, numbers) in sorted((FIELDS | dict(fields or {})).items()):
        packed = struct.pack(f"<{len(numbers)}{CODES[kind]}", *numbers)
        count = (counts or {}).get(tag, len(numbers))
        if len(packed) > 4 or count > len(numbers):
            values, packed = values + packed, struct.pack("<I", values_at + len(values))
        entries += struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\0")
    data = struct.pack("<2sHI", b"II", 42, 1000).ljust(1000, b"\0")
    data += struct.pack("<H", len(entries) // 12) + entries + struct.pack("<I", next_at)
    path.write_bytes((data.ljust(values_at, b"\0") + values).ljust(size, b"\0"))
    return OpenFile(str(path))


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail when more than 4 MB are allocated at any time inside."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_plain_index(tmp_path: Path) -> None:
    file = tiff(tmp_path / "a.tif")
    (directory,) = read_directories(file)
    assert image_size(file, directory) == (256, 128)
    lattice = read_lattice(file, directory)
    assert (lattice.columns, lattice.rows, lattice.is_ycbcr, lattice.tables) == (2, 1, True, b"")
    assert (lattice.offsets.tolist(), lattice.counts.tolist()) == ([8, 100], [50, 60])


@pytest.mark.parametrize(
    ("fields", "counts", "reason"),
    [
        ({256: (4, [0])}, {}, "no pixels"),
        ({256: (4, [0xFFFFFFFF]), 257: (4, [0xFFFFFFFF])}, {}, "claims 1125899906842624 tiles"),
        ({}, {324: 0xFFFFFFFF}, "tag 324 has 4294967295 values"),
        ({}, {325: 0xFFFFFFFF, 324: 0xFFFFFFFF}, "has 4294967295 values"),
        ({322: (4, [1 << 31])}, {}, "tiles are 2147483648 x 128 px"),
        ({322: (4, [0])}, {}, "tiles are 0 x 128 px"),
        ({322: (4, [1])}, {}, "tiles are 1 x 128 px"),
        ({324: (4, [8, 5000])}, {}, "points outside the file"),
        ({324: (4, [8, 4090])}, {}, "points outside the file"),
        ({324: (16, [8, (1 << 64) - 1])}, {}, "points outside the file"),
        ({325: (16, [8, (1 << 64) - 1])}, {}, "absurd size"),
        ({325: (4, [8, 4097])}, {}, "absurd size"),
        ({324: (4, [0, 8])}, {}, "points outside the file"),  # bytes, but nowhere
        ({324: (4, [8])}, {}, "tag 324 has 1 values of type 4, 2 are needed"),
        ({324: (7, [8, 100])}, {}, "of type 7"),
        ({347: (7, [0xFF, 0xD8, 0xFF, 0xD9])}, {347: 0xFFFFFFFF}, "JPEG tables are damaged"),
        ({347: (7, [0xFF, 0xD8, 0xFF, 0xD9])}, {347: 65536}, "points outside the file"),
        ({347: (7, [0, 0, 0, 0, 0])}, {}, "JPEG tables are damaged"),
        ({259: (3, [33003])}, {}, "TIFF compression 33003"),
        ({262: (3, [5])}, {}, "neither RGB nor YCbCr"),
        ({277: (3, [4])}, {}, "neither RGB nor YCbCr"),
        ({284: (3, [2])}, {}, "stored by plane"),
        ({258: (3, [16, 16, 16])}, {}, "not of 8 bits"),
        ({258: (3, [8])}, {}, "tag 258 has 1 values"),
    ],
)  # fmt: skip
def test_hostile_images_are_refused(
    tmp_path: Path,
    fields: dict[int, tuple[int, list[int]]],
    counts: dict[int, int],
    reason: str,
) -> None:
    file = tiff(tmp_path / "a.tif", fields, counts)
    with little_memory(), pytest.raises(IndexRefusedError, match=reason):
        read_lattice(file, read_directories(file)[0])


def test_a_sparse_file_that_could_hold_it_does_not_help(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tiff(path, {347: (7, [1] * 5)}, {347: 0xFFFFFF00})
    os.truncate(path, 6 << 30)  # no disk is used
    file = OpenFile(str(path))
    with little_memory(), pytest.raises(IndexRefusedError, match="tables are damaged"):
        read_lattice(file, read_directories(file)[0])


def test_a_tile_may_be_missing(tmp_path: Path) -> None:
    file = tiff(tmp_path / "a.tif", {324: (4, [0, 100]), 325: (4, [0, 60])})
    lattice = read_lattice(file, read_directories(file)[0])
    assert (lattice.offsets.tolist(), lattice.counts.tolist()) == ([0, 100], [0, 60])


def test_chains_that_do_not_end(tmp_path: Path) -> None:
    for next_at, reason in (
        (1000, "runs in a circle"),
        (0xFFFFFFFF, "points outside the file"),
        (4095, "points outside the file"),
    ):
        file = tiff(tmp_path / "a.tif", next_at=next_at)
        with little_memory(), pytest.raises(IndexRefusedError, match=reason):
            read_directories(file)
    chain = b"".join(struct.pack("<HI", 0, 8 + 6 * (i + 1)) for i in range(100_000))
    (tmp_path / "b.tif").write_bytes(struct.pack("<2sHI", b"II", 42, 8) + chain)
    with little_memory(), pytest.raises(IndexRefusedError, match="more than 256 directories"):
        read_directories(OpenFile(str(tmp_path / "b.tif")))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "outside the file"),
        (b"II*\0", "outside the file"),
        (b"PK\3\4 no TIFF at all", "no TIFF"),
        (b"II\x2b\0\4\0\0\0" + b"\0" * 8, "no TIFF"),  # BigTIFF of 4-byte offsets
        (struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 1 << 60) + b"\0" * 99, "claims 1152921504606846976 entries"),
        (struct.pack("<2sHHHQ", b"II", 43, 8, 0, (1 << 64) - 1) + b"\0" * 99, "outside the file"),
        (struct.pack(">2sHIH", b"MM", 42, 8, 0xFFFF) + b"\0" * 99, "claims 65535 entries"),
    ],
)  # fmt: skip
def test_heads_that_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.tif").write_bytes(data)
    with little_memory(), pytest.raises(IndexRefusedError, match=reason):
        read_directories(OpenFile(str(tmp_path / "a.tif")))


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    file = tiff(tmp_path / "a.tif")
    (directory,) = read_directories(file)
    os.truncate(tmp_path / "a.tif", 1500)
    with pytest.raises(IndexRefusedError, match="become shorter"):
        read_lattice(file, directory)


SOF = b"\xff\xc0\x00\x11\x08\x01\x00\x02\x00\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"


def test_a_jpegs_header() -> None:
    header = read_header(b"\xff\xd8\xff\xfe\x00\x04hi" + SOF)
    assert header is not None
    assert (header.width_px, header.height_px, header.bits) == (512, 256, 8)
    assert (header.sampling, header.ids, header.sequential) == ((0x22, 0x11, 0x11), b"\1\2\3", True)
    assert header.taken_for_ycbcr
    rgb = read_header(
        b"\xff\xd8"
        + SOF.replace(b"\x01\x22", b"R\x11")
        .replace(b"\x02\x11", b"G\x11")
        .replace(b"\x03\x11", b"B\x11")
    )
    assert rgb is not None
    assert not rgb.taken_for_ycbcr
    progressive = read_header(b"\xff\xd8" + SOF.replace(b"\xff\xc0", b"\xff\xc2"))
    assert progressive is not None
    assert not progressive.sequential


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        SOF,
        b"\xff\xd8\0" + SOF,  # garbage that a decoder would skip
        b"\xff\xd8\xff\xd9" + SOF,
        b"\xff\xd8\xff\xda\x00\x02" + SOF,
        b"\xff\xd8\xff\xdb\x00\x01" + SOF,
        b"\xff\xd8\xff\xdb\xff\xff" + SOF,
        b"\xff\xd8" + SOF[:-1],
        b"\xff\xd8" + SOF.replace(b"\x02\x00\x03", b"\x02\x00\x04"),
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1000 + SOF,
    ],
)
def test_headers_that_are_none(data: bytes) -> None:
    assert read_header(data) is None


def test_only_tables_are_taken_from_shared_segments() -> None:
    dqt, dht, adobe, restart = (
        b"\xff\xdb\x00\x03q", b"\xff\xc4\x00\x03h", b"\xff\xee\x00\x03a", b"\xff\xdd\x00\x04\0\7",
    )  # fmt: skip
    assert table_segments(dqt + adobe + restart + dht) == dqt + dht
    assert table_segments(b"") == b""
    for damaged in (dqt[:-1], b"\0" + dqt, dqt + b"\xff", dqt + b"\xff\xc4", b"\xff\xdb\0\0"):
        assert table_segments(damaged) is None
