from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest
import tifffile
from PIL import Image

from dataflow import reader_image
from dataflow.area_read import read_thumbnail
from dataflow.reader_openslide import OpenSlideReader, over_white
from dataflow.slide import SlideReader, levels_of, open_slide
from store_schema.errors import InputError, ReadFailedError, UnreadableSlideError


def test_a_pyramid_is_described_and_read(
    make_slide: Callable[..., Path], smooth_image: npt.NDArray[np.uint8]
) -> None:
    reader = open_slide(make_slide("a.tif"))
    info = reader.info
    assert (info.vendor, info.width, info.height) == ("generic-tiff", 900, 700)
    assert [(level.width, level.height, level.downsample) for level in info.levels] == [
        (900, 700, 1.0), (450, 350, 2.0), (225, 175, 4.0),
    ]  # fmt: skip
    assert info.mpp == pytest.approx(0.5, rel=1e-6)
    assert info.mpp_source == "properties"
    box = reader.read_level(0, 100, 200, 300, 150)  # x before y; rows before columns
    assert box.shape == (150, 300, 3)
    assert box.flags.c_contiguous
    assert np.abs(box.astype(int) - smooth_image[200:350, 100:400]).max() <= 6


def test_outside_a_slide_is_white(make_slide: Callable[..., Path]) -> None:
    reader = open_slide(make_slide("a.tif"))
    box = reader.read_level(1, 440, -10, 30, 20)
    assert (box[:10] == 255).all()
    assert (box[:, 10:] == 255).all()
    assert (box[10:, :10] < 255).any(axis=-1).all()


def test_given_mpp_wins_and_nonsense_is_refused(make_slide: Callable[..., Path]) -> None:
    path = make_slide("a.tif", mpp=264.58)
    assert open_slide(path).info.mpp is None
    assert open_slide(path, mpp=0.25).info.mpp == 0.25
    with pytest.raises(InputError):
        open_slide(path, mpp=-1)


def test_rounded_level_sizes_have_whole_downsamples() -> None:
    levels = levels_of([(11952, 10249), (2988, 2562)], [1.0, 4.000195])
    assert levels[1].downsample == 4.0
    assert levels_of([(1000, 1000), (300, 300)], [1.0, 10 / 3])[1].downsample == 10 / 3


def test_transparent_is_white() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 128]]], np.uint8)
    assert over_white(rgba).tolist() == [[[10, 20, 30], [255, 255, 255], [127, 177, 227]]]


def test_what_is_no_slide_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.svs").touch()
    (tmp_path / "text.svs").write_text("not a slide")
    os.mkfifo(tmp_path / "fifo.svs")
    for name, part in {
        "missing.svs": "no such file",
        "": "a folder",
        "empty.svs": "0 bytes",
        "text.svs": "not recognised",
        "fifo.svs": "not a regular file",
        "nul\0byte.svs": "can't be opened",
    }.items():
        with pytest.raises(UnreadableSlideError, match=part) as caught:
            open_slide(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [4, 100, 3000, 20_000])
def test_a_truncated_slide_gets_a_sentence(make_slide: Callable[..., Path], kept: int) -> None:
    path = make_slide("a.tif")
    os.truncate(path, kept)
    with pytest.raises((UnreadableSlideError, ReadFailedError)):
        read_thumbnail(open_slide(path), 4.0)


