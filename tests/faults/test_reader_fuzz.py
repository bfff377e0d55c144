"""Changed bytes in a TIFF's index and JPEG headers: refused or read, never more."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflow.jpeg_tiles import JpegTiles, TileDamagedError
from dataflow.open_file import OpenFile
from dataflow.reader_jpeg_tiff import JpegTiffReader
from dataflow.slide import open_slide
from dataflow.tiff_index import IndexRefusedError, image_size, read_directories, read_lattice
from store_schema.errors import ReadFailedError, UnreadableSlideError

Edits = list[tuple[int, bytes]]

MEMORY_BYTES = 8 << 20  # the files have 20 KB
READ_BYTES = 8 << 20
SIDE_PX = 64
LARGEST_TILE: npt.NDArray[np.uint8] = np.empty(
    (2048, 2048, 3), np.uint8
)  # of those that are decoded


def healthy(order: str, *, big: bool) -> bytes:
    """Return a TIFF of two images of 2 x 2 tiles, with shared tables; its index lies at its beginning."""
    rng = np.random.default_rng(5)
    pixels = np.asarray(
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((SIDE_PX, SIDE_PX))
    )
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=70)
    jpeg = file.getvalue()
    head, entry, link, value = ("Q", "HHQ", "Q", 8) if big else ("H", "HHI", "I", 4)
    start = 16 if big else 8
    magic = (43, 8, 0, start) if big else (42, start)
    out = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HI"), *magic
    )
    values_at, values = 1024, b""
    tiles_at = 4096
    for n in range(2):
        fields: dict[int, tuple[int, bytes]] = {
            tag: (kind, struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers))
            for tag, kind, numbers in (
                (254, 4, [n]), (256, 4, [100 - n]), (257, 4, [90]), (258, 3, [8, 8, 8]), (259, 3, [7]),
                (262, 3, [6]), (277, 3, [3]), (284, 3, [1]), (322, 3, [SIDE_PX]), (323, 3, [SIDE_PX]),
                (324, 4, [tiles_at] * 4), (325, 4, [len(jpeg)] * 4),
            )
        }  # fmt: skip
        fields[347] = (7, b"\xff\xd8\xff\xdb\x00\x43\x00" + b"\x10" * 64 + b"\xff\xd9")
        out += struct.pack(order + head, len(fields))
        for tag, (kind, packed) in sorted(fields.items()):
            count = len(packed) // {3: 2, 4: 4, 7: 1}[kind]
            inline = packed.ljust(value, b"\0")
            if len(packed) > value:
                inline = struct.pack(order + link, values_at + len(values))
                values += packed
            out += struct.pack(order + entry, tag, kind, count) + inline
        out += struct.pack(order + link, 0 if n else len(out) + struct.calcsize(order + link))
    return (out.ljust(values_at, b"\0") + values).ljust(tiles_at, b"\0") + jpeg


FILES = {f"{order}{big}": healthy(order, big=big) for order in "<>" for big in (False, True)}
SIZE = min(map(len, FILES.values()))
# a few places and what is written there; mostly in the directories, their values and the JPEG's head
PLACES = st.one_of(
    st.integers(0, 620), st.integers(1024, 1400), st.integers(4096, 4800), st.integers(0, SIZE)
)
NUMBERS = st.sampled_from(
    [
        (number & ((1 << 8 * width) - 1)).to_bytes(width, order)
        for number in (0, 1, 2, 7, 8, 63, 65, 255, 256, 4095, 65535, 1 << 16, 1 << 31, -1, 1 << 63)
        for width in (1, 2, 4, 8)
        for order in ("little", "big")
    ]
)
WRITTEN = st.one_of(NUMBERS, NUMBERS, st.binary(min_size=1, max_size=12))
EDITS = st.lists(st.tuples(PLACES, WRITTEN), min_size=1, max_size=4)
KEPT = st.one_of(st.just(1 << 30), st.integers(0, SIZE))  # of the file's bytes


def mutate(data: bytes, edits: Edits) -> bytes:
    changed = bytearray(data)
    for place, written in edits:
        changed[place : place + len(written)] = written
    return bytes(changed)


class CountingFile(OpenFile):
    """Counts the bytes that are asked of it."""

    asked = 0

    def read(self, start: int, length: int) -> bytes:
        self.asked += length
        return super().read(start, length)


def use(path: Path) -> str:
    """Read all of a file's tiles; return what came of it. Anything but a refusal is a failure of the test."""
    file = CountingFile(str(path))
    n_decoded, refused = 0, ""
    try:
        for directory in read_directories(file):
            if image_size(file, directory) is None:
                continue
            tiles = JpegTiles.of(file, read_lattice(file, directory))
            lattice = tiles.lattice
            shape = (lattice.tile_height_px, lattice.tile_width_px, 3)
            pixels = LARGEST_TILE.reshape(-1)[: np.prod(shape)].reshape(shape)
            for tile in range(min(lattice.columns * lattice.rows, 8)):
                if tiles.missing(tile):
                    continue
                try:
                    tiles.decode(tile, pixels)
                    n_decoded += 1
                except TileDamagedError:
                    refused = "tile refused"
    except IndexRefusedError:
        refused = "index refused"
    assert file.asked < READ_BYTES
    return refused or ("read" if n_decoded else "nothing to read")


