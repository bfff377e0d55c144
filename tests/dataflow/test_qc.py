from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataflow.qc import qc_picture, save_qc_picture
from dataflow.tissue import TissueMask
from store_schema.errors import InputError
from store_schema.specs import GridGeometry, TileTable

SIDE = 200


def tissue(px_level0: float = 16.0) -> TissueMask:
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[50:150, 50:150] = 1
    thumbnail = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    thumbnail[mask == 1] = (205, 120, 165)
    return TissueMask(mask, px_level0, thumbnail)


def tiles(per_side: int, first_level0: int, tile_level0: int) -> tuple[GridGeometry, TileTable]:
    row, col = (index.ravel().astype(np.int32) for index in np.indices((per_side, per_side)))
    geometry = GridGeometry(tile_level0, float(tile_level0), per_side, per_side)
    x, y = (first_level0 + index * tile_level0 for index in (col, row))
    return geometry, TileTable(x, y, row, col, np.ones(len(row), dtype=np.float32))


def coloured(picture: Image.Image, reference: Image.Image) -> np.ndarray:
    """Where the pictures differ, inside the view (bool)."""
    area = (21, 83, 1419, 1481)
    first, second = (np.asarray(p.crop(area)).astype(int) for p in (picture, reference))
    differing: np.ndarray = np.abs(first - second).max(axis=2) > 8
    return differing


@pytest.mark.parametrize("per_side", [0, 1, 4, 224])
def test_tiles_lie_where_they_are(per_side: int) -> None:
    geometry, table = tiles(per_side, 50 * 16, 1600 // max(per_side, 1))
    picture = qc_picture("slide", tissue(), geometry, table, 0.5)
    empty = qc_picture("slide", tissue(), *tiles(0, 0, 100), 0.5)
    where = np.argwhere(coloured(picture, empty))
    if per_side == 0:
        assert len(where) == 0
        return
    # thumbnail px 50 to 150 of 200, seven picture px each
    assert np.abs(where.min(axis=0) - 350).max() <= 4
    end = 350 + per_side * geometry.tile_level0 / 16 * 7
    assert np.abs(where.max(axis=0) - end).max() <= 4


def test_many_small_tiles_do_not_hide_the_tissue() -> None:
    plain = qc_picture("slide", tissue(), *tiles(0, 0, 100), 0.5)
    picture = qc_picture("slide", tissue(), *tiles(224, 800, 7), 0.5)
    change = np.abs(np.asarray(picture).astype(int) - np.asarray(plain))[500:900, 500:900]
    assert 8 < change.mean() < 60


def test_it_is_the_same_every_time_and_survives_odd_input(tmp_path: Path) -> None:
    grid = tiles(3, 0, 400)
    paths = [tmp_path / "deep" / name for name in ("a.png", "b.png")]
    for path in paths:
        save_qc_picture(path, "slide", tissue(), *grid, 0.5)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    long_name = "a very long name µ " * 30
    without_size = qc_picture(long_name, tissue(), *grid, None)
    with Image.open(paths[0]) as saved:
        assert without_size.size == saved.size
    tiny = TissueMask(np.ones((1, 1), np.uint8), 300.0, np.zeros((1, 1, 3), np.uint8))
    qc_picture("tiny", tiny, *grid, 0.5)
    thin = TissueMask(np.ones((900, 2), np.uint8), 4.0, np.zeros((900, 2, 3), np.uint8))
    qc_picture("thin", thin, *grid, 0.5)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        save_qc_picture(tmp_path / "file" / "qc.png", "slide", tissue(), *tiles(1, 0, 400), 0.5)
