from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.evaluation.tile_truth import MaskFolder, TruthMask
from store_schema.errors import InputError

side = st.integers(1, 12)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 8),
    st.integers(1, 8),
    side,
    side,
    st.integers(1, 30),
    st.integers(-10, 90),
    st.integers(-10, 90),
    st.integers(0, 2**32 - 1),
)
def test_fractions_are_exact_at_any_scale(
    rows: int, columns: int, px_x: int, px_y: int, tile: int, x: int, y: int, seed: int
) -> None:
    """Masks coarser than level 0, and differently so along x and y, against counting level-0 pixels."""
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.5
    level0 = np.zeros((120, 120), bool)
    filled = mask.repeat(px_y, axis=0).repeat(px_x, axis=1)
    level0[: rows * px_y, : columns * px_x] = filled[:120, :120]
    padded = np.pad(level0, 40)  # beyond the slide there is nothing
    expected = padded[y + 40 : y + 40 + tile, x + 40 : x + 40 + tile].mean()
    truth = TruthMask(mask, (float(px_x), float(px_y)))
    found = truth.fraction(np.array([x]), np.array([y]), tile)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_fractions_of_masks_finer_than_level_0(finer: int, tile: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random((40 * finer, 30 * finer)) < 0.5
    x, y = generator.integers(0, 30, 5), generator.integers(0, 40, 5)
    found = TruthMask(mask, (1 / finer, 1 / finer)).fraction(x, y, tile)
    padded = np.pad(mask, ((0, 40 * finer), (0, 40 * finer)))
    expected = [
        padded[j * finer : (j + tile) * finer, i * finer : (i + tile) * finer].mean()
        for i, j in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("scale", [1, 3, 48, 96, 100])
def test_a_mask_says_the_same_at_every_size(tmp_path: Path, scale: int) -> None:
    """One pixel a tile, or many: a file is georeferenced by its size alone."""
    tiles = np.random.default_rng(0).random((20, 10)) < 0.3
    big = (tiles.repeat(scale, axis=0).repeat(scale, axis=1) * 255).astype(np.uint8)
    Image.fromarray(big).save(tmp_path / "s.png")
    truth = MaskFolder.of(tmp_path).read("s", 960, 1920)
    assert truth is not None
    row, col = np.indices(tiles.shape).reshape(2, -1)
    fraction = truth.fraction(col * 96, row * 96, 96)
    np.testing.assert_allclose(fraction, tiles.ravel(), atol=1e-9)


def test_geojson_is_a_mask_too(tmp_path: Path) -> None:
    ring = [[96, 96], [288, 96], [288, 192], [96, 192], [96, 96]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    (tmp_path / "s.geojson").write_text(json.dumps(polygon))
    truth = MaskFolder.of(tmp_path).read("s", 960, 960)
    assert truth is not None
    found = truth.fraction(np.array([96, 192, 288, 240]), np.array([96, 96, 96, 144]), 96)
    np.testing.assert_allclose(found, [1, 1, 0, 0.25], atol=0.02)


def test_points_of_a_lattice(tmp_path: Path) -> None:
    mask = np.array([[True, False], [False, True]])
    truth = TruthMask(mask, (10.0, 20.0))
    found = truth.at(np.array([-1.0, 0.0, 9.9, 10.0, 19.9, 20.0]), np.array([19.9, 20.0, 41.0]))
    expected = [[0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(found, np.array(expected, bool))


def test_annotations_are_checked_against_the_slide(tmp_path: Path) -> None:
    path = tmp_path / "s.geojson"
    ring = [[0, 0], [900, 0], [900, 900], [0, 900], [0, 3], [3, -2]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    folder = MaskFolder.of(tmp_path)
    truth = folder.read("s", 1000, 1000)
    assert truth is not None
    assert len(truth.notes) == 1  # of a tiny loop
    with pytest.raises(
        InputError, match=r"annotation 1 of .*s.geojson spans .* only 500 by 500 px"
    ):
        folder.read("s", 500, 500)


def test_masks_may_be_called_masks(tmp_path: Path) -> None:
    Image.new("L", (20, 20), 255).save(tmp_path / "tumor_001_Mask.png")
    folder = MaskFolder.of(tmp_path)
    for slide_id in ("tumor_001", "tumor_001_Mask"):
        assert folder.read(slide_id, 200, 200) is not None
    Image.new("L", (20, 20)).save(tmp_path / "tumor_001.png")
    with pytest.raises(InputError, match="several masks of slide tumor_001"):
        MaskFolder.of(tmp_path).read("tumor_001", 200, 200)


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    Image.new("L", (20, 40)).save(tmp_path / "tall.png")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("two.png", "two.tif"):
        Image.new("L", (20, 20)).save(tmp_path / name)
    folder = MaskFolder.of(tmp_path)
    assert folder.read("none", 100, 100) is None
    assert folder.read("tall", 100, 200) is not None
    with pytest.raises(InputError, match=r"20 by 40 px.*proportions of the slide"):
        folder.read("tall", 200, 200)
    with pytest.raises(InputError, match="can't be read as an image"):
        folder.read("text", 200, 200)
    with pytest.raises(InputError, match=r"several masks of slide two \(two.png, two.tif\)"):
        folder.read("two", 200, 200)
    with pytest.raises(InputError, match="check the path"):
        MaskFolder.of(tmp_path / "nowhere")
