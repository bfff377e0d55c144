"""Heatmaps of tiles and of rasters, with regions, numbers and contact sheets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image
from sklearn.metrics import roc_auc_score

from jobs.evaluation.truth import open_truth
from jobs.heat_regions import find_regions
from jobs.heat_sources import heat_source
from jobs.mask_region import region_of
from jobs.mask_tiles import mask_of_tiles
from jobs.raster_reader import RasterChoice, SlideRaster, read_raster
from jobs.score_reader import ScoreChoice
from store_schema.errors import InputError, NotInStoreError
from store_schema.specs import (
    ArraySpec,
    GridGeometry,
    GridSpec,
    RasterSpec,
    SlideRecord,
    TileTable,
)
from store_schema.store import Store, create_store

STRIDE, TILE, N = 50, 100, 8  # tiles overlap by half
SIDE = STRIDE * (N - 1) + TILE
SPEC = GridSpec(tile_px=100, mpp=0.5, stride_px=50)
RUN = ScoreChoice("run")
CAL = RasterChoice("cal", "mask")


def mask_of(seed: int) -> npt.NDArray[np.uint8]:
    return (np.random.default_rng(seed).random((N, N)) < 0.3).astype(np.uint8)


def add_slide(store: Store, slide_id: str, values: npt.NDArray[np.float32], seed: int) -> None:
    record = SlideRecord(slide_id, "/nowhere.svs", slide_id, "none", SIDE, SIDE, 0.5, "user")
    slide = store.add_slide(record)
    row, col = (index.ravel().astype(np.int32) for index in np.indices((N, N)))
    table = TileTable(col * STRIDE, row * STRIDE, row, col, np.ones(N * N, np.float32))
    slide.create_grid(SPEC, GridGeometry(TILE, float(STRIDE), N, N), table, {"slide": slide_id})
    arrays = {"score": ArraySpec(("tile",), (), "float32", {"long_name": "score"})}
    group = slide.create_tile_group(SPEC.name, "scores", "run", arrays, {"made": "up"})
    group.write_block(0, {"score": values})
    lattice = RasterSpec(("y", "x"), (N, N), "uint8", float(STRIDE))
    slide.write_raster(SPEC.name, "cal", {"mask": (lattice, mask_of(seed))}, {"made": "up"})
    fine = np.zeros((SIDE, SIDE), np.float32)
    fine[: SIDE // 2] = np.nan
    fine[SIDE // 2 :, : SIDE // 2] = 3.0
    raster = RasterSpec(("y", "x"), fine.shape, "float32", 1.0, attrs={"long_name": "map"})
    slide.write_raster(SPEC.name, "map", {"score": (raster, fine)}, {"made": "up"})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Slide a with noise, b and c of one value each."""
    store = create_store(str(tmp_path_factory.mktemp("heat") / "s.zarr"))
    noise = np.random.default_rng(0).normal(size=N * N).astype(np.float32)
    add_slide(store, "a", noise, 1)
    add_slide(store, "b", np.zeros(N * N, np.float32), 2)
    add_slide(store, "c", np.ones(N * N, np.float32), 3)
    return store


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mask of slide a: its left half."""
    folder = tmp_path_factory.mktemp("truth")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, : SIDE // 2] = 255
    Image.fromarray(mask).save(folder / "a.png")
    return folder


def test_numbers_of_a_slide(cohort: Store, truths: Path) -> None:
    source = heat_source(cohort["a"], RUN, 1000)
    score = source.score
    assert score is not None
    low, middle, high = np.quantile(score.values, (0, 0.5, 1))
    assert source.numbers == (
        f"run/score:  64 tiles of 50 µm,  min {low:.3g},  median {middle:.3g},  max {high:.3g}"
    )
    regions = find_regions(source, CAL, open_truth(truths), 1000)
    flagged = mask_of(1).ravel() > 0
    positive = score.table.x + TILE / 2 < SIDE / 2  # more than half of the tile
    both, either = (flagged & positive).sum(), (flagged | positive).sum()
    auc = roc_auc_score(positive, score.values)
    area = flagged.sum() * (STRIDE * 0.5 / 1000) ** 2
    assert f"{area:.3g} mm², {flagged.sum()} of 64 tiles" in regions.line
    assert f"truth:  {positive.sum()} tiles" in regions.line
    assert f"IoU {both / either:.2f}" in regions.line
    assert regions.caption == f"IoU {both / either:.2f}, AUC {auc:.2f}"
    assert [outline.label for outline in regions.outlines] == ["mask cal", "truth"]
    assert regions.note == ""


def test_what_is_missing_is_said(cohort: Store, truths: Path) -> None:
    source = heat_source(cohort["b"], RUN, 1000)
    regions = find_regions(source, RasterChoice("cla", "mask"), open_truth(truths), 1000)
    assert regions.outlines == ()
    assert regions.note == "no mask cla, no truth"
    assert "truth:  none is known" in regions.line
    assert find_regions(source, None, None, 1000).line == ""
    without = find_regions(source, CAL, None, 1000)
    assert without.caption == f"{mask_of(2).sum()} of 64 tiles flagged"


def test_rasters_are_pooled_to_the_view(cohort: Store) -> None:
    source = heat_source(cohort["a"], RasterChoice("map"), 100)
    assert source.layer.values.shape == (113, 113)  # of 450, four to one
    assert source.layer.label == "map (map/score)"
    # the column of pixels in which the halves meet is three parts of four
    assert "450 by 450 px of 0.5 µm,  min 0,  median 0.75,  max 3" in source.numbers
    drawn = source.layer.drawn(source.layer.values.astype(float), (100, 100), 100 / SIDE)
    assert np.isnan(drawn[:49]).all()
    assert (drawn[52:, :49] == 3).all()
    assert (drawn[52:, 52:] == 0).all()


def test_masks_of_tiles(cohort: Store) -> None:
    slide = cohort["a"]
    table = slide.tile_table(SPEC.name)
    lattice = read_raster(slide, CAL)
    # a place's own value, though a tile covers three more
    np.testing.assert_array_equal(
        mask_of_tiles(lattice, SPEC.name, table, TILE), mask_of(1)[table.row, table.col]
    )
    fine = np.zeros((SIDE // 10, SIDE // 10), np.uint8)
    fine[5, 10:20] = 7  # y 50-60, x 100-200: the centres of the tiles of row 0 are at y 50
    spec = RasterSpec(("y", "x"), fine.shape, "uint8", 10.0)
    slide.write_raster(SPEC.name, "fine", {"mask": (spec, fine)}, {"made": "up"})
    found = mask_of_tiles(read_raster(slide, RasterChoice("fine")), SPEC.name, table, TILE)
    expected = np.where((table.row == 0) & np.isin(table.col, (1, 2)), 7, 0)
    np.testing.assert_array_equal(found, expected)


def test_a_mask_of_classes_means_the_region_of_one(cohort: Store) -> None:
    slide = cohort["a"]

    def masked(name: str, meanings: str) -> SlideRaster:
        classes = np.array([[0, 1, 2, 3]], np.uint8)
        attrs = {"flag_values": [0, 1, 2, 3], "flag_meanings": meanings}
        spec = RasterSpec(("y", "x"), classes.shape, "uint8", 10.0, attrs=attrs)
        slide.write_raster(SPEC.name, name, {"mask": (spec, classes)}, {"made": "up"})
        return read_raster(slide, RasterChoice(name))

    two = masked("two", "nothing tumor benign")
    found = region_of(two, None)
    assert found.values.values.tolist() == [[0, 1, 0, 0]]
    assert found.class_name == "tumor"
    assert region_of(two, "benign").values.values.tolist() == [[0, 0, 1, 0]]
    three = masked("three", "nothing benign tumor necrosis")
    assert region_of(three, "necrosis").values.values.tolist() == [[0, 0, 0, 1]]
    with pytest.raises(InputError, match="classes benign, tumor, necrosis: name one with --class"):
        region_of(three, None)
    plain = read_raster(slide, CAL)
    assert region_of(plain, "tumor") is plain
    source = heat_source(slide, RUN, 100)
    maps = np.array([[[0.1, 0.3]], [[0.9, 0.7]]], np.float32)
    attrs = {"long_name": "confidence that a pixel is of the class", "units": "1"}
    with_classes = {**attrs, "class_names": ["benign", "tumor"]}
    of_class = RasterSpec(("class", "y", "x"), maps.shape, "float32", 10.0, attrs=with_classes)
    slide.write_raster(SPEC.name, "seg", {"confidence": (of_class, maps)}, {"made": "up"})
    drawn = heat_source(slide, RasterChoice("seg"), 100)
    assert drawn.layer.label == "confidence for tumor (seg)"
    assert drawn.numbers.startswith("confidence for tumor (seg):  2 by 1 px")
    assert "mask two for tumor" in find_regions(source, RasterChoice("two"), None, 100).line


def test_overlapping_tiles_as_an_image(
    cohort: Store, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    answer = slidestream(
        "export", "ome-tiff", "--store", cohort.url, "--score", "run", "--out", tmp_path
    )
    assert answer.code == 0, answer.err
    lattice = cohort["a"].tiles(SPEC.name, scores="run").score.values.reshape(N, N)
    covering = np.full((4, N + 1, N + 1), np.nan)
    for i, (row, col) in enumerate(np.ndindex(2, 2)):
        covering[i, row : row + N, col : col + N] = lattice
    expected = np.nanmean(covering, axis=0)
    np.testing.assert_allclose(
        tifffile.imread(tmp_path / "a_run_score.ome.tif"), expected, atol=1e-6
    )


def test_raster_choices(cohort: Store) -> None:
    slide = cohort["c"]
    assert read_raster(slide, RasterChoice.parse("map")).array == "score"
    assert read_raster(slide, RasterChoice.parse("cal")).array == "mask"
    with pytest.raises(NotInStoreError, match="did you mean score"):
        read_raster(slide, RasterChoice.parse("map/scores"))
    with pytest.raises(NotInStoreError, match="did you mean map"):
        read_raster(slide, RasterChoice.parse("maps"))
    with pytest.raises(InputError, match="leave --class away"):
        read_raster(slide, RasterChoice.parse("map", "tumor"))


def test_a_contact_sheet_has_one_range_of_values(
    cohort: Store, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    answer = slidestream(
        "heatmap", "--store", cohort.url, "--score", "run", "--out", tmp_path, "--alpha", "1",
        "--slides", "b", "--slides", "c", "--mask", "cal", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    report = json.loads(answer.out)
    assert report["contact_sheets"] == [str(tmp_path / "contact_sheet.png")]
    ends = [np.rint(np.array(matplotlib.colormaps["viridis"](end)[:3]) * 255) for end in (0.0, 1.0)]

    def share(path: Path, colour: npt.NDArray[np.float64]) -> float:
        with Image.open(path) as picture:
            pixels = np.asarray(picture)[130:]
        return float((np.abs(pixels - colour).max(axis=-1) <= 1).mean())

    # each by itself has a constant score, which is drawn at the low end
    for slide_id in "bc":
        assert share(tmp_path / f"{slide_id}.png", ends[0]) > 0.3
        assert share(tmp_path / f"{slide_id}.png", ends[1]) < 0.01
    sheet = tmp_path / "contact_sheet.png"
    assert share(sheet, ends[0]) > 0.05
    assert share(sheet, ends[1]) > 0.05


def test_commands(cohort: Store, tmp_path: Path, slidestream: Callable[..., Any]) -> None:
    args = ("heatmap", "--store", cohort.url, "--out", tmp_path)
    assert slidestream(*args).code == 2
    assert slidestream(*args, "--score", "run", "--raster", "map").code == 2
    answer = slidestream(*args, "--raster", "map", "--slides", "a")
    assert answer.code == 0, answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]  # no sheet of one slide
    more = (*args, "--raster", "map", "--no-sheet", "--overwrite")
    assert slidestream(*more).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]
    wrong = slidestream(*args, "--raster", "mapp")
    assert wrong.code == 1
    assert "has no masks 'mapp': did you mean map?" in wrong.err


def test_pictures_are_not_replaced_unless_told(
    cohort: Store, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    args = ("heatmap", "--store", cohort.url, "--score", "run", "--out", tmp_path)
    assert slidestream(*args, "--mask", "cal", "--slides", "b").code == 0
    lined = (tmp_path / "b.png").read_bytes()
    refused = slidestream(*args)
    assert refused.code == 1
    assert refused.err == (
        f"Error: {tmp_path} has 1 of these pictures already (b.png): give --overwrite, or another --out\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]  # nothing was drawn
    assert (tmp_path / "b.png").read_bytes() == lined
    assert slidestream(*args, "--overwrite").code == 0
    assert (tmp_path / "b.png").read_bytes() != lined

    # the sheet of all is not that of two, and pages of a longer one don't stay
    (tmp_path / "contact_sheet-2.png").touch()
    (tmp_path / "contact_sheet-mine.png").touch()
    for name in "abc":
        (tmp_path / f"{name}.png").unlink()
    two = (*args, "--slides", "a", "--slides", "b")
    refused = slidestream(*two)
    assert "has 2 of these pictures already (contact_sheet-2.png, contact_sheet.png)" in refused.err
    assert slidestream(*two, "--no-sheet").code == 0
    assert slidestream(*two, "--overwrite").code == 0
    assert sorted(path.name for path in tmp_path.glob("contact*")) == [
        "contact_sheet-mine.png",
        "contact_sheet.png",
    ]