def many(request: pytest.FixtureRequest, short: int, long: int) -> int:
    return long if request.config.getoption("--slow") else short


def test_changed_indices_are_refused_or_read(
    request: pytest.FixtureRequest, tmp_path: Path, fault_counts: Callable[..., None]
) -> None:
    outcomes: Counter[str] = Counter()
    path = tmp_path / "a.tif"
    for data in FILES.values():
        path.write_bytes(data)
        assert use(path) == "read"

    @settings(
        max_examples=many(request, 1_000, 12_000), deadline=5_000, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.sampled_from(sorted(FILES)), EDITS, KEPT)
    def run(kind: str, edits: Edits, kept: int) -> None:
        path.write_bytes(mutate(FILES[kind], edits)[:kept])
        tracemalloc.start()  # of this only: it slows Hypothesis down tenfold
        try:
            outcomes[use(path)] += 1
            assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
        finally:
            tracemalloc.stop()

    run()
    tried = sum(outcomes.values())
    detected = outcomes["index refused"] + outcomes["tile refused"]
    fault_counts("a TIFF's index or JPEG header changed", tried=tried, detected=detected)
    assert detected > tried / 4  # the changes do hit something
    assert outcomes["read"] > tried / 20


def test_changed_slides_are_refused_or_read_as_a_whole(
    request: pytest.FixtureRequest, tmp_path: Path, fault_counts: Callable[..., None]
) -> None:
    outcomes: Counter[str] = Counter()
    path = tmp_path / "a.tif"

    @settings(
        max_examples=many(request, 100, 1_500), deadline=10_000, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(EDITS)
    def run(edits: Edits) -> None:
        path.write_bytes(mutate(FILES["<False"], edits))
        try:
            reader = open_slide(path)
        except UnreadableSlideError:
            outcomes["refused"] += 1
            return
        if not isinstance(reader, JpegTiffReader):
            outcomes["left to others"] += 1
            return
        try:
            assert reader.read_level(0, 0, 0, SIDE_PX, SIDE_PX).shape == (SIDE_PX, SIDE_PX, 3)
            outcomes["read"] += 1
        except ReadFailedError:
            outcomes["tile refused"] += 1
        finally:
            reader.close()

    run()
    fault_counts(
        "a TIFF slide changed", tried=sum(outcomes.values()),
        detected=outcomes["refused"] + outcomes["tile refused"],
    )  # fmt: skip
    assert outcomes["read"]
