"""``pbip uncertain``: what is listed, read back by what users read it with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import shapely
import shapely.geometry
from PIL import Image
from scipy.stats import rankdata

from dataflow.contact_sheet import Cell, SheetHead, contact_pages
from store_schema.specs import ArraySpec

Slidestream = Callable[..., Any]
Slides = Any  # the class is in conftest.py, which can't be imported from


@pytest.fixture
def uncertain(slidestream: Slidestream, segmented: Slides) -> Callable[..., Any]:
    """Return a function: further arguments → the answer of ``pbip uncertain``."""

    def call(*more: object, name: str = "seg", out: str = "un") -> Any:
        return slidestream(
            *("pbip", "uncertain", "--store", segmented.path, "--name", name),
            *("--out", segmented.folder / out, *more),
        )

    return call


def scores(segmented: Slides, name: str) -> dict[tuple[str, int], float]:
    """Return (slide, tile) → score, as stored."""
    found = dict[tuple[str, int], float]()
    for slide_id in "abc":
        group = segmented.view(slide_id).block_group(segmented.grid, "scores", "seg")
        values = np.concatenate([group.read_array(name, b) for b in range(group.n_blocks)])
        found |= {(slide_id, i): float(value) for i, value in enumerate(values)}
    return found


def listed(segmented: Slides, out: str = "un") -> pd.DataFrame:
    return pd.read_csv(segmented.folder / out / "uncertain_tiles.csv")


def features(segmented: Slides, slide_id: str) -> list[dict[str, Any]]:
    path = segmented.folder / "un" / "geojson" / f"{slide_id}.geojson"
    found: list[dict[str, Any]] = json.loads(path.read_text())["features"]
    return found


@pytest.mark.parametrize("by", ["entropy", "disagreement", "both"])
def test_the_least_sure_come_first(
    uncertain: Callable[..., Any], segmented: Slides, by: str
) -> None:
    answer = uncertain("--top", 12, "--by", by, "--no-sheet")
    assert answer.code == 0, answer.err
    entropy, apart = scores(segmented, "entropy"), scores(segmented, "disagreement")
    keys = list(entropy)
    if by == "both":
        ranks = sum(rankdata([each[k] for k in keys]) - 1 for each in (entropy, apart))
        values = dict(zip(keys, (ranks * 50 / (len(keys) - 1)).tolist(), strict=True))
    else:
        values = entropy if by == "entropy" else apart
    expected = sorted(keys, key=lambda key: (-round(values[key], 9), key))[:12]
    rows = listed(segmented)
    assert list(zip(rows.slide_id, rows.tile, strict=True)) == expected
    assert rows["rank"].tolist() == list(range(1, 13))
    np.testing.assert_allclose(rows.uncertainty, [values[key] for key in expected])
    # exactly as stored
    assert rows.entropy.astype(np.float32).tolist() == [
        np.float32(entropy[key]).item() for key in expected
    ]
    assert (rows.x == rows.col * 32).all()
    assert (rows.y == rows.row * 32).all()
    assert {"probability benign", "probability tumor", "tile_level0"} <= set(rows.columns)
    assert "12 tiles of 90" in answer.out


def test_no_slide_has_more_than_its_share(uncertain: Callable[..., Any], segmented: Slides) -> None:
    assert uncertain("--top", 80, "--per-slide", 4, "--no-sheet").code == 0
    rows = listed(segmented)
    assert rows.slide_id.value_counts().to_dict() == {"a": 4, "b": 4, "c": 4}
    assert uncertain("--top", 80, "--no-sheet", out="all").code == 0
    every = listed(segmented, "all")
    first = every.groupby("slide_id").head(4)
    assert list(zip(first.slide_id, first.tile, strict=True)) == list(
        zip(rows.slide_id, rows.tile, strict=True)
    )


def test_qupath_gets_tiles_and_regions(uncertain: Callable[..., Any], segmented: Slides) -> None:
    assert uncertain("--top", 30, "--no-sheet").code == 0
    rows = listed(segmented)
    regions = pd.read_csv(segmented.folder / "un" / "uncertain_regions.csv")
    assert regions.uncertainty.is_monotonic_decreasing
    assert regions.tiles.sum() == 30
    for slide_id, of_slide in rows.groupby("slide_id"):
        found = features(segmented, str(slide_id))
        kinds = [feature["properties"]["objectType"] for feature in found]
        n_regions = of_slide.region.nunique()
        assert kinds == ["annotation"] * n_regions + ["tile"] * len(of_slide)
        shapes = [shapely.geometry.shape(feature["geometry"]) for feature in found]
        assert all(shape.is_valid for shape in shapes)
        squares = dict(
            zip(
                of_slide["rank"],
                shapely.box(of_slide.x, of_slide.y, of_slide.x + 32, of_slide.y + 32),
                strict=True,
            )
        )
        for feature, shape in zip(found[n_regions:], shapes[n_regions:], strict=True):
            measured = feature["properties"]["measurements"]
            assert shape.equals(squares[measured["rank"]])
            row = of_slide[of_slide["rank"] == measured["rank"]].iloc[0]
            assert measured["seg: entropy"] == row.entropy
        for feature, shape in zip(found[:n_regions], shapes[:n_regions], strict=True):
            number = int(feature["properties"]["name"].split()[1])
            members = of_slide[of_slide.region == number]
            covered = shapely.union_all([squares[rank] for rank in members["rank"]])
            assert shape.equals(covered)
            # one piece, at corners too; and apart from all others
            assert not hasattr(covered.buffer(1), "geoms")
            rest = [squares[rank] for rank in of_slide["rank"] if rank not in set(members["rank"])]
            assert all(covered.distance(other) > 0 for other in rest)
            assert regions.set_index("region").uncertainty[number] == pytest.approx(
                members.uncertainty.mean()
            )


def test_the_sheet_shows_tiles_in_their_order(
    uncertain: Callable[..., Any], segmented: Slides, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []

    def recorded(head: SheetHead, cells: list[Cell], what: str) -> Iterator[Image.Image]:
        captions.extend(cell.caption for cell in cells)
        return contact_pages(head, cells, what)

    monkeypatch.setattr("jobs.pbip.uncertain_sheet.contact_pages", recorded)
    assert uncertain("--top", 5).code == 0
    # no class below a tile: it would read as what the tile is
    assert [re.sub(r"0\.\d{3}", "#", caption) for caption in captions] == 5 * ["H #, D #"]
    with Image.open(segmented.folder / "un" / "uncertain_tiles.png") as image:
        sheet = np.asarray(image.convert("RGB")).astype(int)
    rows = listed(segmented)

    def view(i: int) -> npt.NDArray[np.uint8]:
        row = rows.iloc[i]
        tile = segmented.image(row.slide_id)[row.y : row.y + 32, row.x : row.x + 32]
        large = Image.fromarray(tile).resize((240, 240), Image.Resampling.LANCZOS)
        found: npt.NDArray[np.uint8] = np.asarray(large)
        return found

    first = view(0).astype(int)
    tops = [y for y in range(100, 160) if (sheet[y : y + 240, 20:260] == first).all()]
    assert len(tops) == 1
    at = slice(tops[0], tops[0] + 240)
    np.testing.assert_array_equal(sheet[at, 20 + 254 : 260 + 254], view(1))
    group = segmented.view(rows.slide_id[0]).block_group(segmented.grid, "scores", "seg")
    maps = np.concatenate([group.read_array("confidence", b) for b in range(group.n_blocks)])
    shown = maps[rows.tile[0], 1].astype(float)
    # the green part of viridis rises all the way
    below = sheet[tops[0] + 244 : tops[0] + 484, 20:260] - 0.4 * first
    cells = below.reshape(8, 30, 8, 30, 3).mean(axis=(1, 3))
    assert np.corrcoef(cells[..., 1].ravel(), shown.ravel())[0, 1] > 0.99


def test_bad_input(uncertain: Callable[..., Any], segmented: Slides, tmp_path: Path) -> None:
    assert uncertain("--top", 3, "--no-sheet").code == 0
    answer = uncertain("--top", 4, "--no-sheet")
    assert answer.code == 1
    assert "is there already: give --overwrite" in answer.err
    assert len(listed(segmented)) == 3
    assert uncertain("--top", 4, "--no-sheet", "--overwrite").code == 0
    assert len(listed(segmented)) == 4
    group = segmented.view("a").create_tile_group(
        segmented.grid, "scores", "vae", {"kl": ArraySpec(("tile",), (), "float32")}, {"made": 1}
    )
    for block in range(group.n_blocks):
        span = group.block_slice(block)
        group.write_block(block, {"kl": np.zeros(span.stop - span.start, np.float32)})
    answer = uncertain(name="vae", out="vae")
    assert "have no entropy: name those of `slidestream pbip segment`" in answer.err
    answer = uncertain("--background", "stroma", out="bg")
    assert "no class 'stroma'" in answer.err
    splits = tmp_path / "splits.csv"
    splits.write_text("train,val,test\na,c,b\n")
    chosen = "--splits", splits, "--split", "train"
    assert uncertain("--no-sheet", *chosen, out="train").code == 0
    assert set(listed(segmented, "train").slide_id) == {"a"}
    (tmp_path / "b.tif").unlink()
    answer = uncertain("--top", 60, out="gone")
    assert answer.code == 1
    assert "failed: b:" in answer.err
    assert (tmp_path / "gone" / "uncertain_tiles.png").is_file()
    assert len(listed(segmented, "gone")) == 60
