"""Where training tiles come from, and what is refused of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from jobs.training.tile_scale import PCAM, TileScale
from jobs.vae.config import OriginSettings
from jobs.vae.image_tiles import ImageTiles
from jobs.vae.open_origin import check_scale, open_origin
from jobs.vae.pcam_tiles import PcamTiles
from jobs.vae.tile_origin import TileOrigin
from store_schema.errors import InputError, NotInStoreError, UnreadableSlideError
from store_schema.store import open_store

Write = Callable[..., tuple[Path, Path]]


def read_all(origin: TileOrigin) -> dict[str, Any]:
    batches = [raw for part in origin.parts for raw in origin.read(part)]
    return {
        "pixels": np.concatenate([raw.pixels for raw in batches]),
        "index": np.concatenate([raw.index for raw in batches]).tolist(),
        "labels": np.concatenate([raw.labels for raw in batches]).tolist(),
        "groups": [group for raw in batches for group in raw.groups],
    }


def test_normal_slides_of_a_store(cohort: Any) -> None:
    opened = open_origin(cohort.origin(), labelled=False)
    tiles = opened.tiles
    assert tuple(tiles.parts) == cohort.normal
    assert tiles.n_tiles == 4 * 64
    assert (tiles.tile_px, tiles.mpp) == (32, 0.972)
    assert tiles.notes == ("2 slides that are not labelled normal were left out",)
    read = read_all(tiles)
    assert read["groups"] == ["p0"] * 128 + ["p2"] * 64 + ["p3"] * 64
    assert set(read["labels"]) == {0}
    slide = open_store(cohort.store)["n1"].tiles(cohort.grid)
    np.testing.assert_array_equal(read["pixels"][64:128], slide.tiles.pixels().values)


def test_slides_are_chosen_by_id_label_and_split(cohort: Any, tmp_path: Path) -> None:
    named = open_origin(cohort.origin(labels=None, slides=("n2", "t0")), labelled=False)
    assert tuple(named.tiles.parts) == (
        "n2",
        "t0",
    )  # whoever names slides says that they are normal
    splits = tmp_path / "splits.csv"
    splits.write_text("train,val,test\nn0,n2,n3\nt0,t1,\nn1,,\n")
    by_file = open_origin(cohort.origin(splits=str(splits)), labelled=False)
    assert by_file.split is not None
    assert (by_file.split.train, by_file.split.val) == (("n0", "n1"), ("n2",))
    assert set(by_file.tiles.parts) == {"n0", "n1", "n2"}
    assert "neither train nor val" in by_file.tiles.notes[1]
    other = open_origin(cohort.origin(normal=("tumor",)), labelled=False)
    assert tuple(other.tiles.parts) == ("t0", "t1")


def test_slides_that_make_no_sense_are_refused(cohort: Any, tmp_path: Path) -> None:
    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=match):
            open_origin(cohort.origin(**changes), labelled=False)

    refused("Nothing says which slides are normal", labels=None)
    refused("not labelled normal", slides=("n0", "t1"))
    refused("no label 'norml': did you mean normal", normal=("norml",))
    refused("Give one of --store, --pcam and --images", images=str(tmp_path))
    refused("--mpp goes with --images", mpp=0.5)
    splits = tmp_path / "splits.csv"
    splits.write_text("train,val\nn0,t0\n")
    refused("column val of .* names no normal slide", splits=str(splits))
    splits.write_text("train,val\nn0,n1\n")
    refused(r"1 patients in train and in val \(p0\)", splits=str(splits))
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\nn0,a\nt0,b\n")
    refused("are a, b: say with --normal", labels=str(labels))
    labels.write_text("slide_id,label\nelsewhere,normal\n")
    refused("holds no normal slides", labels=str(labels))
    with pytest.raises(NotInStoreError, match="nowhere"):
        open_origin(cohort.origin(slides=("nowhere",)), labelled=False)


def test_a_slide_that_cannot_be_read_is_named_at_once(cohort: Any) -> None:
    document = Path(cohort.store) / "n2" / "zarr.json"
    node = json.loads(document.read_text().replace("n2.tif", "gone.tif"))
    del node["attributes"]["slidestream"]["digest"]  # as of a store of before there were digests
    document.write_text(json.dumps(node))

    with pytest.raises(InputError, match=r"1 of 4 slides can't be read.*n2: .*gone\.tif"):
        open_origin(cohort.origin(), labelled=False)


def test_truth_labels_tiles_and_normal_slides_need_none(cohort: Any) -> None:
    opened = open_origin(cohort.origin(truth=str(cohort.masks)), labelled=True)
    read = read_all(opened.tiles)
    assert sum(read["labels"]) == 2 * 32
    table = open_store(cohort.store)["t0"].tile_table(cohort.grid)
    of_t0 = read["labels"][4 * 64 : 5 * 64]
    np.testing.assert_array_equal(of_t0, table.x < 128)

    without_labels = open_origin(cohort.origin(truth=str(cohort.masks), labels=None), labelled=True)
    assert tuple(without_labels.tiles.parts) == ("t0", "t1")
    assert "4 slides of which nothing is known were left out" in without_labels.tiles.notes[0]
    with pytest.raises(InputError, match="give --truth"):
        open_origin(cohort.origin(), labelled=True)


def test_pcam_gives_normal_tiles_in_order(tmp_path: Path, write_pcam: Write) -> None:
    labels = [int(k % 3 == 1) for k in range(1500)][:40]
    x, y = write_pcam(tmp_path, labels)
    meta = tmp_path / "meta.csv"
    meta.write_text("coord_x,wsi\n" + "".join(f"{k},w{k // 20}\n" for k in range(40)))
    tiles = PcamTiles.of(x, y, meta, only_normal=True)
    read = read_all(tiles)
    normal = [k for k, label in enumerate(labels) if not label]
    assert read["index"] == normal
    assert tiles.n_tiles == len(normal)
    with h5py.File(x) as file:
        np.testing.assert_array_equal(read["pixels"], file["x"][()][normal])
    assert read["groups"] == [f"w{k // 20}" for k in normal]
    every = read_all(PcamTiles.of(x, y, None, only_normal=False))
    assert every["labels"] == labels
    assert set(every["groups"]) == {""}


def test_pcam_files_that_make_no_sense_are_refused(tmp_path: Path, write_pcam: Write) -> None:
    x, y = write_pcam(tmp_path, [0, 1, 0])
    (tmp_path / "short").mkdir()
    _, short = write_pcam(tmp_path / "short", [0, 1])
    (tmp_path / "tumor").mkdir()
    tx, ty = write_pcam(tmp_path / "tumor", [1, 1])
    text = tmp_path / "x.h5.gz"
    text.write_text("no HDF5")
    meta = tmp_path / "meta.csv"
    meta.write_text("wsi\na\n")
    for match, images, labels, table in (
        ("has 3 tiles and .* 2 labels", x, short, None),
        ("has no dataset x.*it has y.*images first", y, x, None),
        ("has no dataset y.*it has x", x, x, None),
        ("labels no tile 0", tx, ty, None),
        ("can't be read as HDF5 .unpack it first", text, y, None),
        ("can't be read as HDF5", tmp_path / "none.h5", y, None),
        ("names the slides of 1 tiles, and there are 3", x, y, meta),
    ):
        with pytest.raises(InputError, match=match):
            PcamTiles.of(images, labels, table, only_normal=True)
    with h5py.File(x, "a") as file:
        del file["x"]
        file["x"] = np.zeros((3, 32, 32), np.float32)
    with pytest.raises(InputError, match=r"float32 \(3, 32, 32\)"):
        PcamTiles.of(x, y, None, only_normal=True)


def test_images_of_subfolders_belong_together(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a/1.jpg", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (len(name), 0, 0)).save(tmp_path / name)
    (tmp_path / "readme.txt").write_text("not an image")
    tiles = ImageTiles.of(tmp_path, 1.0)
    read = read_all(tiles)
    assert read["groups"] == ["", "a", "b", "b"]
    assert tiles.n_tiles == 4
    assert read["pixels"].shape == (4, 32, 32, 3)


def test_images_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no images"):
        ImageTiles.of(tmp_path, None)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    Image.new("RGB", (48, 32)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"a\.png is 32 x 32 px and b\.png 48 x 32"):
        ImageTiles.of(tmp_path, None)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b\.png can't be read"):
        ImageTiles.of(tmp_path, None)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(
        tmp_path / "b.png"
    )
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableSlideError, match=r"b\.png is damaged"):
        read_all(ImageTiles.of(tmp_path, None))


def test_only_tiles_of_the_model_s_scale_are_taken(tmp_path: Path) -> None:
    Image.new("RGB", (96, 96)).save(tmp_path / "a.png")
    for mpp, fits in ((None, True), (0.93, True), (1.02, True), (0.9, False), (0.5, False)):
        tiles = ImageTiles.of(tmp_path, mpp)
        if fits:
            check_scale(tiles, PCAM, allow_other=False, made_for="the VAE")
            continue
        with pytest.raises(
            InputError, match=r"96 px at 0\.\d+ µm/px.*--mpp 0\.972.*--allow-other-grid"
        ):
            check_scale(tiles, PCAM, allow_other=False, made_for="the VAE")
        check_scale(tiles, PCAM, allow_other=True, made_for="the VAE")
    other, unknown = TileScale(64, 0.5), ImageTiles.of(tmp_path, None)
    with pytest.raises(InputError, match="of unknown pixel size, and run is for tiles of 64 px"):
        check_scale(unknown, other, allow_other=False, made_for="run")


def test_options_of_another_origin_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--grid goes with a --store"):
        open_origin(OriginSettings(images=str(tmp_path), grid="g"), labelled=False)
    with pytest.raises(InputError, match="which --images hasn't"):
        open_origin(OriginSettings(images=str(tmp_path)), labelled=True)
