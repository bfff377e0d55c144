from __future__ import annotations

import io
import itertools
import os
import struct
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data

from dataflow import direct_level, shared_tiles
from dataflow.jpeg_tiles import JpegTiles
from dataflow.open_file import OpenFile
from dataflow.reader_jpeg_tiff import JpegTiffReader
from dataflow.reader_openslide import OpenSlideReader
from dataflow.slide import SlideReader, open_slide
from dataflow.tiff_index import read_directories, read_lattice
from dataflow.tile_reader import TilePlan, TileReader
from store_schema.errors import ReadFailedError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Tiff:
    """A TIFF of JPEG tiles, of any kind that scanners write."""

    order: str = "<"
    big: bool = False
    subsampling: int = 2  # Pillow's: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0
    rgb: bool = False
    abbreviated: bool = False
    tile_px: int = 128
    description: bytes = b""
    missing: frozenset[tuple[int, int]] = frozenset()  # (level, tile)
    quality: int = 85
    progressive: bool = False
    tags: dict[int, tuple[int, list[int]]] = field(default_factory=dict)

    def write(self, path: Path, *levels: Pixels) -> Path:
        with path.open("wb") as file:
            file.write(b"II" if self.order == "<" else b"MM")
            file.write(self.pack("HHHQ", 43, 8, 0, 0) if self.big else self.pack("HI", 42, 0))
            link = file.tell() - (8 if self.big else 4)
            for number, level in enumerate(levels):
                link = self._write_level(file, number, level, link)
        return path

    def pack(self, code: str, *values: int) -> bytes:
        return struct.pack(self.order + code, *values)

    def encode(self, tile: Pixels) -> tuple[bytes, bytes]:
        """Return a JPEG and its tables, empty unless they are taken out of it."""
        file = io.BytesIO()
        Image.fromarray(tile).save(
            file, "JPEG", quality=self.quality, subsampling=self.subsampling,
            keep_rgb=self.rgb, progressive=self.progressive,
        )  # fmt: skip
        jpeg, tables, kept, at = file.getvalue(), b"", b"\xff\xd8", 2
        if not self.abbreviated:
            return jpeg, b""
        while jpeg[at + 1] != 0xDA:
            end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
            if jpeg[at + 1] in (0xDB, 0xC4):
                tables += jpeg[at:end]
            elif jpeg[at + 1] != 0xEE:  # like Aperio: RGB, and no Adobe marker to say so
                kept += jpeg[at:end]
            at = end
        return kept + jpeg[at:], b"\xff\xd8" + tables + b"\xff\xd9"

    def _write_level(self, file: io.BufferedWriter, number: int, level: Pixels, link: int) -> int:
        (height, width), side = level.shape[:2], self.tile_px
        offsets, counts, tables = [], [], b""
        corners = itertools.product(range(0, height, side), range(0, width, side))
        for tile, (y, x) in enumerate(corners):
            pixels = level[y : y + side, x : x + side]
            beyond = ((0, side - pixels.shape[0]), (0, side - pixels.shape[1]), (0, 0))
            jpeg, tables = self.encode(np.pad(pixels, beyond, mode="edge"))
            absent = (number, tile) in self.missing
            offsets.append(0 if absent else file.tell())
            counts.append(0 if absent else file.write(jpeg))
        fields: dict[int, tuple[int, list[int]]] = {
            254: (4, [int(number > 0)]), 256: (4, [width]), 257: (4, [height]), 258: (3, [8, 8, 8]),
            259: (3, [7]), 262: (3, [2 if self.rgb else 6]), 277: (3, [3]), 284: (3, [1]),
            322: (4, [side]), 323: (3, [side]),
            324: (16 if self.big else 4, offsets), 325: (4, counts),
        }  # fmt: skip
        if not self.rgb:
            fields[530] = (3, [2 if self.subsampling else 1, 2 if self.subsampling == 2 else 1])
        if tables:
            fields[347] = (7, list(tables))
        if self.description and number == 0:
            fields[270] = (2, list(self.description + b"\0"))
        fields |= self.tags
        head, entry, value = ("Q", "HHQ", 8) if self.big else ("H", "HHI", 4)
        directory = self.pack(head, len(fields))
        for tag, (kind, values) in sorted(fields.items()):
            packed = self.pack(
                f"{len(values)}{ {2: 'B', 3: 'H', 4: 'I', 7: 'B', 16: 'Q'}[kind] }", *values
            )
            if len(packed) > value:
                file.write(b"\0" * (file.tell() % 2))
                place = file.tell()
                file.write(packed)
                packed = self.pack("Q" if self.big else "I", place)
            directory += self.pack(entry, tag, kind, len(values)) + packed.ljust(value, b"\0")
        file.write(b"\0" * (file.tell() % 2))
        place = file.tell()
        file.write(directory + b"\0" * value)
        end = file.tell()
        file.seek(link)
        file.write(self.pack("Q" if self.big else "I", place))
        file.seek(end)
        return end - value


