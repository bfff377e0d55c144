"""``pbip segment``: networks on the slides of a store, to masks and files."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
from PIL import Image

from dataflow.discover import SlideSource
from dataflow.index import index_slide
from dataflow.mask_refine import RefineSpec, edges_refined, greatest, opened_or_closed, replaced
from dataflow.pyramid_tiff import write_pyramid
from dataflow.slide import open_slide
from dataflow.stain import StainSpec
from dataflow.stream_spec import IndexSpec
from dataflow.tissue import TissueSpec
from jobs.find_slides import only_grid
from models.checkpoint import save_model
from models.crf import CrfSpec, refined
from models.pbip import Pbip, PbipConfig
from models.pbip_checkpoint import pbip_description
from models.pbip_losses import PbipLossSpec
from store_schema.slide_view import SlideView
from store_schema.specs import GridSpec
from store_schema.store import create_store, open_store

Slidestream = Callable[..., Any]
Digests = Callable[[Path], Mapping[str, str]]

TILE_PX = 32
MPP = 0.972
CLASSES = ("benign", "tumor")


@dataclass(frozen=True)
class Slides:
    """Three slides of 192 x 160 px, one half glass, in a store; and trained-like networks."""

    store: Path
    grid: str
    run: Path
    other_run: Path
    folder: Path

    def view(self, slide_id: str) -> SlideView:
        return open_store(str(self.store))[slide_id]


def network(path: Path, seed: int, **changes: Any) -> Path:
    """Write a network with drawn weights, whose scales are so large that classes are told apart."""
    torch.manual_seed(seed)
    config = PbipConfig("tf_efficientnet_lite0", CLASSES, (2, 2), 8, TILE_PX)
    model = Pbip(config, torch.nn.functional.normalize(torch.randn(4, 8)))
    with torch.no_grad():
        model.log_scale.fill_(4.0)
    described: dict[str, Any] = {
        "mpp": MPP,
        "stain": StainSpec("none").provenance,
        "bank": {"name": "b", "fingerprint": "0", "encoder": {}},
        "trained_on": {"train_slides": ["s0"], "val_slides": []},
    }
    path.mkdir()
    save_model(
        path / "model.safetensors",
        model,
        pbip_description(model, PbipLossSpec(), **(described | changes)),
    )
    return path


@pytest.fixture(scope="session")
def _slides(tmp_path_factory: pytest.TempPathFactory) -> Slides:
    folder = tmp_path_factory.mktemp("segment")
    image = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
    tissue = TissueSpec()
    grid = GridSpec(TILE_PX, MPP, TILE_PX, min_tissue=0.4, tissue=tissue.to_json())
    store = create_store(str(folder / "s.zarr"))
    (folder / "slides").mkdir()
    for number in range(3):
        pixels = image[100 * number :][:192, 50 * number :][:, :256].copy()
        pixels[..., 1] = pixels[..., 1] * 0.8
        pixels[:, 160:] = 244
        path = folder / "slides" / f"s{number}.tif"
        write_pyramid(path, pixels, MPP, downsamples=(1,))
        index_slide(
            store, IndexSpec(grid, tissue, block_tiles=8), SlideSource(f"s{number}", str(path))
        )
    run = network(folder / "net", 4)
    other = network(folder / "net1", 1)
    return Slides(folder / "s.zarr", grid.name, run, other, folder / "slides")


@pytest.fixture
def slides(_slides: Slides, tmp_path: Path) -> Slides:
    """Return them in a store of the test's own."""
    copy = tmp_path / "s.zarr"
    shutil.copytree(_slides.store, copy)
    return Slides(copy, _slides.grid, _slides.run, _slides.other_run, _slides.folder)


def arguments(slides: Slides, out: Path, *more: object) -> list[object]:
    base = ["pbip", "segment", "--run", slides.run, "--store", slides.store, "--out", out]
    return [*base, "--grid", slides.grid, "--name", "seg", "--map-px", 8, *more]


@pytest.fixture
def segment(slidestream: Slidestream, scheduler: str, slides: Slides) -> Callable[..., Any]:
    """Return a function: folder, further arguments → the answer of ``pbip segment``."""

    def call(out: Path, *more: object) -> Any:
        return slidestream(*arguments(slides, out, *more), "--scheduler", scheduler)

    return call


