"""What QuPath is given, read by shapely; its own rules (of qupath.lib.io) are checked one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from store_schema.store import Store

GRID = "64px_0.500mpp"
STRIDE = 64 * 0.5 / 0.2431
MPP = 0.2431


def features_of(path: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert document["type"] == "FeatureCollection"
    for feature in document["features"]:
        assert feature["type"] == "Feature"
        said = feature["properties"]
        if "classification" in said:  # without a colour, QuPath refuses the file
            assert set(said["classification"]) == {"name", "color"}
            assert all(0 <= part <= 255 for part in said["classification"]["color"])
    found: list[dict[str, Any]] = document["features"]
    return found


def shape_of(feature: dict[str, Any]) -> shapely.Geometry:
    shape = shapely.from_geojson(json.dumps(feature))
    assert shape.is_valid
    return shape


def of_type(features: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [feature for feature in features if feature["properties"]["objectType"] == kind]


def test_tiles(
    exportable: Store, url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    answer = slidestream("export", "geojson", "--store", url, "--score", "run", "--out", tmp_path)
    assert answer.code == 0, answer.err
    assert "2 of 2 slides" in answer.out
    ds = exportable["a"].tiles(GRID, features=False, scores="run").load()
    features = features_of(tmp_path / "a.geojson")
    tiles = of_type(features, "tile")
    assert len(tiles) == len(features) == ds.sizes["tile"]
    for i, tile in enumerate(tiles):
        x, y = int(ds.x[i]), int(ds.y[i])
        assert shape_of(tile).equals(shapely.box(x, y, x + 132, y + 132))
        measured = tile["properties"]["measurements"]
        expected = {
            "tissue fraction": ds.tissue[i],
            "run: attention": ds.attention[i],
            "run: probability normal": ds.probability[i, 0],
            "run: probability tumor": ds.probability[i, 1],
        }
        if i == 3:  # NaN, which JSON hasn't
            assert "color" not in tile["properties"]
            del expected["run: attention"]
        else:
            assert len(tile["properties"]["color"]) == 3
        assert set(measured) == set(expected)
        for name, value in expected.items():
            assert np.float32(measured[name]) == np.float32(value)
    best = int(np.nanargmax(ds.attention))
    assert tiles[best]["properties"]["color"] == [253, 231, 37]  # the bright end of viridis


def test_regions_and_the_tiles_in_them(
    exportable: Store, url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    answer = slidestream(
        "export", "geojson", "--store", url, "--score", "run/attention", "--mask", "cal",
        "--positive", "Tumor", "--slides", "a", "--out", tmp_path,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    ds = exportable["a"].tiles(GRID, features=False, scores="run").load()
    mask = exportable["a"].raster(GRID, "cal")["mask"].values
    flagged = mask[ds.row.values, ds.col.values] > 0
    features = features_of(tmp_path / "a.geojson")
    regions, tiles = of_type(features, "annotation"), of_type(features, "tile")
    assert features == [*regions, *tiles]  # QuPath draws what comes later above
    assert [region["properties"]["name"] for region in regions] == ["cal 1", "cal 2"]
    assert all(region["properties"]["isLocked"] for region in regions)
    assert [tile["properties"]["classification"]["name"] for tile in tiles] == [
        "Tumor" if inside else "Negative" for inside in flagged
    ]
    ring, single = (shape_of(region) for region in regions)
    assert isinstance(ring, shapely.MultiPolygon)  # with the piece at its corner
    assert sum(len(part.interiors) for part in ring.geoms) == 1
    assert ring.area == pytest.approx(9 * STRIDE**2, rel=1e-3)
    np.testing.assert_allclose(single.bounds, np.array([8, 5, 9, 6]) * STRIDE, atol=0.01)
    row, col = ds.row.values, ds.col.values
    near = flagged & (row < 4)
    measured = regions[0]["properties"]["measurements"]
    assert measured["tiles"] == near.sum()
    assert measured["area mm^2"] == pytest.approx(9 * (STRIDE * MPP / 1000) ** 2)
    values = ds.attention.values[near]
    assert measured["run: attention max"] == pytest.approx(np.nanmax(values))
    assert measured["run: attention mean"] == pytest.approx(np.nanmean(values))
    assert regions[1]["properties"]["measurements"]["tiles"] == int((row[flagged] == 5).sum())
    assert {tuple(region["properties"]["classification"]["color"]) for region in regions} == {
        (200, 0, 0)
    }
    assert col.max() == 8


def test_masks_of_several_classes(
    url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    answer = slidestream(
        "export", "geojson", "--store", url, "--mask", "seg", "--score", "run", "--out", tmp_path
    )
    assert answer.code == 0, answer.err
    features = features_of(tmp_path / "b.geojson")
    regions = of_type(features, "annotation")
    assert [region["properties"]["classification"]["name"] for region in regions] == [
        "normal",
        "tumor",
    ]
    assert len({tuple(r["properties"]["classification"]["color"]) for r in regions}) == 2
    assert [shape_of(region).bounds for region in regions] == [
        (200, 100, 600, 400),
        (600, 100, 800, 400),
    ]
    centres = [(shape_of(tile).centroid, tile) for tile in of_type(features, "tile")]
    for centre, tile in centres:
        inside = [r for r in regions if shape_of(r).contains(centre)]
        said = tile["properties"].get("classification")
        assert said == (inside[0]["properties"]["classification"] if inside else None)


def test_a_threshold_classifies(
    exportable: Store, url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    answer = slidestream(
        "export", "geojson", "--store", url, "--score", "run/probability", "--class", "normal",
        "--threshold", "0.5", "--slides", "b", "--out", tmp_path,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    ds = exportable["b"].tiles(GRID, features=False, scores="run")
    tiles = features_of(tmp_path / "b.geojson")
    found = [tile["properties"]["classification"]["name"] == "Positive" for tile in tiles]
    np.testing.assert_array_equal(found, ds.probability.values[:, 0] > 0.5)


def test_what_cannot_be(url: Path, tmp_path: Path, slidestream: Callable[..., Any]) -> None:
    def refused(*args: object) -> str:
        answer = slidestream("export", "geojson", "--store", url, "--out", tmp_path, *args)
        assert answer.code == 1
        return str(answer.err)

    assert "--score for tiles, --mask for regions" in refused()
    assert "did you mean run?" in refused("--score", "ruin")
    assert "has no array" in refused("--score", "run/attentoin")
    assert "classifies tiles" in refused("--mask", "cal", "--threshold", "1")
    assert "c: slide c has no scores" in refused("--score", "run", "--slides", "c")
    assert "masks/map is a map of score and no mask" in refused("--mask", "map")
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_replaced_unasked(
    url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    mine = tmp_path / "a.geojson"
    mine.write_text("corrected by hand")
    args = ("export", "geojson", "--store", url, "--mask", "cal", "--out", tmp_path, "--json")
    answer = slidestream(*args)
    assert answer.code == 1
    report = json.loads(answer.out)
    assert "--overwrite" in report["failed"]["a"]
    assert list(report["exported"]) == ["b"]
    assert mine.read_text() == "corrected by hand"
    assert slidestream(*args, "--overwrite").code == 0
    assert len(features_of(mine)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.geojson", "b.geojson"]