KINDS = {
    "4:2:0": Tiff(),
    "4:2:2": Tiff(subsampling=1),
    "4:4:4": Tiff(subsampling=0),
    "abbreviated": Tiff(abbreviated=True),
    "rgb": Tiff(rgb=True, subsampling=0),
    "aperio rgb": Tiff(rgb=True, subsampling=0, abbreviated=True, description=b"Aperio |MPP = 0.5"),
    "aperio": Tiff(abbreviated=True, description=b"Aperio |MPP = 0.5|AppMag = 20", tile_px=240),
    "bigtiff": Tiff(big=True),
    "big-endian bigtiff": Tiff(order=">", big=True, abbreviated=True),
}


@pytest.fixture(scope="module")
def tissue() -> Pixels:
    """uint8 (452, 700, 3): stained tissue; no side is a multiple of a tile."""
    stained: Pixels = data.immunohistochemistry()  # type: ignore[no-untyped-call]
    pixels: Pixels = np.concatenate([stained[:452]] * 2, axis=1)[:, :700]
    return pixels


@pytest.fixture(scope="module")
def write(tissue: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a pyramid of the tissue: level 1 is half of it, level 2 is no whole fraction."""

    def write(tiff: Tiff) -> Path:
        image = Image.fromarray(tissue)
        half = np.asarray(image.resize((350, 226), Image.Resampling.BOX))
        odd = np.asarray(image.resize((210, 136), Image.Resampling.BOX))
        return tiff.write(tmp_path_factory.mktemp("slide") / "a.tif", tissue, half, odd)

    return write


def both(path: Path) -> tuple[JpegTiffReader, OpenSlideReader]:
    direct = open_slide(path)
    assert isinstance(direct, JpegTiffReader), direct.info.decoder
    return direct, OpenSlideReader(str(path), None)


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """Count how often each (level width, tile) is decoded from now on."""
    counts: Counter[tuple[int, int]] = Counter()
    original, lock = JpegTiles.decode, threading.Lock()

    def counting(tiles: JpegTiles, tile: int, out: Pixels) -> None:
        with lock:
            counts[tiles.lattice.width_px, tile] += 1
        original(tiles, tile, out)

    monkeypatch.setattr(JpegTiles, "decode", counting)
    return counts


def random_boxes(reader: SlideReader, level: int, n: int, seed: int) -> npt.NDArray[np.int64]:
    """Boxes all over a level, some beyond its border."""
    rng = np.random.default_rng(seed)
    size = reader.info.levels[level]
    x, y = rng.integers(-40, size.width + 20, n), rng.integers(-40, size.height + 20, n)
    boxes: npt.NDArray[np.int64] = np.stack(
        [x, y, rng.integers(1, 160, n), rng.integers(1, 160, n)], axis=1
    )
    return boxes


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_openslide(write: Callable[[Tiff], Path], kind: str) -> None:
    direct, plain = both(write(KINDS[kind]))
    assert direct.info.decoder == "libjpeg-turbo"
    assert direct.info.vendor == ("aperio" if "aperio" in kind else "generic-tiff")
    for level in (0, 1):
        size = direct.info.levels[level]
        whole = (level, 0, 0, size.width, size.height)
        expected = plain.read_level(*whole)
        assert np.array_equal(direct.read_level(*whole), expected)
        boxes = random_boxes(direct, level, 60, seed=level)
        shared = direct.shared(level, boxes)
        for i, (x, y, width, height) in enumerate(boxes.tolist()):
            out = np.empty((height, width, 3), np.uint8)
            shared.read(i, out)
            assert np.array_equal(out, plain.read_level(level, x, y, width, height))


def test_big_endian_classic_tiff_is_decoded_too(write: Callable[[Tiff], Path]) -> None:
    """OpenSlide knows none, so it is compared with its little-endian twin."""
    decoded = []
    for order in "<>":
        file = OpenFile(str(write(Tiff(order=order, abbreviated=True))))
        tiles = JpegTiles.of(file, read_lattice(file, read_directories(file)[1]))
        assert (tiles.lattice.width_px, tiles.lattice.columns, tiles.lattice.rows) == (350, 3, 2)
        out = np.empty((6, 128, 128, 3), np.uint8)
        for tile in range(6):
            tiles.decode(tile, out[tile])
        decoded.append(out)
    assert np.array_equal(decoded[0], decoded[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_random_boxes_are_those_of_openslide(
    write: Callable[[Tiff], Path], kind: str
) -> None:
    direct, plain = both(write(KINDS[kind]))
    for level, n in ((0, 600), (1, 600)):
        for x, y, width, height in random_boxes(direct, level, n, seed=7).tolist():
            read = (level, x, y, width, height)
            assert np.array_equal(direct.read_level(*read), plain.read_level(*read)), read


def test_a_level_of_fractional_downsample_is_read_at_its_own_pixels(
    write: Callable[[Tiff], Path], tissue: Pixels
) -> None:
    direct, plain = both(write(Tiff(subsampling=0, quality=95)))
    level = direct.info.levels[2]
    assert level.downsample != round(level.downsample)
    whole = direct.read_level(2, 0, 0, level.width, level.height)
    assert np.array_equal(whole, plain.read_level(2, 0, 0, level.width, level.height))
    odd = np.asarray(Image.fromarray(tissue).resize((210, 136), Image.Resampling.BOX))
    assert np.abs(whole.astype(int) - odd).mean() < 3
    # a box elsewhere is a part of it, where OpenSlide's is moved by a fraction of a pixel
    assert np.array_equal(direct.read_level(2, 61, 33, 80, 70), whole[33:103, 61:141])
    assert not np.array_equal(plain.read_level(2, 61, 33, 80, 70), whole[33:103, 61:141])


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "CropBreastSlide.tiff"])
def test_real_slides_are_read_as_by_openslide(test_data: Path, name: str) -> None:
    direct, plain = both(test_data / "slides" / name)
    whole = direct.info.levels[0]
    assert np.array_equal(
        direct.read_level(0, 0, 0, whole.width, whole.height),
        plain.read_level(0, 0, 0, whole.width, whole.height),
    )


def test_a_slide_of_jpeg_2000_says_why_openslide_reads_it(test_data: Path) -> None:
    reader = open_slide(test_data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs")
    assert isinstance(reader, OpenSlideReader)
    assert reader.info.decoder == (
        "openslide (level 0, 1: it is not stored as JPEG but by TIFF compression 33005)"
    )


@pytest.mark.parametrize("number", ["000", "017"])
def test_all_tiles_of_cohort_slides_are_those_of_openslide(test_data: Path, number: str) -> None:
    direct, plain = both(test_data / "cohort" / "slides" / f"mc_normal_{number}.tif")
    for level, size in enumerate(direct.info.levels):
        for y, x in itertools.product(range(0, size.height, 256), range(0, size.width, 256)):
            tile = (level, x, y, 256, 256)
            assert np.array_equal(direct.read_level(*tile), plain.read_level(*tile))


@pytest.mark.slow
def test_random_tiles_of_the_cohort_are_those_of_openslide(test_data: Path) -> None:
    for path in sorted((test_data / "cohort" / "slides").glob("*.tif"))[::4]:
        direct, plain = both(path)
        for level in range(len(direct.info.levels)):
            for x, y, width, height in random_boxes(direct, level, 50, seed=3).tolist():
                box = (level, x, y, width, height)
                assert np.array_equal(direct.read_level(*box), plain.read_level(*box))


def block(n: int, step: int, offset: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    rows, columns = np.divmod(np.arange(n * n, dtype=np.int32), n)
    return columns * step + offset, rows * step + offset


@pytest.mark.parametrize(
    ("tile_level0", "offset"), [(128, 0), (128, 37), (64, 100), (100, 5), (192, 11)]
)
@pytest.mark.parametrize("threads", [1, 4])
def test_a_block_decodes_each_tile_once(
    write: Callable[[Tiff], Path], monkeypatch: pytest.MonkeyPatch,
    tile_level0: int, offset: int, threads: int,
) -> None:  # fmt: skip
    direct, plain = both(write(Tiff()))
    x, y = block(2, tile_level0, offset)
    plan = TilePlan(tile_px=64, tile_level0=tile_level0, level=0, level_downsample=1.0)
    expected = np.empty((4, 64, 64, 3), np.uint8)
    TileReader(plain, plan, x, y).read(0, 4, expected)
    counts = count_decodes(monkeypatch)
    tiles = np.empty_like(expected)
    reader = TileReader(direct, plan, x, y)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda i: reader.read(i, i + 1, tiles[i : i + 1]), range(4)))
    assert np.array_equal(tiles, expected)
    side = range(offset // 128, -(-(offset + 2 * tile_level0) // 128))
    assert counts == {(700, row * 6 + column): 1 for row in side for column in side if row < 4}


def test_many_threads_share_each_tile(
    write: Callable[[Tiff], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, plain = both(write(Tiff()))
    x, y = block(12, 32, 3)
    plan = TilePlan(tile_px=64, tile_level0=64, level=0, level_downsample=1.0)  # they overlap
    counts = count_decodes(monkeypatch)
    reader = TileReader(direct, plan, x, y)
    tiles = np.empty((144, 64, 64, 3), np.uint8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: reader.read(i, i + 1, tiles[i : i + 1]), range(144)))
    assert set(counts.values()) == {1}
    whole = plain.read_level(0, 0, 0, 700, 452)
    for i in range(144):
        assert np.array_equal(tiles[i], whole[y[i] : y[i] + 64, x[i] : x[i] + 64])


def test_one_call_decodes_each_tile_once(
    write: Callable[[Tiff], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, _ = both(write(Tiff()))
    counts = count_decodes(monkeypatch)
    direct.read_level(0, 0, 0, 700, 452)
    assert counts == {(700, tile): 1 for tile in range(24)}


def test_tiles_that_are_kept_are_bounded(
    write: Callable[[Tiff], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, plain = both(write(Tiff()))
    monkeypatch.setattr(shared_tiles, "_MAX_HELD_BYTES", 2 * 128 * 128 * 3)
    boxes = np.array([[0, y, 700, 40] for y in range(0, 452, 40)], np.int64)
    shared = direct.shared(0, boxes)
    assert isinstance(shared, shared_tiles.SharedTiles)
    for i, (x, y, width, height) in enumerate(boxes.tolist()):
        out = np.empty((height, width, 3), np.uint8)
        shared.read(i, out)
        assert len(shared._held) <= 2
        assert np.array_equal(out, plain.read_level(0, x, y, width, height))
    assert not shared._held


def test_missing_tiles_are_read_as_by_openslide(write: Callable[[Tiff], Path]) -> None:
    aperio = Tiff(description=b"Aperio |MPP = 0.5", missing=frozenset({(0, 8)}))
    direct, plain = both(write(aperio))
    assert (
        direct.info.decoder == "libjpeg-turbo, and openslide (level 1, 2: finer levels lack tiles)"
    )
    for level, size in enumerate(direct.info.levels[:2]):
        box = (level, 0, 0, size.width, size.height)
        assert np.array_equal(direct.read_level(*box), plain.read_level(*box))
    assert (direct.read_level(0, 256, 128, 128, 128) == 255).all()


def damaged(path: Path, level: int, tile: int, at: float, by: bytes) -> None:
    """Overwrite a part of one encoded tile."""
    reader = open_slide(path)
    assert isinstance(reader, JpegTiffReader)
    lattice = reader._levels[level].tiles.lattice
    with path.open("r+b") as file:
        file.seek(int(lattice.offsets[tile]) + int(lattice.counts[tile] * at))
        file.write(by)


def read_or_none(reader: SlideReader, *box: int) -> Pixels | None:
    try:
        return reader.read_level(*box)
    except ReadFailedError:
        return None


def test_damage_that_openslide_passes_is_an_error_where_libjpeg_notices(
    write: Callable[[Tiff], Path],
) -> None:
    path = write(Tiff())
    healthy, pristine = path.read_bytes(), OpenSlideReader(str(path), None)
    tile = pristine.read_level(0, 128, 128, 128, 128)
    outcomes: Counter[tuple[bool, bool]] = Counter()
    for seed in range(40):
        path.write_bytes(healthy)
        noise = np.random.default_rng(seed).integers(0, 255, 8, dtype=np.uint8).tobytes()
        damaged(path, level=0, tile=7, at=0.5, by=noise)
        direct, plain = both(path)
        seen = [read_or_none(reader, 0, 128, 128, 128, 128) for reader in (plain, direct)]
        outcomes[seen[0] is None, seen[1] is None] += 1
        if (
            seen[0] is not None and seen[1] is not None
        ):  # not even libjpeg notices: then both see the same, changed pixels
            assert np.array_equal(seen[0], seen[1])
            assert not np.array_equal(seen[0], tile)
        neighbour = (0, 256, 128, 128, 128)
        assert np.array_equal(direct.read_level(*neighbour), pristine.read_level(*neighbour))
    assert outcomes[True, False] == 0  # what OpenSlide notices is noticed
    assert outcomes[False, True] >= 5  # and more


def test_all_that_share_a_damaged_tile_fail_and_the_others_do_not(
    write: Callable[[Tiff], Path],
) -> None:
    path = write(Tiff())
    damaged(path, level=0, tile=7, at=0.5, by=b"\xff\xd9" * 8)
    direct, plain = both(path)
    boxes = np.array([[x, 60, 100, 100] for x in range(0, 600, 60)], np.int64)
    shared = direct.shared(0, boxes)

    def read(i: int) -> bool:
        out = np.empty((100, 100, 3), np.uint8)
        try:
            shared.read(i, out)
        except ReadFailedError:
            return False
        return np.array_equal(out, plain.read_level(0, *boxes[i].tolist()))

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(read, range(len(boxes))))
    touches = [x < 256 and x + 100 > 128 for x in range(0, 600, 60)]
    assert done == [not touched for touched in touches]


def test_a_tile_that_declares_another_size_is_not_decoded(write: Callable[[Tiff], Path]) -> None:
    path = write(Tiff())
    direct = open_slide(path)
    assert isinstance(direct, JpegTiffReader)
    tiles = direct._levels[0].tiles
    jpeg = tiles.file.read(int(tiles.lattice.offsets[3]), int(tiles.lattice.counts[3]))
    frame = jpeg.index(b"\xff\xc0")
    with path.open("r+b") as file:
        file.seek(int(tiles.lattice.offsets[3]) + frame + 5)
        file.write(struct.pack(">HH", 65500, 65500))
    with pytest.raises(ReadFailedError, match="declares 65500 x 65500 px"):
        direct.read_level(0, 3 * 128, 0, 10, 10)
    assert direct.read_level(0, 0, 0, 10, 10).shape == (10, 10, 3)


def test_a_file_cut_short_while_it_is_read(write: Callable[[Tiff], Path]) -> None:
    path = write(Tiff())
    direct = open_slide(path)
    os.truncate(path, 3000)
    with pytest.raises(ReadFailedError, match="the file has become shorter"):
        direct.read_level(0, 600, 400, 50, 50)


def test_progressive_tiles_are_left_to_openslide(write: Callable[[Tiff], Path]) -> None:
    reader = open_slide(write(Tiff(progressive=True)))
    assert isinstance(reader, OpenSlideReader)
    assert "no sequential 8-bit JPEG" in reader.info.decoder


def test_a_slide_whose_pixels_come_out_different_is_left_to_openslide(
    write: Callable[[Tiff], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = JpegTiles.decode

    def brighter(tiles: JpegTiles, tile: int, out: Pixels) -> None:
        original(tiles, tile, out)
        out[5, 5, 1] ^= 1

    monkeypatch.setattr(JpegTiles, "decode", brighter)
    reader = open_slide(write(Tiff()))
    assert isinstance(reader, OpenSlideReader)
    assert reader.info.decoder == "openslide (level 0, 1, 2: its pixels came out different)"


def test_a_slide_all_of_whose_tiles_make_libjpeg_warn_is_left_to_openslide(
    write: Callable[[Tiff], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Tiff.encode

    def with_garbage(tiff: Tiff, tile: Pixels) -> tuple[bytes, bytes]:
        jpeg, tables = original(tiff, tile)
        return jpeg[:-2] + b"\0" * 40 + jpeg[-2:], tables

    monkeypatch.setattr(Tiff, "encode", with_garbage)
    reader = open_slide(write(Tiff()))
    assert isinstance(reader, OpenSlideReader)
    assert "extraneous bytes" in reader.info.decoder


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({274: (3, [6])}, "stored by plane, or turned"),
        ({325: (4, [1 << 30] * 24)}, "absurd size"),
    ],
)
def test_what_the_index_must_not_say(
    write: Callable[[Tiff], Path],
    tags: dict[int, tuple[int, list[int]]],
    reason: str,
    tissue: Pixels,
    tmp_path: Path,
) -> None:
    reader = open_slide(Tiff(tags=tags).write(tmp_path / "a.tif", tissue))
    assert isinstance(reader, OpenSlideReader)
    assert reason in reader.info.decoder


def test_a_slide_is_compared_once_a_process(
    write: Callable[[Tiff], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(Tiff())
    compared: list[int] = []
    original = direct_level.DirectLevel.compare

    def counting(level: direct_level.DirectLevel) -> direct_level.Comparison:
        compared.append(level.level)
        return original(level)

    monkeypatch.setattr(direct_level.DirectLevel, "compare", counting)
    for _ in range(3):
        open_slide(path)
    assert compared == [0, 1, 2]


def test_a_closed_reader_says_so_for_announced_boxes_too(write: Callable[[Tiff], Path]) -> None:
    direct, _ = both(write(Tiff()))
    shared = direct.shared(0, np.array([[0, 0, 128, 128]], np.int64))
    direct.close()
    with pytest.raises(ReadFailedError, match="closed"):
        shared.read(0, np.empty((128, 128, 3), np.uint8))
    with pytest.raises(ReadFailedError, match="closed"):
        direct.read_level(0, 0, 0, 10, 10)