def picture(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def raster(view: SlideView, grid: str, name: str, array: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = view.raster(grid, name)[array].values
    return values


ALL = ("--overlap", 0.5, "--crf", "--edge-refinement", "--min-component", 5)


def test_every_step_is_its_function_of_the_one_before(
    segment: Callable[..., Any], slides: Slides, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    answer = segment(out, *ALL, "--json")
    assert answer.code == 0, answer.err + answer.out
    metrics = json.loads(answer.out)
    assert metrics["command"] == "pbip segment"
    assert metrics["grid"] == f"{slides.grid}_s16"
    view = slides.view("s1")
    grid = metrics["grid"]
    assert len(view.tile_table(grid)) > 2 * len(view.tile_table(slides.grid))
    assert view.run_attrs(grid, "scores", "seg")["provenance"]["model"]["tta"] is False
    px_level0 = 4.0
    before = raster(view, grid, "seg", "confidence").astype(np.float32)
    assert before.shape == (2, 48, 64)
    assert np.nanstd(before[1]) > 0.05
    assert view.run_attrs(grid, "masks", "seg")["px_level0"] == px_level0
    stitched = raster(view, grid, "seg", "mask")
    alike = before[0] == before[1]  # as they are stored: the mask is of the numbers before
    np.testing.assert_array_equal(stitched[~alike], greatest(before)[~alike])
    # the field looks at the slide on the pixels of the map
    reader = open_slide(str(slides.folder / "s1.tif"), None)
    image = reader.read_level(0, 0, 0, 256, 192).astype(float)
    reader.close()
    cells = image.reshape(48, 4, 64, 4, 3).mean(axis=(1, 3))
    expected = refined(before, np.floor(cells + 0.5).astype(np.uint8), CrfSpec())
    crf = raster(view, grid, "seg-crf", "confidence").astype(np.float32)
    np.testing.assert_allclose(crf, expected, atol=5e-3)
    np.testing.assert_array_equal(raster(view, grid, "seg-crf", "mask"), greatest(crf))
    spec = RefineSpec(edge=True, min_component_px=5)
    room = ((0, 0), (20, 20), (20, 20))
    around = np.pad(crf, room, constant_values=np.nan)
    mask = opened_or_closed(greatest(around), around, 1, spec)
    mask = replaced(mask, small(mask == 2, 5), around, 1)
    mask = edges_refined(mask, around, 1, spec)[20:-20, 20:-20]
    found = raster(view, grid, "seg-post", "mask")
    np.testing.assert_array_equal(found, mask)
    assert set(np.unique(found)) == {0, 1, 2}
    attrs = view.run_attrs(grid, "masks", "seg-post")
    assert [step["step"] for step in attrs["provenance"]["steps"]] == [
        "closing",
        "drop-small-components",
        "refine-edges",
    ]
    assert view.raster(grid, "seg-post")["mask"].attrs["flag_meanings"] == "nothing benign tumor"


def small(region: npt.NDArray[np.bool_], min_px: int) -> npt.NDArray[np.bool_]:
    from scipy import ndimage

    labels, _ = ndimage.label(region, np.ones((3, 3)))
    few: npt.NDArray[np.bool_] = (np.bincount(labels.ravel()) < min_px)[labels] & region
    return few


def test_files_say_what_is_in_the_store_and_the_same_again_does_nothing(
    segment: Callable[..., Any], slides: Slides, tmp_path: Path, store_digests: Digests
) -> None:
    out = tmp_path / "out"
    answer = segment(out, "--post", "opening")
    assert answer.code == 0, answer.err + answer.out
    assert "3 slides segmented" in answer.out
    for slide_id in ("s0", "s1", "s2"):
        view = slides.view(slide_id)
        mask = raster(view, slides.grid, "seg-post", "mask")
        png = picture(out / slide_id / "segmentation_mask.png")
        np.testing.assert_array_equal(png, np.where(mask, mask - 1, 255))
        stored = raster(view, slides.grid, "seg", "confidence")
        with np.load(out / slide_id / "confidence_maps.npz") as maps:
            assert list(maps) == ["class_0", "class_1"]
            np.testing.assert_array_equal(np.stack([maps["class_0"], maps["class_1"]]), stored)
        said = json.loads((out / slide_id / "metadata.json").read_text())
        assert said["wsi_name"] == f"{slide_id}.tif"
        assert said["class_order"] == list(CLASSES)
        assert said["background"] == "benign"
        assert said["num_patches"] == len(view.tile_table(slides.grid))
        assert said["pixels"]["tumor"] == int((mask == 2).sum())
        assert {"read", "model", "write", "stitch", "post", "files"} <= set(said["seconds"])
        assert not said["gated_by_label"]
        overlay = picture(out / slide_id / "visualization.png")
        assert len(np.unique(overlay.reshape(-1, 3), axis=0)) > 100
    rows = list(csv.DictReader((out / "batch_results.csv").read_text().splitlines()))
    assert [row["slide_id"] for row in rows] == ["s0", "s1", "s2"]
    assert all(float(row["processing_time"]) > 0 for row in rows)
    assert sum(float(rows[0][f"{name}_share"]) for name in CLASSES) == pytest.approx(1)
    digests, files = store_digests(slides.store), file_bytes(out)
    again = segment(out, "--post", "opening")
    assert again.code == 0
    assert store_digests(slides.store) == digests
    assert file_bytes(out) == files
    (out / "s1" / "segmentation_mask.png").unlink()
    assert segment(out, "--post", "opening").code == 0
    made = file_bytes(out)
    assert {name for name in files if files[name] != made[name]} <= {
        "s1/metadata.json",
        "batch_results.csv",
    }
    other = segment(out, "--post", "closing")
    assert other.code == 1
    assert "steps" in other.err


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_overlapping_grid_is_that_of_index(
    segment: Callable[..., Any],
    slidestream: Slidestream,
    scheduler: str,
    slides: Slides,
    tmp_path: Path,
) -> None:
    assert segment(tmp_path / "out", "--overlap", 0.5, "--slides", "s2").code == 0
    other = tmp_path / "other.zarr"
    answer = slidestream(
        *("index", slides.folder / "s2.tif", "--store", other, "--tile-px", TILE_PX),
        *("--mpp", MPP, "--stride-px", 16, "--min-tissue", 0.4, "--block-tiles", 8),
        *("--scheduler", scheduler),
    )
    assert answer.code == 0, answer.err
    name = f"{slides.grid}_s16"
    ours, theirs = slides.view("s2"), open_store(str(other))["s2"]
    assert ours.grid_attrs(name)["fingerprint"] == theirs.grid_attrs(name)["fingerprint"]
    np.testing.assert_array_equal(ours.tile_table(name).x, theirs.tile_table(name).x)
    assert name not in slides.view("s0").grids
    # the grid that was there before is still the one that is meant: the same call again does nothing
    assert only_grid(str(slides.store), None) == slides.grid


@dataclass
class Stopped:
    """A function that can be called so often; then the user has had enough."""

    function: Callable[..., Any]
    n_calls: int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.n_calls -= 1
        if self.n_calls < 0:
            raise KeyboardInterrupt
        return self.function(*args, **kwargs)


def test_an_interrupted_call_goes_on_to_the_same_bytes(
    segment: Callable[..., Any],
    slides: Slides,
    tmp_path: Path,
    store_digests: Digests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped at the second slide, stage by stage; the slow test kills it anywhere."""
    from jobs.pbip import segment as module

    two = (*ALL, "--slides", "s0", "--slides", "s1")
    assert segment(tmp_path / "whole", *two).code == 0
    whole = store_digests(slides.store)
    for name in ("seg", "seg-crf", "seg-post"):
        for group in slides.store.glob(f"*/*_s16/masks/{name}"):
            shutil.rmtree(group)
    out = tmp_path / "out"
    # files of the first slide are written by the first two calls, and then left as they are
    for stage, n_calls in (("refine_slide", 1), ("post_process", 1), ("write_files", 0)):
        stopped = Stopped(getattr(module, stage), n_calls)
        with monkeypatch.context() as patch:
            patch.setattr(module, stage, stopped)
            assert segment(out, *two).code == 130
        assert not (out / "batch_results.csv").exists()
    assert segment(out, *two).code == 0
    assert store_digests(slides.store) == whole
    for name in ("segmentation_mask.png", "confidence_maps.npz", "visualization.png"):
        for slide_id in ("s0", "s1"):
            ours, theirs = (tmp_path / run / slide_id / name for run in ("out", "whole"))
            assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_it_ends_in_the_same_store(
    slides: Slides, tmp_path: Path, store_digests: Digests
) -> None:
    """kill -9 of the client and its workers, as soon as a stage has begun to write."""
    at_start = tmp_path / "at_start.zarr"
    shutil.copytree(slides.store, at_start)

    def command(out: str) -> list[str]:
        more = [*ALL, "--dashboard-port", 0, "--workers", 1, "--run-dir", tmp_path / "run"]
        words = map(str, arguments(slides, tmp_path / out, *more))
        return [sys.executable, "-m", "jobs.cli", *words]

    subprocess.run(command("whole"), check=True, capture_output=True)
    whole = store_digests(slides.store)
    shutil.rmtree(slides.store)
    shutil.copytree(at_start, slides.store)
    for begun in ("s0/*_s16/scores/seg/confidence", "s0/*/masks/seg/*", "s1/*/masks/seg-crf/*"):
        process = subprocess.Popen(
            command("out"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while not any(slides.store.glob(begun)):
            assert process.poll() is None, f"ended before {begun}"
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert store_digests(slides.store) != whole
    subprocess.run(command("out"), check=True, capture_output=True)
    left = store_digests(slides.store)
    assert {key: value for key, value in left.items() if ".partial" not in key} == whole


def test_gating_takes_out_what_the_label_does_not_name(
    segment: Callable[..., Any], slides: Slides, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\ns0,benign\ns1,tumor\n")
    out = tmp_path / "out"
    plain = ("--post", "none", "--min-component", 1)
    answer = segment(out, *plain, "--gate-by-label", labels)
    assert answer.code == 1
    assert "s2 has no label to gate by" in answer.err
    assert "gated    by slide labels" in answer.out
    raw = {i: raster(slides.view(i), slides.grid, "seg", "mask") for i in ("s0", "s1")}
    post = {i: raster(slides.view(i), slides.grid, "seg-post", "mask") for i in ("s0", "s1")}
    assert (raw["s0"] == 2).any()
    np.testing.assert_array_equal(post["s0"], (raw["s0"] > 0).astype(np.uint8))
    np.testing.assert_array_equal(post["s1"], raw["s1"])
    assert json.loads((out / "s0" / "metadata.json").read_text())["gated_by_label"]
    unknown = tmp_path / "unknown.csv"
    unknown.write_text("slide_id,label\ns0,stroma\n")
    assert "stroma" in segment(out, *plain, "--gate-by-label", unknown).err


def test_several_runs_are_averaged(
    segment: Callable[..., Any], slides: Slides, tmp_path: Path
) -> None:
    only = ("--slides", "s0", "--post", "none", "--min-component", 1)
    both = segment(tmp_path / "both", "--run", slides.other_run, *only)
    assert both.code == 0, both.err
    assert segment(tmp_path / "one", "--name", "one", *only).code == 0
    view = slides.view("s0")
    averaged, single = (view.tiles(slides.grid, scores=n)["confidence"] for n in ("seg", "one"))
    assert np.abs(averaged.values.astype(float) - single.values).max() > 0.01
    assert len(view.run_attrs(slides.grid, "scores", "seg")["provenance"]["model"]["weights"]) == 2
    # nothing is done to the mask: it is the stitched one, and there is no other
    assert view.runs(slides.grid, "masks") == ["one", "seg", "tissue"]
    said = json.loads((tmp_path / "one" / "s0" / "metadata.json").read_text())
    assert said["mask_in_store"] == "masks/one/mask"


def test_a_slide_that_is_gone_does_not_stop_the_others(
    segment: Callable[..., Any], slides: Slides, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(slides.folder, moved)
    (moved / "s1.tif").write_bytes(b"no slide")
    answer = segment(tmp_path / "out", *moved.glob("*.tif"), "--crf", "--json")
    assert answer.code == 1
    metrics = json.loads(answer.out)
    assert sorted(metrics["segmented"]) == ["s0", "s2"]
    assert [failure["slide_id"] for failure in metrics["failures"]] == ["s1"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--grid", "none"), "has no grid 'none'"),
        (("--slides", "s7"), "has no slide 's7'"),
        (("--kernel", 4), "has no middle"),
        (("--background", "tumour"), "did you mean tumor?"),
        (("--map-px", 5), "give a divisor"),
        (("--run", "/nowhere/net"), "/nowhere/net"),
    ],
)
def test_what_is_refused(
    segment: Callable[..., Any], tmp_path: Path, more: tuple[object, ...], said: str
) -> None:
    answer = segment(tmp_path / "out", *more)
    assert answer.code == 1
    assert said in answer.err
    assert not (tmp_path / "out").exists()


def test_networks_of_other_tiles_are_refused(
    segment: Callable[..., Any], tmp_path: Path, slides: Slides
) -> None:
    far = network(tmp_path / "far", 0, mpp=0.5)
    answer = segment(tmp_path / "out", "--run", far)
    assert "can't be averaged" in answer.err
