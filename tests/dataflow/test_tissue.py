from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dataflow.pen import hue_saturation, pen_mask
from dataflow.slide import open_slide
from dataflow.tissue import ASSUMED_MPP, TissueSpec, find_tissue, otsu_between, tissue_mask
from store_schema.errors import InputError
from tests.dataflow.conftest import ArrayReader

GLASS = (243, 242, 244)
PINK = (205, 120, 165)
PALE_STROMA = (232, 205, 220)
PURPLE = (90, 60, 140)
BROWN = (120, 75, 40)

PX_UM2 = 64.0  # 8 µm a pixel


def thumbnail(rows: int = 80, columns: int = 100) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, 1, (rows, columns, 3))
    return (np.array(GLASS) + noise).clip(0, 255).astype(np.uint8)


def paint(image: npt.NDArray[np.uint8], rows: slice, columns: slice, rgb: tuple[int, ...]) -> None:
    noise = np.random.default_rng(1).normal(0, 2, image[rows, columns].shape)
    image[rows, columns] = (np.array(rgb) + noise).clip(0, 255).astype(np.uint8)


def test_otsu_finds_strong_and_pale_tissue_and_no_glass() -> None:
    image = thumbnail()
    paint(image, slice(10, 60), slice(10, 40), PURPLE)
    paint(image, slice(10, 60), slice(40, 60), PINK)
    paint(image, slice(10, 60), slice(60, 80), PALE_STROMA)
    found = find_tissue(image, TissueSpec(), PX_UM2)
    truth = np.zeros_like(found)
    truth[10:60, 10:80] = True
    wider = np.zeros_like(found)
    wider[9:61, 9:81] = True  # smoothing may widen strong tissue by a pixel
    assert found[truth].mean() > 0.97
    assert not found[~wider].any()


def test_a_slide_full_of_tissue_is_not_cut_in_two() -> None:
    image = thumbnail()
    paint(image, slice(None), slice(None, 50), PURPLE)
    paint(image, slice(None), slice(50, None), PINK)
    assert find_tissue(image, TissueSpec(), PX_UM2).all()


def test_a_slide_without_tissue_has_an_empty_mask() -> None:
    for spec in (TissueSpec("otsu"), TissueSpec("threshold")):
        assert not find_tissue(thumbnail(), spec, PX_UM2).any()
    uniform = np.full((8, 8, 3), 255, dtype=np.uint8)
    assert not find_tissue(uniform, TissueSpec(), PX_UM2).any()


def test_otsu_stays_between_floor_and_ceiling() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0.02, 0.005, 5000).astype(np.float32)
    assert otsu_between(noise, 0.07) == 0.07
    strong = np.concatenate([noise, rng.normal(0.6, 0.1, 5000).astype(np.float32)])
    assert 0.07 <= otsu_between(strong, 0.07) <= 0.10
    assert otsu_between(strong, 0.3) == 0.3
    assert otsu_between(np.empty(0, dtype=np.float32), 0.07) == 0.07


def test_threshold_is_taken_as_given() -> None:
    image = thumbnail()
    paint(image, slice(10, 60), slice(10, 40), PALE_STROMA)  # saturation 0.12
    assert find_tissue(image, TissueSpec("threshold"), PX_UM2).any()
    assert not find_tissue(image, TissueSpec("threshold", threshold=0.2), PX_UM2).any()


@pytest.mark.parametrize(
    "ink",
    [(20, 20, 22), (70, 72, 75), (30, 90, 200), (20, 140, 60), (60, 170, 120), (215, 20, 30)],
    ids=["black", "grey", "blue", "green", "teal", "red"],
)
def test_ink_is_taken_out_and_tissue_stays(ink: tuple[int, int, int]) -> None:
    image = thumbnail()
    paint(image, slice(10, 60), slice(10, 40), PINK)
    paint(image, slice(5, 75), slice(70, 78), ink)
    found = find_tissue(image, TissueSpec(), PX_UM2)
    assert found[12:58, 12:38].all()
    assert not found[:, 66:82].any()


