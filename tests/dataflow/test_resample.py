from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflow.area_read import read_area, read_thumbnail
from dataflow.resample import Box, area_resample, mean_matrix, overlap_matrix

if TYPE_CHECKING:
    from tests.dataflow.conftest import ArrayReader


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mean_by_hand(
    image: npt.NDArray[np.uint8], x: float, y: float, side: float
) -> npt.NDArray[np.float64]:
    """Mean of one square, pixel by pixel."""
    total, area = np.zeros(3), 0.0
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            width = min(x + side, column + 1) - max(x, column)
            height = min(y + side, row + 1) - max(y, row)
            if width > 0 and height > 0:
                total += width * height * image[row, column]
                area += width * height
    return total / area


@given(x=st.floats(0, 3), y=st.floats(0, 3), px=st.floats(0.9, 3.5), seed=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_every_pixel_is_the_mean_of_what_it_covers(
    x: float, y: float, px: float, seed: int
) -> None:
    image = noise(14, 16, seed)
    out = area_resample(image, Box(x, y, 3 * px, 2 * px), 3, 2)
    for row in range(2):
        for column in range(3):
            expected = mean_by_hand(image, x + column * px, y + row * px, px)
            assert np.abs(out[row, column] - expected).max() <= 0.501


def test_whole_boxes_are_copied_and_whole_factors_agree_with_pillow() -> None:
    image = noise(24, 36)
    assert np.array_equal(area_resample(image, Box(0, 0, 36, 24), 36, 24), image)
    reduced = np.asarray(Image.fromarray(image).reduce(4))
    assert np.array_equal(area_resample(image, Box(0, 0, 36, 24), 9, 6), reduced)


@given(start=st.floats(0, 2), px=st.floats(0.3, 5), n=st.integers(1, 40))
@settings(deadline=None)
def test_weights_sum_to_one(start: float, px: float, n: int) -> None:
    weights = mean_matrix(start, n * px, n, int(np.ceil(start + n * px)) + 1)
    assert weights.sum(axis=1) == pytest.approx(np.ones(n), abs=1e-5)


def test_overlap_beyond_the_axis_is_left_out() -> None:
    lengths = overlap_matrix(np.array([-1.5, 3.25]), np.array([0.5, 9.0]), 4).toarray()
    assert lengths.tolist() == [[0.5, 0, 0, 0], [0, 0, 0, 0.75]]


def test_a_large_box_is_read_in_blocks_without_a_seam(array_reader: type[ArrayReader]) -> None:
    reader = array_reader(noise(2500, 3000))
    out = np.empty((100, 150, 3), np.uint8)
    read_area(reader, 0, Box(100.5, 50.25, 150 * 17.3, 100 * 17.3), out)
    assert reader.largest_read_px < 2100 * 2100
    whole = reader.read_level(0, 100, 50, 2596, 1731)
    expected = area_resample(whole, Box(0.5, 0.25, 150 * 17.3, 100 * 17.3), 150, 100)
    assert np.abs(out.astype(int) - expected).max() <= 1  # float32 sums in another order


def test_beyond_the_slide_is_white(array_reader: type[ArrayReader]) -> None:
    out = np.empty((4, 4, 3), np.uint8)
    read_area(array_reader(np.zeros((10, 10, 3), np.uint8)), 0, Box(6.0, -2.0, 8.0, 8.0), out)
    assert (out[1:, :2] == 0).all()
    assert (out[0] == 255).all()
    assert (out[:, 2:] == 255).all()


def test_a_thumbnail_reads_the_nearest_finer_level(array_reader: type[ArrayReader]) -> None:
    level0 = noise(1001, 1503)
    level1 = np.asarray(Image.fromarray(level0[:1000, :1500]).reduce(4))
    reader = array_reader(level0, level1)
    thumbnail = read_thumbnail(reader, 20.0)
    assert thumbnail.shape == (51, 76, 3)
    assert reader.levels_read == {1}
    expected = level0[:1000, :1500].reshape(50, 20, 75, 20, 3).mean(axis=(1, 3))
    # the last row and column of level 0 have no level-1 pixel
    assert np.abs(thumbnail[:50, :75] - expected).max() <= 1
    with pytest.raises(ValueError, match="px_level0 >= 1"):
        read_thumbnail(reader, 0.5)


def test_the_compiled_pass_does_what_the_matrices_say() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        rows, columns = (int(side_px) for side_px in rng.integers(20, 200, 2))
        channels = int(rng.integers(1, 5))
        image = rng.integers(0, 256, (rows, columns, channels), dtype=np.uint8)
        image.flags.writeable = False
        x, y = rng.random(2) * 3
        box = Box(x, y, columns - 4 - 5 * rng.random(), rows - 4 - 5 * rng.random())
        width, height = rng.integers(1, 15, 2).tolist()
        along_y = mean_matrix(box.y, box.height, height, rows)
        along_x = mean_matrix(box.x, box.width, width, columns)
        squeezed = (along_y @ image.reshape(rows, -1).astype(np.float32)).reshape(
            height, columns, -1
        )
        turned = squeezed.transpose(1, 0, 2).reshape(columns, -1)
        mean = (along_x @ turned).reshape(width, height, channels).transpose(1, 0, 2)
        expected = (mean + np.float32(0.5)).astype(np.uint8)
        assert np.array_equal(area_resample(image, box, width, height), expected)
