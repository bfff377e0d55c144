from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from store_schema.store import Store

GRID = "64px_0.500mpp"
MPP = 0.2431
STRIDE = 64 * 0.5 / MPP
OME = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}


def pixel_um(file: tifffile.TiffFile) -> float:
    pixels = ElementTree.fromstring(file.ome_metadata or "").find("ome:Image/ome:Pixels", OME)
    assert pixels is not None
    assert pixels.get("PhysicalSizeXUnit") == "µm"
    return float(pixels.get("PhysicalSizeX") or 0)


def test_scores_and_masks_of_the_lattice(
    exportable: Store, url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    answer = slidestream(
        "export", "ome-tiff", "--store", url, "--score", "run/probability", "--mask", "cal",
        "--out", tmp_path,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a_cal_mask.ome.tif",
        "a_run_probability.ome.tif",
        "b_cal_mask.ome.tif",
        "b_run_probability.ome.tif",
    ]
    slide = exportable["a"]
    ds = slide.tiles(GRID, features=False, scores="run").load()
    expected = np.full((6, 9), np.nan, np.float32)
    expected[ds.row, ds.col] = ds.probability[:, 1]
    with tifffile.TiffFile(tmp_path / "a_run_probability.ome.tif") as file:
        assert file.series[0].dtype == np.float32
        np.testing.assert_allclose(file.asarray(), expected, rtol=1e-6)
        assert pixel_um(file) == pytest.approx(STRIDE * MPP)
    with tifffile.TiffFile(tmp_path / "a_cal_mask.ome.tif") as file:
        found = file.asarray()
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, slide.raster(GRID, "cal")["mask"])


def test_stitched_maps(
    exportable: Store, url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    args = ("export", "ome-tiff", "--store", url, "--slides", "b", "--out")
    assert slidestream(*args, tmp_path, "--raster", "map").code == 0
    values = exportable["b"].raster(GRID, "map")["score"].values
    with tifffile.TiffFile(tmp_path / "b_map_score.ome.tif") as file:
        assert len(file.series[0].levels) == 3
        np.testing.assert_array_equal(file.asarray(), values)
        assert pixel_um(file) == pytest.approx(MPP)
    filled = tmp_path / "filled"
    assert slidestream(*args, filled, "--raster", "map", "--outside", "-9").code == 0
    found = tifffile.imread(filled / "b_map_score.ome.tif")
    np.testing.assert_array_equal(found, np.where(np.isnan(values), -9, values))


def test_classes_are_channels(
    exportable: Store, url: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    args = ("export", "ome-tiff", "--store", url, "--slides", "a", "--raster", "seg", "--out")
    assert slidestream(*args, tmp_path).code == 0
    values = exportable["a"].raster(GRID, "seg")["confidence"].values
    path = tmp_path / "a_seg_confidence.ome.tif"
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "CYX"
        np.testing.assert_array_equal(file.asarray(), values.astype(np.float32))
        channels = ElementTree.fromstring(file.ome_metadata or "").findall(".//ome:Channel", OME)
        assert [channel.get("Name") for channel in channels] == ["normal", "tumor"]
    assert slidestream(*args, tmp_path, "--class", "normal", "--overwrite").code == 0
    np.testing.assert_array_equal(tifffile.imread(path), values[0].astype(np.float32))
    wrong = slidestream(*args, tmp_path, "--class", "tumour")
    assert wrong.code == 1
    assert "did you mean tumor?" in wrong.err


def test_nothing_to_export(url: Path, tmp_path: Path, slidestream: Callable[..., Any]) -> None:
    answer = slidestream("export", "ome-tiff", "--store", url, "--out", tmp_path)
    assert answer.code == 1
    assert "give --score, --raster or --mask" in answer.err
