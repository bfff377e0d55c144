from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dataflow.ground import Ground, read_ground
from dataflow.heat_colours import HeatmapStyle, rank_percentile, scaled
from dataflow.heat_layers import Outline, RasterScores, TileScores
from dataflow.heatmap import LONG_SIDE_PX, heatmap_picture
from dataflow.slide_digest import slide_digest
from store_schema.errors import InputError
from store_schema.specs import SlideRecord, TileTable

SIDE = 2000  # the slide; two level-0 px a picture px
TILE = 400
TOP = 108  # of the views
PINK = (230, 150, 190)


def ground(thumbnail: bool = True, **changes: object) -> Ground:
    pixels = np.full((500, 500, 3), PINK, np.uint8)
    pixels[:250] = (250, 250, 250)
    return Ground(SIDE, SIDE, 0.5, pixels if thumbnail else None, 4.0, **changes)  # type: ignore[arg-type]


def scores(
    corners: list[tuple[int, int]], values: list[float], low: float | None = None
) -> TileScores:
    x, y = (np.array(column, np.int32) for column in zip(*corners, strict=True))
    table = TileTable(x, y, y // TILE, x // TILE, np.ones(len(x), np.float32))
    return TileScores(table, TILE, np.array(values, np.float32), "attention", low)


def tiles_at_origin(n: int) -> TileTable:
    zeros = np.zeros(n, np.int32)
    return TileTable(zeros, zeros, zeros, zeros, np.ones(n, np.float32))


def overlay_at(picture: Image.Image, x: int, y: int, thumbnail: bool = True) -> tuple[int, ...]:
    """Colour of the overlay at a place of the slide [px, level 0]."""
    left = 20 + (LONG_SIDE_PX + 20 if thumbnail else 0)
    pixel = picture.getpixel((left + x // 2, TOP + y // 2))
    assert isinstance(pixel, tuple)
    return pixel


def blended(share: float, below: int, style: HeatmapStyle) -> npt.NDArray[np.float64]:
    colour = np.array(matplotlib.colormaps[style.cmap](float(share))[:3]) * 255
    mixed: npt.NDArray[np.float64] = style.alpha * colour + (1 - style.alpha) * below
    return mixed


@pytest.mark.parametrize("style", [HeatmapStyle(), HeatmapStyle("magma", 0.3)])
def test_colours_lie_where_the_tiles_are(style: HeatmapStyle) -> None:
    picture = heatmap_picture(
        "s", [], ground(), scores([(0, 1200), (800, 1200), (1600, 0)], [0.0, 4.0, 1.0]), (), style
    )
    grey = int(np.asarray(Image.new("RGB", (1, 1), PINK).convert("L"))[0, 0])
    for x, share in ((0, 0.0), (800, 1.0)):
        for inside in (2, TILE // 2, TILE - 4):
            np.testing.assert_allclose(
                overlay_at(picture, x + inside, 1200 + inside), blended(share, grey, style), atol=1
            )
    np.testing.assert_allclose(overlay_at(picture, 1800, 200), blended(0.25, 250, style), atol=1)
    # between the tiles the slide is as it was
    for x, y in ((400, 1400), (798, 1400), (1202, 1400), (900, 1602)):
        np.testing.assert_allclose(overlay_at(picture, x, y), PINK, atol=1)
    # the view on the left is the slide alone
    np.testing.assert_allclose(overlay_at(picture, 1000, 1400, thumbnail=False), PINK, atol=1)


def test_overlapping_tiles_are_averaged() -> None:
    style = HeatmapStyle(alpha=1.0)
    tiles = scores([(0, 0), (200, 0), (200, 200), (1600, 1600)], [1.0, 3.0, 8.0, 0.0])
    picture = heatmap_picture("s", [], ground(), tiles, (), style)
    for (x, y), value in (
        ((100, 100), 1.0),
        ((300, 100), 2.0),
        ((300, 300), 4.0),
        ((500, 100), 3.0),
        ((500, 500), 8.0),
    ):
        np.testing.assert_allclose(overlay_at(picture, x, y), blended(value / 8, 0, style), atol=1)


def test_scaling() -> None:
    tiles = scores([(0, 0), (400, 0), (800, 0), (1200, 0)], [1.0, 1000.0, 2.0, 2.0])

    def shares(style: HeatmapStyle, given: TileScores = tiles) -> list[tuple[int, ...]]:
        picture = heatmap_picture("s", [], ground(), given, (), style)
        return [overlay_at(picture, x + 200, 200) for x in (0, 400, 800, 1200)]

    def expected(values: list[float]) -> list[tuple[int, ...]]:
        style = HeatmapStyle(alpha=1.0)
        return [tuple(np.rint(blended(value, 0, style)).astype(int)) for value in values]

    by_rank = HeatmapStyle(alpha=1.0, percentile=True)
    np.testing.assert_allclose(shares(by_rank), expected([0, 1, 0.5, 0.5]), atol=1)
    fixed = HeatmapStyle(alpha=1.0, limits=(0.0, 2.0))
    np.testing.assert_allclose(shares(fixed), expected([0.5, 1, 1, 1]), atol=1)
    valid = TileScores(tiles.table, TILE, np.array([0, 0.25, 0.5, 1.0]) / 2, "p", 0.0, 1.0)
    plain = HeatmapStyle(alpha=1.0)
    np.testing.assert_allclose(shares(plain, valid), expected([0, 0.125, 0.25, 0.5]), atol=1)
    constant = TileScores(tiles.table, TILE, np.full(4, 7.0), "p")
    np.testing.assert_allclose(shares(plain, constant), expected([0, 0, 0, 0]), atol=1)


def test_tiles_without_a_value_show_the_slide() -> None:
    tiles = scores([(0, 1200), (800, 1200)], [np.nan, 1.0])
    picture = heatmap_picture("s", [], ground(), tiles)
    np.testing.assert_allclose(overlay_at(picture, 200, 1400), PINK, atol=1)
    nothing = scores([(0, 1200), (800, 1200)], [np.nan, np.nan])
    heatmap_picture("s", [], ground(), nothing, (), HeatmapStyle(percentile=True))


def test_outlines_and_blank_ground() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[5:10, 5:10] = 1
    outline = Outline(mask, (100.0, 100.0), (200, 0, 110), "truth")
    tiles = scores([(0, 1200)], [1.0])
    for given, thumbnail in ((ground(), True), (ground(False, note="it is gone"), False)):
        picture = heatmap_picture("s", ["a", "b"], given, tiles, [outline])
        for x, y in ((500, 700), (998, 700), (700, 500), (700, 998)):
            assert overlay_at(picture, x, y, thumbnail) == (200, 0, 110)
        assert overlay_at(picture, 700, 700, thumbnail) != (200, 0, 110)
        assert overlay_at(picture, 1010, 700, thumbnail) != (200, 0, 110)
    assert overlay_at(picture, 1900, 100, False) == (244, 244, 244)


def test_two_regions_with_one_border_stay_two_lines() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[5:10, 5:10] = 1
    inside = Outline(mask, (100.0, 100.0), (255, 95, 0), "mask", cased=True)
    around = Outline(mask, (100.0, 100.0), (200, 0, 110), "truth", beyond=True, cased=True)
    picture = heatmap_picture("s", [], ground(), scores([(0, 1200)], [1.0]), [inside, around])
    for x, y, colour in (
        (502, 700, (255, 95, 0)),
        (498, 700, (200, 0, 110)),
        (997, 700, (255, 95, 0)),
        (1001, 700, (200, 0, 110)),
        (505, 700, (255, 255, 255)),  # the casing
        (495, 700, (255, 255, 255)),
    ):
        assert overlay_at(picture, x, y) == colour, (x, y)


def test_small_regions_are_not_lost() -> None:
    fine = np.zeros((SIDE, SIDE), np.uint8)  # half a picture pixel each
    fine[701, 1201] = 1
    outline = Outline(fine, (1.0, 1.0), (200, 0, 110), "truth")
    picture = heatmap_picture("s", [], ground(), scores([(0, 1600)], [1.0]), [outline])
    assert overlay_at(picture, 1201, 701) == (200, 0, 110)


def test_outlines_and_rasters_off_the_corner() -> None:
    mask = np.ones((2, 2), np.uint8)
    outline = Outline(mask, (100.0, 100.0), (200, 0, 110), "truth", (600.0, 1000.0))
    style = HeatmapStyle(alpha=1.0)
    values = np.array([[0.0, 1.0], [np.nan, 4.0]], np.float32)
    raster = RasterScores(values, 200.0, (400.0, 1200.0), "map")
    picture = heatmap_picture("s", [], ground(), raster, [outline], style)
    assert overlay_at(picture, 602, 1100) == (200, 0, 110)
    assert overlay_at(picture, 596, 1100) != (200, 0, 110)
    for (x, y), value in (((404, 1204), 0.0), ((796, 1396), 1.0), ((604, 1404), 4.0)):
        np.testing.assert_allclose(overlay_at(picture, x, y), blended(value / 4, 0, style), atol=1)
    for x, y in ((500, 1500), (396, 1300), (804, 1300), (700, 1604)):
        np.testing.assert_allclose(overlay_at(picture, x, y), PINK, atol=1)


def test_as_many_lines_as_there_are() -> None:
    tiles = scores([(0, 1200)], [1.0])
    two = heatmap_picture("s", ["a", "b"], ground(), tiles)
    three = heatmap_picture("s", ["a", "b", "c"], ground(), tiles)
    more = three.height - two.height
    assert more > 0
    size = two.width, two.height - TOP
    below = two.crop((0, TOP, two.width, two.height))
    assert three.crop((0, TOP + more, size[0], three.height)).tobytes() == below.tobytes()


@pytest.mark.parametrize(
    ("width", "height", "tile", "mpp"),
    [(1, 1, 1, None), (100_000, 50, 64, 0.25), (300, 90_000, 7, 0.1)],
)
def test_odd_slides(width: int, height: int, tile: int, mpp: float | None) -> None:
    table = tiles_at_origin(1)
    given = TileScores(table, tile, np.array([0.5]), "µ" * 500)
    thumbnail = np.zeros((1, 1, 3), np.uint8)
    px = float(max(width, height))
    for pixels in (None, thumbnail):
        at = Ground(width, height, mpp, pixels, px)
        heatmap_picture("long name " * 60, ["x" * 999] * 2, at, given)
    none = tiles_at_origin(0)
    heatmap_picture("s", [], at, TileScores(none, tile, np.zeros(0), "nothing"))


def test_the_same_picture_every_time() -> None:
    tiles = scores([(0, 1200), (800, 1200)], [3.0, 1.0])
    one, other = (heatmap_picture("s", ["l"], ground(), tiles) for _ in range(2))
    assert one.tobytes() == other.tobytes()


def test_percentiles() -> None:
    np.testing.assert_array_equal(rank_percentile(np.array([5.0, 1, 9])), [50, 0, 100])
    np.testing.assert_array_equal(rank_percentile(np.array([2.0, 2, 2, 2])), [50] * 4)
    np.testing.assert_array_equal(
        rank_percentile(np.array([1.0, 2, 2, 3, 4])), [0, 37.5, 37.5, 75, 100]
    )
    assert rank_percentile(np.array([])).size == 0
    assert rank_percentile(np.array([3.0])) == [50.0]


def test_styles_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="did you mean viridis"):
        HeatmapStyle("viridus")
    with pytest.raises(InputError, match="opacity"):
        HeatmapStyle(alpha=1.5)
    with pytest.raises(InputError, match="low before high"):
        HeatmapStyle(limits=(1.0, 1.0))


def test_ground(make_slide: Callable[..., Path], tmp_path: Path) -> None:
    path = make_slide("s.tif")
    record = SlideRecord("s", str(path), slide_digest(path), "tiff", 900, 700, 0.5, "properties")
    found = read_ground(record, 300)
    assert found.thumbnail is not None
    assert found.thumbnail.shape == (234, 300, 3)
    assert found.px_level0 == 3.0
    assert found.note == ""
    small = read_ground(record, 2000)  # no finer than level 0
    assert small.thumbnail is not None
    assert small.thumbnail.shape == (700, 900, 3)
    other = make_slide("other.tif", downsamples=(1,))
    path.write_bytes(other.read_bytes())
    assert "another slide by now" in read_ground(record, 300).note
    path.write_bytes(b"no slide at all")
    assert "can't be read" in read_ground(record, 300).note
    path.unlink()
    gone = read_ground(record, 300)
    assert gone.thumbnail is None
    assert "no such file" in gone.note


def test_a_far_outlier_does_not_leave_all_others_in_one_colour() -> None:
    values = np.append(np.linspace(1, 2, 80), 40.0)
    scale = scaled(values, (None, None), "error", HeatmapStyle())
    assert scale.limits == (1.0, 2.0)
    assert scale.beyond == (False, True)
    given = scaled(values, (0.0, None), "error", HeatmapStyle(limits=(1.5, 50.0)))
    assert (given.limits, given.beyond) == ((1.5, 50.0), (True, False))
    # nothing is far where most are equal: what differs is all there is to see
    few = scaled(np.array([0.0] * 9 + [1.0]), (None, None), "error", HeatmapStyle())
    assert (few.limits, few.beyond) == ((0.0, 1.0), (False, False))
