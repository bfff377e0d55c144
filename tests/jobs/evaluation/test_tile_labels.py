from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.evaluation.tile_labels import TileLabels
from jobs.evaluation.tile_truth import MaskFolder
from jobs.evaluation.truth import open_truth
from store_schema.errors import InputError
from store_schema.specs import SlideRecord, TileTable

RECORD = SlideRecord("s", "/nowhere/s.tif", "digest", "tiff", 192, 192, 0.5, "properties")


def table_of(corners: list[tuple[int, int]]) -> TileTable:
    x, y = np.array(corners, np.int32).T
    return TileTable(x, y, y // 96, x // 96, np.ones(len(x), np.float32))


def test_labels_belong_to_tiles_by_their_corners(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "y,slide_id,x,label,note\n96.0,s,0.0,1.0,\n0,s,0,0,\n0,s,96,1,here\n96,s,96,0,no tissue\n0,t,0,1,\n"
    )
    truth = open_truth(path)
    assert isinstance(truth, TileLabels)
    found = truth.tiles(RECORD, table_of([(0, 0), (96, 0), (0, 96)]), 96, 0.5)
    np.testing.assert_array_equal(found, [False, True, True])
    assert truth.mask(RECORD) is None
    nobody = SlideRecord("u", "", "", "tiff", 192, 192, None, "unknown")
    assert truth.tiles(nobody, table_of([(0, 0)]), 96, 0.5) is None
    message = r"labels.csv labels 1 of the 2 tiles of slide s, and not the one at \(48, 0\)"
    with pytest.raises(InputError, match=message):
        truth.tiles(RECORD, table_of([(0, 0), (48, 0)]), 96, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide_id,x,label\n", "lack the columns y"),
        ("", "lack the columns slide_id, x, y, label"),
        ("slide_id;x;y;label\ns;0;0;1\n", "parted by commas"),
        ("slide_id,x,y,label\ns,0.5,0,1\n", "line 2 .*isn't two whole numbers"),
        (
            "slide_id,x,y,label\ns,0,0,1\ns,0,0,1\n",
            r"line 3 of .*\(0, 0\) of slide s is there twice",
        ),
        ("slide_id,x,y,label\ns,0,top,1\n", "line 2 .*isn't two whole numbers"),
        ("slide_id,x,y,label\ns,0\n", "line 2 .*isn't two whole numbers"),
        ("slide_id,x,y,label\ns,0,0,tumor\n", "'tumor' is neither 0 nor 1"),
        ("slide_id,x,y,label\n,0,0,1\n", "line 2 .*no slide is named"),
    ],
)
def test_tables_that_make_no_sense(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        open_truth(path)


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check the path"):
        open_truth(tmp_path / "none.csv")
    (tmp_path / "odd.csv").write_bytes(b"slide_id,x,y,label\n\xff,0,0,1\n")
    with pytest.raises(InputError, match="save them as UTF-8"):
        open_truth(tmp_path / "odd.csv")


def test_a_single_file_is_the_truth_of_its_slide(tmp_path: Path) -> None:
    path = tmp_path / "s.geojson"
    path.write_text('{"type": "Polygon", "coordinates": [[[0, 0], [96, 0], [96, 96], [0, 96]]]}')
    truth = open_truth(path)
    assert isinstance(truth, MaskFolder)
    mask = truth.mask(RECORD)
    assert mask is not None
    assert mask.mask.sum() == 96 * 96