@pytest.mark.parametrize(
    "rgb",
    [PINK, PURPLE, BROWN, PALE_STROMA, (75, 50, 40), (180, 60, 80), (150, 160, 210), (70, 50, 110)],
    ids=["eosin", "nuclei", "haemosiderin", "stroma", "melanin", "blood", "pale blue", "dense"],
)
def test_colours_of_tissue_are_not_ink(rgb: tuple[int, int, int]) -> None:
    image = thumbnail()
    paint(image, slice(10, 60), slice(10, 40), rgb)
    assert not pen_mask(image).any()


def test_specks_go_and_holes_close_by_area() -> None:
    image = thumbnail()
    paint(image, slice(10, 60), slice(10, 60), PINK)
    paint(image, slice(20, 28), slice(20, 28), GLASS)  # 64 px = 4,096 µm²
    paint(image, slice(35, 55), slice(35, 55), GLASS)  # 400 px = 25,600 µm²
    paint(image, slice(30, 38), slice(80, 88), PINK)
    found = find_tissue(image, TissueSpec(), PX_UM2)
    assert found[24, 24]
    assert not found[45, 45]
    assert not found[34, 84]
    keep_all = TissueSpec(min_tissue_area_um2=0, min_hole_area_um2=0)
    found = find_tissue(image, keep_all, PX_UM2)
    assert not found[24, 24]
    assert found[34, 84]


def test_hue_and_saturation_are_those_of_hsv() -> None:
    from skimage.color import rgb2hsv

    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    hue, saturation = hue_saturation(image)
    expected = rgb2hsv(image)
    np.testing.assert_allclose(saturation, expected[..., 1], atol=1e-6)
    turn = np.abs(hue - expected[..., 0] * 360)
    assert np.minimum(turn, 360 - turn).max() < 1e-3


def slide(mpp: float | None = 0.5) -> ArrayReader:
    pixels = np.full((960, 1600, 3), GLASS, dtype=np.uint8)
    pixels[320:640, 160:800] = PINK
    return ArrayReader(pixels, mpp=mpp)


@pytest.mark.parametrize("mpp", [0.5, 1.0, 28.97, None])
def test_mask_pixels_have_the_size_that_was_asked_for(mpp: float | None) -> None:
    found = tissue_mask(slide(mpp), TissueSpec())
    assert found.px_level0 == max(1.0, 8.0 / (mpp or ASSUMED_MPP))
    assert found.mask.shape == found.thumbnail.shape[:2]
    assert found.mask.dtype == np.uint8
    px = found.px_level0
    assert 310 * 630 <= found.mask.sum() * px**2 <= (320 + 2 * px) * (640 + 2 * px)


def test_none_counts_everything() -> None:
    found = tissue_mask(slide(), TissueSpec("none"))
    assert found.mask.min() == 1


def from_file(path: Path) -> npt.NDArray[np.bool_]:
    """Return the mask of the file on the slide, one element per level-0 px of a 10 px lattice."""
    found = tissue_mask(slide(), TissueSpec("mask", mask_path=str(path)))
    assert found.mask.shape == found.thumbnail.shape[:2]
    row, column = (
        ((np.arange(0, size, 10) + 5) / found.px_level0).astype(int) for size in (960, 1600)
    )
    lattice: npt.NDArray[np.bool_] = found.mask[np.ix_(row, column)].astype(bool)
    return lattice


