"""Written here, read by tifffile; the OME-XML against what the format's schema calls its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from dataflow.ome_pyramid import OmeImage, write_ome_pyramid
from dataflow.raster_pooling import pooled

OME = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}


def image_of(channels: npt.NDArray[Any], band_px: int = 200, **changes: Any) -> OmeImage:
    def bands(channel: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        for y in range(0, len(channel), band_px):
            yield channel[y : y + band_px]

    plain = OmeImage(
        "run/score",
        "what it is",
        [f"class {i}" for i in range(len(channels))],
        [lambda channel=channel: bands(channel) for channel in channels],  # type: ignore[misc]
        (channels.shape[1], channels.shape[2]),
        channels.dtype.name,
        4.0,
    )
    return replace(plain, **changes)


def scores(*shape: int) -> npt.NDArray[np.float32]:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values[..., :40, :300] = np.nan
    return values


@pytest.mark.parametrize(("n", "band_px"), [(1, 1024), (2, 200), (1, 2)])
def test_pyramids_of_scores(tmp_path: Path, n: int, band_px: int) -> None:
    values = scores(n, 701, 1300)
    path = tmp_path / "s.ome.tif"
    write_ome_pyramid(path, image_of(values, band_px))
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        (series,) = file.series
        levels = [level.asarray().reshape(n, *level.shape[-2:]) for level in series.levels]
        pages = [level.pages[0] for level in series.levels]
    assert [level.shape for level in levels] == [(n, 701, 1300), (n, 351, 650), (n, 176, 325)]
    np.testing.assert_array_equal(levels[0], values)
    half = np.stack([pooled(channel, 2, "mean") for channel in values])
    np.testing.assert_array_equal(levels[1], half)
    np.testing.assert_array_equal(
        levels[2], np.stack([pooled(channel, 2, "mean") for channel in half])
    )
    for i, page in enumerate(pages):
        assert isinstance(page, tifffile.TiffPage)
        assert page.is_tiled
        numerator, denominator = page.tags["XResolution"].value
        assert 10_000 * denominator / numerator == pytest.approx(4.0 * 2**i)
        assert page.tags["ResolutionUnit"].value == 3  # centimetres


def test_what_the_metadata_say(tmp_path: Path) -> None:
    path = tmp_path / "s.ome.tif"
    write_ome_pyramid(path, image_of(scores(2, 60, 70), origin_um=(8.0, 2.5)))
    with tifffile.TiffFile(path) as file:
        said = ElementTree.fromstring(file.ome_metadata or "")
    (image,) = said.findall("ome:Image", OME)
    assert image.get("Name") == "run/score"
    assert image.findtext("ome:Description", namespaces=OME) == "what it is"
    (pixels,) = image.findall("ome:Pixels", OME)
    sizes = {key: pixels.get(key) for key in ("SizeX", "SizeY", "SizeC", "Type")}
    assert sizes == {"SizeX": "70", "SizeY": "60", "SizeC": "2", "Type": "float"}
    for axis in "XY":
        assert float(pixels.get(f"PhysicalSize{axis}") or 0) == 4.0
        assert pixels.get(f"PhysicalSize{axis}Unit") == "µm"
    names = [channel.get("Name") for channel in pixels.findall("ome:Channel", OME)]
    assert names == ["class 0", "class 1"]
    places = [(p.get("PositionX"), p.get("PositionY")) for p in pixels.findall("ome:Plane", OME)]
    assert places == [("8.0", "2.5")] * 2


def test_masks_keep_what_is_small(tmp_path: Path) -> None:
    mask = np.zeros((1, 1200, 900), np.uint8)
    mask[0, 777, 333] = 1
    path = tmp_path / "m.ome.tif"
    write_ome_pyramid(path, image_of(mask, pool="max"))
    with tifffile.TiffFile(path) as file:
        levels = [level.asarray() for level in file.series[0].levels]
    assert [level.dtype for level in levels] == [np.uint8] * 3
    assert [int(level.sum()) for level in levels] == [1, 1, 1]
    assert levels[2][777 // 4, 333 // 4] == 1
    assert path.stat().st_size < 20_000


def test_a_slide_of_unknown_size_and_of_one_tile(tmp_path: Path) -> None:
    path = tmp_path / "s.ome.tif"
    write_ome_pyramid(path, image_of(np.ones((1, 1, 1), np.float32), px_um=None))
    with tifffile.TiffFile(path) as file:
        assert "PhysicalSizeX" not in (file.ome_metadata or "")
        np.testing.assert_array_equal(file.asarray(), np.ones((1, 1), np.float32))


def test_the_same_file_every_time(tmp_path: Path) -> None:
    image = image_of(scores(1, 600, 600))
    for name in ("a", "b"):
        write_ome_pyramid(tmp_path / name, image)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
