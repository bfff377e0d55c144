from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from dataflow.demo_slide import demo_image


@pytest.fixture(scope="module")
def small_demo() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return demo_image(1500, 1250)


def test_the_demo_image_is_tissue_on_glass_and_repeatable(
    small_demo: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    assert small_demo.shape == (1250, 1500, 3)
    assert small_demo.dtype == np.uint8
    assert np.array_equal(small_demo, demo_image(1500, 1250))
    coloured = np.ptp(small_demo.astype(int), axis=2) > 30
    assert 0.1 < coloured.mean() < 0.5
    assert (small_demo[:20].min(axis=2) >= 240).all()  # glass at the border


def test_a_pyramid_is_a_valid_jpeg_tiff(make_slide: Callable[..., Path]) -> None:
    with tifffile.TiffFile(make_slide("a.tif")) as tiff:
        pages = [page.aspage() for page in tiff.pages]
    assert [page.shape for page in pages] == [(700, 900, 3), (350, 450, 3), (175, 225, 3)]
    assert all(page.is_tiled and page.compression == 7 for page in pages)
    assert [page.is_reduced for page in pages] == [False, True, True]