@pytest.mark.parametrize("shape", [(6, 10), (60, 100), (960, 1600), (97, 161)])
@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA"])
def test_mask_image_of_any_scale(tmp_path: Path, shape: tuple[int, int], mode: str) -> None:
    rows, columns = shape
    mask = np.zeros(shape, dtype=np.uint8)
    mask[: rows // 2, : columns // 5] = 7
    Image.fromarray(mask * 30).convert(mode).save(tmp_path / "mask.png")
    found = from_file(tmp_path / "mask.png")
    truth = np.zeros_like(found)
    truth[:48, :32] = True
    assert (found ^ truth).mean() < 0.02


def geojson(*polygons: Any, kind: str = "Polygon") -> dict[str, Any]:
    geometries = [{"type": kind, "coordinates": polygon} for polygon in polygons]
    features = [{"type": "Feature", "geometry": geometry} for geometry in geometries]
    return {"type": "FeatureCollection", "features": features}


def box(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


@pytest.mark.parametrize("wrapping", ["collection", "geometry", "multi", "list"])
def test_geojson_polygons_holes_and_overhang(tmp_path: Path, wrapping: str) -> None:
    with_hole = [box(160, 160, 800, 800), box(320, 320, 480, 640)]
    overhang = [box(1440, -500, 9000, 160)]
    data: Any = geojson(with_hole, overhang)
    if wrapping == "geometry":
        parts = [{"type": "Polygon", "coordinates": p} for p in (with_hole, overhang)]
        data = {"type": "GeometryCollection", "geometries": parts}
    if wrapping == "multi":
        data = geojson([with_hole, overhang], kind="MultiPolygon")
    if wrapping == "list":
        data = data["features"]
    path = tmp_path / "mask.geojson"
    path.write_text(json.dumps(data))
    truth = np.zeros((96, 160), dtype=bool)
    truth[16:80, 16:80] = True
    truth[32:64, 32:48] = False
    truth[:16, 144:] = True
    assert (from_file(path) ^ truth).mean() < 0.02


def test_empty_geojson_is_a_slide_without_tissue(tmp_path: Path) -> None:
    path = tmp_path / "mask.geojson"
    path.write_text(json.dumps(geojson([box(-90, -90, -10, -10)])))
    assert not from_file(path).any()
    path.write_text('{"type": "FeatureCollection", "features": []}')
    assert not from_file(path).any()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mask.geojson", "{", "can't be read as GeoJSON"),
        ("mask.geojson", '{"type": "Point", "coordinates": [1, 2]}', "only polygons"),
        ("mask.geojson", '{"type": "FeatureCollection"}', "lacks 'features'"),
        ("mask.geojson", '{"type": "Polygon", "coordinates": [[[1, "a"], [2, 3]]]}', "be drawn"),
        ("mask.geojson", '{"type": "Polygon", "coordinates": [[[1, 2], [2, 3]]]}', "be drawn"),
        ("mask.geojson", '{"type": "Polygon", "coordinates": 3}', "be drawn"),
        ("mask.geojson", "3", "only polygons"),
        ("mask.png", "not a picture", "can't be read as an image"),
    ],
)
def test_broken_mask_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        from_file(tmp_path / name)


def test_mask_of_another_slide_is_refused(tmp_path: Path) -> None:
    Image.new("L", (96, 160), 255).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="proportions"):
        from_file(tmp_path / "mask.png")
    with pytest.raises(InputError, match="isn't there"):
        from_file(tmp_path / "nothing.png")


def test_a_folder_of_masks_is_searched_by_slide_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no mask for the slide memory"):
        from_file(tmp_path)
    Image.new("L", (10, 6), 255).save(tmp_path / "memory.png")
    assert from_file(tmp_path).all()
    (tmp_path / "memory.geojson").write_text("{}")
    with pytest.raises(InputError, match="2 masks for the slide memory"):
        from_file(tmp_path)


def test_spec_json_holds_what_matters() -> None:
    spec = TissueSpec()
    assert json.loads(json.dumps(spec.to_json()))["method"] == "otsu"
    assert replace(spec, saturation_floor=0.1).to_json() != spec.to_json()
    assert TissueSpec("none", saturation_floor=0.1).to_json() == TissueSpec("none").to_json()


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "magic"},
        {"method": "mask"},
        {"mask_path": "m.png"},
        {"saturation_floor": 1.5},
        {"mask_mpp": 0.0},
        {"min_hole_area_um2": -1.0},
    ],
)
def test_senseless_specs(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        TissueSpec(**settings)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("CMU-1-Small-Region.svs", 0.33, 0.43),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.60, 0.68),
        ("luna_1065626.svs", 0.002, 0.01),
        ("CropBreastSlide.tiff", 0.98, 1.0),
    ],
)
def test_share_of_tissue_on_real_slides(
    test_data: Path, name: str, low: float, high: float
) -> None:
    """The bounds were set by looking at the outlines."""
    reader = open_slide(test_data / "slides" / name)
    found = tissue_mask(reader, TissueSpec())
    reader.close()
    assert low <= found.mask.mean() <= high
