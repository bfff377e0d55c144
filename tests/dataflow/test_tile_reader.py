from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from dataflow.pixels import read_tiles
from dataflow.resample import Box, area_resample
from dataflow.slide import SlideReader, open_slide
from dataflow.slide_digest import slide_digest
from dataflow.tile_reader import TilePlan, TileReader
from dataflow.tiling import make_tiles
from store_schema.errors import SlideChangedError, UnreadableSlideError
from store_schema.specs import GridSpec, TileTable

if TYPE_CHECKING:
    from tests.dataflow.conftest import ArrayReader


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def box_mean(image: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    height, width = (side // factor for side in image.shape[:2])
    sums = image[: height * factor, : width * factor].astype(int)
    sums = sums.reshape(height, factor, width, factor, 3).sum(axis=(1, 3))
    means: npt.NDArray[np.int64] = (sums + factor * factor // 2) // factor**2
    return means.astype(np.uint8)


def read_grid(
    reader: SlideReader, spec: GridSpec
) -> tuple[TilePlan, TileTable, npt.NDArray[np.uint8]]:
    geometry, table = make_tiles(reader.info, spec, None)
    plan = TilePlan.of(reader.info, geometry, spec.tile_px)
    out = np.zeros((len(table), spec.tile_px, spec.tile_px, 3), np.uint8)
    TileReader(reader, plan, table.x, table.y).read(0, len(table), out)
    return plan, table, out


def test_at_the_slides_own_mpp_tiles_are_its_pixels(array_reader: type[ArrayReader]) -> None:
    image = noise(200, 300)
    _, table, tiles = read_grid(array_reader(image), GridSpec(64, 0.5, 32))
    for i in range(len(table)):
        x, y = table.x[i], table.y[i]
        assert np.array_equal(tiles[i], image[y : y + 64, x : x + 64])


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_at_a_whole_factor_tiles_are_box_means(
    array_reader: type[ArrayReader], factor: int
) -> None:
    image = noise(200, 300)
    plan, table, tiles = read_grid(array_reader(image), GridSpec(16, 0.5 * factor, 16))
    assert plan.level == 0
    means = box_mean(image, factor)
    for i in range(len(table)):
        x, y = table.x[i] // factor, table.y[i] // factor
        assert np.array_equal(tiles[i], means[y : y + 16, x : x + 16])


def test_the_nearest_finer_level_is_read(array_reader: type[ArrayReader]) -> None:
    image = noise(512, 768)
    levels = (image, box_mean(image, 2), box_mean(image, 4))
    for mpp, level in ((0.5, 0), (0.98, 0), (0.995, 1), (1.0, 1), (1.9, 1), (2.0, 2), (6.0, 2)):
        reader = array_reader(*levels)
        plan, _, _ = read_grid(reader, GridSpec(32, mpp, 32))
        assert (plan.level, reader.levels_read) == (level, {level})
    _, table, tiles = read_grid(array_reader(*levels), GridSpec(32, 2.0, 32))
    for i in range(len(table)):
        x, y = table.x[i] // 4, table.y[i] // 4
        assert np.array_equal(tiles[i], levels[2][y : y + 32, x : x + 32])


def test_a_fractional_scale_is_an_area_mean_of_the_exact_square(
    array_reader: type[ArrayReader],
) -> None:
    image = noise(400, 400)
    plan, table, tiles = read_grid(array_reader(image), GridSpec(48, 0.68, 48))
    assert plan.tile_level0 == 65  # round(48 * 0.68 / 0.5)
    for i in range(len(table)):
        square = Box(int(table.x[i]), int(table.y[i]), 65, 65)
        assert np.abs(tiles[i].astype(int) - area_resample(image, square, 48, 48)).max() <= 1


def test_an_odd_corner_on_a_coarser_level_is_not_moved(array_reader: type[ArrayReader]) -> None:
    ramp = np.broadcast_to((np.arange(240) % 240).astype(np.uint8)[None, :, None], (240, 240, 3))
    half = np.broadcast_to((np.arange(120) * 2).astype(np.uint8)[None, :, None], (120, 120, 3))
    reader = array_reader(np.ascontiguousarray(ramp), np.ascontiguousarray(half))
    out = np.empty((1, 16, 16, 3), np.uint8)
    plan = TilePlan.for_square(reader.info, 32, 16)
    TileReader(reader, plan, np.array([33]), np.array([0])).read(0, 1, out)
    # between the level's pixels 32 and 34, where level 0 has its 33
    assert out[0, 0, :3, 0].tolist() == [33, 35, 37]


def test_beyond_the_border_tiles_are_white(array_reader: type[ArrayReader]) -> None:
    reader = array_reader(np.zeros((40, 50, 3), np.uint8))
    _, table, tiles = read_grid(reader, GridSpec(32, 0.5, 32, edge="pad"))
    assert len(table) == 4
    for i in range(4):
        inside = np.zeros((32, 32), bool)
        inside[: 40 - table.y[i], : 50 - table.x[i]] = True
        assert (tiles[i][inside] == 0).all()
        assert (tiles[i][~inside] == 255).all()


def test_a_coarse_grid_on_a_one_level_slide_stays_within_memory(
    array_reader: type[ArrayReader],
) -> None:
    reader = array_reader(np.full((5000, 5000, 3), 90, np.uint8))
    _, table, tiles = read_grid(reader, GridSpec(256, 9.6, 256))
    assert len(table) == 1
    assert (tiles == 90).all()
    assert reader.largest_read_px < 2100 * 2100


def test_tiles_of_a_real_file_and_the_stores_pixels_agree(
    make_slide: Callable[..., Path], smooth_image: npt.NDArray[np.uint8]
) -> None:
    path = make_slide("a.tif")
    plan, table, tiles = read_grid(open_slide(path), GridSpec(64, 1.0, 64))
    assert plan.level == 1
    expected = box_mean(smooth_image, 2)
    for i in range(len(table)):
        x, y = table.x[i] // 2, table.y[i] // 2
        difference = tiles[i].astype(int) - expected[y : y + 64, x : x + 64]
        assert np.abs(difference).max() <= 8  # JPEG
    fingerprint = slide_digest(path)

    def lazily() -> npt.NDArray[np.uint8]:
        return read_tiles(
            str(path), table.x[:5], table.y[:5],
            tile_px=64, tile_level0=128, mpp=1.0, slide_mpp=0.5, fingerprint=fingerprint,
        )  # fmt: skip

    assert np.array_equal(lazily(), tiles[:5])
    make_slide("b.tif", mpp=0.25).replace(path)  # another scan in the same place
    with pytest.raises(SlideChangedError, match="not the slide that the tiles were laid on"):
        lazily()
    path.unlink()
    with pytest.raises(UnreadableSlideError, match="bring it back"):
        lazily()


def test_the_cohorts_lattice_of_real_tiles_is_met(test_data: Path) -> None:
    reader = open_slide(test_data / "cohort" / "slides" / "mc_normal_001.tif")
    plan, table, tiles = read_grid(reader, GridSpec(96, 0.972, 96))
    assert (plan.tile_level0, len(table)) == (96, 400)
    whole = reader.read_level(0, 0, 0, 1920, 1920)
    for i in range(0, 400, 37):
        y, x = table.y[i], table.x[i]
        assert (table.row[i], table.col[i]) == (y // 96, x // 96)
        assert np.array_equal(tiles[i], whole[y : y + 96, x : x + 96])