def damage(path: Path, level: int, tile: int) -> None:
    """Overwrite the middle of one encoded tile."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[level]
        offset, count = page.dataoffsets[tile], page.databytecounts[tile]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff\xd9" * (count // 2))


@pytest.fixture(params=["directly", "by OpenSlide"])
def opener(request: pytest.FixtureRequest) -> Callable[[Path], SlideReader]:
    """Both ways by which a TIFF of JPEG tiles can be read."""
    if request.param == "directly":
        return open_slide
    return lambda path: OpenSlideReader(str(path), None)


def test_a_damaged_tile_fails_and_its_neighbours_still_read(
    make_slide: Callable[..., Path], opener: Callable[[Path], SlideReader]
) -> None:
    path = make_slide("a.tif")
    damage(path, level=0, tile=0)
    reader = opener(path)
    before = reader.read_level(0, 300, 0, 200, 200)
    for _ in range(2):
        with pytest.raises(ReadFailedError, match="x=0, y=0"):
            reader.read_level(0, 0, 0, 200, 200)
        assert np.array_equal(reader.read_level(0, 300, 0, 200, 200), before)


def test_failing_reads_of_one_thread_do_not_disturb_the_others(
    make_slide: Callable[..., Path], opener: Callable[[Path], SlideReader]
) -> None:
    path = make_slide("a.tif")
    damage(path, level=0, tile=0)
    reader = opener(path)
    expected = reader.read_level(0, 300, 0, 200, 200)

    def read(i: int) -> bool:
        if i % 2:
            return np.array_equal(reader.read_level(0, 300, 0, 200, 200), expected)
        with pytest.raises(ReadFailedError):
            reader.read_level(0, 0, 0, 200, 200)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(200)))


def test_a_closed_reader_says_so(make_slide: Callable[..., Path], tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for path in (make_slide("a.tif"), tmp_path / "a.png"):
        reader = open_slide(path)
        reader.close()
        with pytest.raises(ReadFailedError, match="closed"):
            reader.read_level(0, 0, 0, 2, 2)


def test_a_slide_that_goes_away(
    make_slide: Callable[..., Path], opener: Callable[[Path], SlideReader]
) -> None:
    path = make_slide("a.tif")
    damage(path, level=0, tile=0)
    reader = opener(path)
    before = reader.read_level(0, 300, 0, 200, 200)
    path.unlink()
    with pytest.raises(ReadFailedError):
        reader.read_level(0, 0, 0, 200, 200)
    if isinstance(reader, OpenSlideReader):  # it opens the file again after an error
        with pytest.raises(ReadFailedError):
            reader.read_level(0, 300, 0, 200, 200)
    else:  # it holds the file open
        assert np.array_equal(reader.read_level(0, 300, 0, 200, 200), before)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "no_suffix"])
def test_plain_images_are_slides_of_one_level(tmp_path: Path, name: str) -> None:
    pixels = np.full((30, 40, 3), (200, 100, 150), np.uint8)
    pixels[10:, 20:] = (10, 20, 30)
    kind = {"a.tif": "TIFF", "a.jpg": "JPEG"}.get(name, "PNG")
    Image.fromarray(pixels).save(tmp_path / name, kind)
    reader = open_slide(tmp_path / name)
    assert (reader.info.vendor, len(reader.info.levels)) == (f"image-{kind.lower()}", 1)
    assert (reader.info.width, reader.info.height, reader.info.mpp) == (40, 30, None)
    assert open_slide(tmp_path / name, mpp=0.5).info.mpp == 0.5
    box = reader.read_level(0, -5, 5, 40, 30)
    assert (box[:, :5] == 255).all()
    assert (box[25:] == 255).all()
    difference = np.abs(box[:25, 5:].astype(int) - pixels[5:30, :35])
    assert difference.mean() < (5 if kind == "JPEG" else 1e-9)
    with pytest.raises(IndexError):
        reader.read_level(1, 0, 0, 1, 1)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA"])
def test_images_of_other_kinds_are_converted(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (8, 8), (100, 100, 100)).convert(mode).save(tmp_path / "a.png")
    box = open_slide(tmp_path / "a.png").read_level(0, 0, 0, 8, 8)
    assert np.abs(box.astype(int) - 100).max() <= 2


def test_transparent_pixels_of_an_image_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (100, 100, 100, 0)).save(tmp_path / "a.tif")
    assert (open_slide(tmp_path / "a.tif").read_level(0, 0, 0, 8, 8) == 255).all()


def test_sixteen_bit_png_keeps_its_range(tmp_path: Path) -> None:
    # Pillow writes no 16-bit RGB; its 16-bit grey is refused, since its range isn't known
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "grey.png")
    with pytest.raises(UnreadableSlideError, match="8-bit RGB"):
        open_slide(tmp_path / "grey.png")


def test_kinds_of_pixels_that_are_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8)).save(tmp_path / "cmyk.jpg")
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    tifffile.imwrite(tmp_path / "deep.tif", np.full((8, 8, 3), 4000, np.uint16), photometric="rgb")
    for name in ("cmyk.jpg", "float.tif", "deep.tif"):
        with pytest.raises(UnreadableSlideError, match="convert the image to 8-bit RGB"):
            open_slide(tmp_path / name)


def test_truncated_images(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8))
    for name in ("a.png", "a.jpg", "a.tif"):
        path = tmp_path / name
        image.save(path)
        size = path.stat().st_size
        for kept in (9, 40, size // 2):
            os.truncate(path, kept) if kept < path.stat().st_size else None
            with pytest.raises((UnreadableSlideError, ReadFailedError)):
                open_slide(path).read_level(0, 0, 0, 99, 99)
            image.save(path)


def test_a_huge_image_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(reader_image, "MAX_IMAGE_PX", 9_999)
    with pytest.raises(UnreadableSlideError, match=r"100 x 100 px is too large.*pyramidal"):
        open_slide(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "vendor", "size", "mpp"),
    [
        ("CMU-1-Small-Region.svs", "aperio", (2220, 2967), 0.499),
        ("TCGA-CR-7395-01A-01-TS1.svs", "aperio", (4443, 3567), None),
        ("luna_1065626.svs", "aperio", (11952, 10249), 0.5026),
        ("CropBreastSlide.tiff", "generic-tiff", (2033, 1525), None),
        ("slaid_patch.tif", "generic-tiff", (256, 256), None),
        ("camelyon_multiframe_j2k.dcm", "dicom", (1696, 812), None),
    ],
)
def test_real_slides(
    test_data: Path, name: str, vendor: str, size: tuple[int, int], mpp: float | None
) -> None:
    reader = open_slide(test_data / "slides" / name)
    info = reader.info
    assert (info.vendor, (info.width, info.height)) == (vendor, size)
    assert info.mpp == (None if mpp is None else pytest.approx(mpp))
    assert all(level.downsample == round(level.downsample) for level in info.levels)
    with openslide.OpenSlide(test_data / "slides" / name) as slide:
        region = np.asarray(slide.read_region((100, 60), 0, (90, 70)))
    assert np.array_equal(reader.read_level(0, 100, 60, 90, 70), over_white(region))
    px = max(1.0, info.width / 300)
    thumbnail = read_thumbnail(reader, px)
    assert 100 < thumbnail.mean() < 255
    if vendor == "aperio":  # the scanner's own coarsest level shows the same
        last = info.levels[-1]
        coarse = reader.read_level(len(info.levels) - 1, 0, 0, last.width, last.height)
        assert np.abs(coarse.mean(axis=(0, 1)) - thumbnail.mean(axis=(0, 1))).max() < 3


def test_broken_slides(test_data: Path) -> None:
    broken = test_data / "broken"
    for name, part in (
        ("unopenable.tiff", "Unsupported TIFF compression"),
        ("histolab-broken.svs", "not recognised"),
    ):
        with pytest.raises(UnreadableSlideError, match=part):
            open_slide(broken / name)
    reader = open_slide(broken / "unreadable.svs")
    assert isinstance(reader, OpenSlideReader)
    with pytest.raises(ReadFailedError, match="can't be decoded"):
        read_thumbnail(reader, 1.0)


def test_a_slide_may_be_read_only(make_slide: Callable[..., Path]) -> None:
    path = make_slide("a.tif")
    path.chmod(0o444)
    assert open_slide(path).read_level(2, 0, 0, 10, 10).shape == (10, 10, 3)


def test_a_handle_is_replaced_once_after_a_failure(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_slide("a.tif")
    damage(path, level=0, tile=0)
    reader = OpenSlideReader(str(path), None)
    with pytest.raises(ReadFailedError):
        reader.read_level(0, 0, 0, 200, 200)
    opened: list[str] = []
    original = openslide.OpenSlide.__init__

    def counting(slide: openslide.OpenSlide, filename: str) -> None:
        opened.append(filename)
        original(slide, filename)

    monkeypatch.setattr(openslide.OpenSlide, "__init__", counting)
    for _ in range(5):
        reader.read_level(0, 300, 0, 200, 200)
    assert opened == [str(path)]
