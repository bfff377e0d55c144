"""``pbip train`` from slides and labels to checkpoint: what it reads, leaves and refuses, how it goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from PIL import Image

from dataflow.discover import SlideSource
from dataflow.index import index_slide
from dataflow.pyramid_tiff import write_pyramid
from dataflow.slide_stain import fit_stored_slide
from dataflow.stain import StainNormalizer, StainSpec
from dataflow.stream_spec import IndexSpec
from dataflow.tissue import TissueSpec
from jobs.evaluation.truth import open_truth
from jobs.mil.labels import LabelTable, read_label_table
from jobs.pbip import train as train_module
from jobs.pbip.train import train_pbip
from jobs.pbip.train_config import NetworkSettings, PbipTrainConfig, WeakTilesSettings
from jobs.pbip.train_labels import SlideLabels, TruthLabels
from jobs.pbip.train_masks import read_masks
from jobs.pbip.train_pictures import example_tiles
from jobs.pbip.train_tiles import open_weak_data
from jobs.pbip.weak_tiles import LabelledSlide, StoreWeakTiles
from jobs.training.history import read_history
from jobs.training.stain_settings import StainSettings
from jobs.training.stored_slides import slide_source
from models.encoder import FEATURES, EncoderFactory, EncoderSpec
from models.fit_spec import FitSpec
from models.pbip_checkpoint import load_pbip
from models.pbip_losses import PbipLossSpec
from models.pbip_training_spec import PbipTrainingSpec
from models.weak_tiles import UNKNOWN
from store_schema.errors import InputError, ModelError, SettingsConflictError
from store_schema.prototypes import NO_EXEMPLAR, PrototypeBank
from store_schema.specs import GridSpec
from store_schema.store import Store, create_store, open_store

SIDE_PX, TILE_PX, MPP = 128, 32, 1.0
CLASSES = ("benign", "tumor")
PACKAGED = NetworkSettings("tf_efficientnet_lite0", "published", hidden=32)
ENCODER = EncoderSpec(resize="none", precision="fp32")

Slidestream = Callable[..., Any]


@dataclass(frozen=True)
class Cohort:
    """Eight slides of 16 tiles of 32 px: four benign ones, four with tumour in their left half.

    Two of each train, one of each validates (``b2``, ``t2``), one of each does neither. The bank is ``bank``.
    """

    store: str
    grid: str
    folder: Path

    @property
    def open(self) -> Store:
        return open_store(self.store, mode="r+")

    @property
    def table(self) -> LabelTable:
        return read_label_table(self.folder / "labels.csv", task="multiclass", class_names=CLASSES)

    def tiles(self, **changes: Any) -> WeakTilesSettings:
        names = WeakTilesSettings(str(self.folder / "labels.csv"), str(self.folder / "splits.csv"))
        return replace(names, tile_labels=str(self.folder / "masks"), **changes)

    def config(self, run_dir: Path, **changes: Any) -> PbipTrainConfig:
        """Return the settings of a small and short training on tile labels."""
        config = PbipTrainConfig(
            store=self.store,
            grid=None,
            prototypes="bank",
            tiles=self.tiles(),
            network=NetworkSettings("mit_nano", "none", hidden=32),
            training=PbipTrainingSpec(
                PbipLossSpec(contrastive=0.0), sampling="tile", batch_size=8, round_batches=4
            ),
            fit=FitSpec(epochs=1, lr=1e-3, warmup_epochs=0.1, device="cpu"),
            run_dir=str(run_dir),
        )
        return replace(config, **changes)

    def labels(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


def bank_of(name: str, features: npt.NDArray[np.float32], **provenance: Any) -> PrototypeBank:
    """Return a bank of two prototypes a class."""
    nothing = np.full((4, 1), NO_EXEMPLAR, np.int32)
    return PrototypeBank(
        name=name,
        features=features / np.linalg.norm(features, axis=1, keepdims=True),
        class_names=CLASSES,
        k_list=(2, 2),
        cluster_size=np.full(4, 2, np.int32),
        slides=("b0", "t0"),
        exemplar_slide=nothing,
        exemplar_tile=nothing,
        exemplar_similarity=nothing.astype(np.float32),
        provenance=provenance,
        extra={"encoder": ENCODER.name, "resize": ENCODER.resize},
    )


def drawn(rng: np.random.Generator, tumour: bool) -> npt.NDArray[np.uint8]:
    """Draw pink stripes, with violet squares in the left half where there is tumour: uint8 (y, x, rgb)."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    wave = (np.sin((y + x) / 3 + rng.uniform(0, 6)) + 1)[..., None] / 2
    pixels = wave * [235, 170, 200] + (1 - wave) * [200, 120, 170]
    squares = ((y // 4 + x // 4) % 2 == 0) & (x < SIDE_PX // 2) & tumour
    pixels[squares] = [90, 40, 120]
    noisy: npt.NDArray[np.uint8] = (
        (pixels + rng.normal(0, 6, pixels.shape)).clip(0, 250).astype(np.uint8)
    )
    return noisy


@pytest.fixture(scope="session")
def _cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("weak")
    (folder / "slides").mkdir()
    (folder / "masks").mkdir()
    tissue = TissueSpec("none")
    grid = GridSpec(TILE_PX, MPP, TILE_PX, tissue=tissue.to_json())
    store = create_store(str(folder / "s.zarr"))
    rng = np.random.default_rng(0)
    rows = ["slide_id,label,patient_id"]
    for kind, label in (("b", "benign"), ("t", "tumor")):
        for number in range(4):
            slide_id = f"{kind}{number}"
            path = folder / "slides" / f"{slide_id}.tif"
            write_pyramid(path, drawn(rng, kind == "t"), MPP, downsamples=(1, 2))
            index_slide(
                store, IndexSpec(grid, tissue, block_tiles=8), SlideSource(slide_id, str(path))
            )
            rows.append(f"{slide_id},{label},p{slide_id}")
            if kind == "t":
                mask = np.zeros((16, 16), np.uint8)
                mask[:, :8] = 255
                Image.fromarray(mask).save(folder / "masks" / f"{slide_id}.png")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "splits.csv").write_text("train,val,test\nb0,b2,b3\nb1,t2,t3\nt0,,\nt1,,\n")
    factory = EncoderFactory(ENCODER)
    dataset = store["t0"].tiles(grid.name, features=False, scores=False)
    left = np.argsort(dataset.x.values, kind="stable")
    pixels = dataset.tiles.pixels().values[left[[8, 12, 0, 4]]]
    features = factory.load()(torch.from_numpy(pixels))[FEATURES].astype(np.float32)
    spec = {"name": grid.name, "spec": grid.to_json()}
    encoder = dict(factory.provenance)
    made = {"encoder": encoder, "stain": {"method": "none"}, "grid": spec}
    store.write_prototypes(bank_of("bank", features, **made))
    other = {**made, "encoder": {**encoder, "weights": "sha256:0"}}
    store.write_prototypes(bank_of("foreign", features, **other))
    coarse = {"name": "c", "spec": {**grid.to_json(), "tile_px": 64, "mpp": 2.0}}
    store.write_prototypes(bank_of("coarse", features, **{**made, "grid": coarse}))
    return Cohort(store.url, grid.name, folder)


@pytest.fixture
def cohort(_cohort: Cohort, tmp_path: Path) -> Cohort:
    """Return the slides, with tables and masks of the test's own; the store is to be left as it is."""
    for name in ("labels.csv", "splits.csv"):
        shutil.copy(_cohort.folder / name, tmp_path / name)
    shutil.copytree(_cohort.folder / "masks", tmp_path / "masks")
    return replace(_cohort, folder=tmp_path)


@pytest.fixture(scope="session")
def trained(_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run directory of a training of several rounds, with the matching; to be left as it is."""
    run_dir = tmp_path_factory.mktemp("runs") / "pbip"
    train_pbip(long_config(_cohort, run_dir), quiet=True)
    return run_dir


def long_config(cohort: Cohort, run_dir: Path) -> PbipTrainConfig:
    training = PbipTrainingSpec(sampling="tile", batch_size=8, round_batches=8)
    fit = FitSpec(epochs=3, lr=3e-3, warmup_epochs=0.5, device="cpu")
    return cohort.config(run_dir, training=training, fit=fit, network=PACKAGED)


def test_a_training_learns_and_leaves_model_metrics_and_pictures(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["tiles"] == {
        "train": {"slides": 4, "tiles": 64, "holding": {"benign": 48, "tumor": 16}},
        "val": {"slides": 2, "tiles": 32, "holding": {"benign": 24, "tumor": 8}},
    }
    assert metrics["floor"] == {"benign": 0.75, "tumor": 0.25}
    assert metrics["epoch"]["trained"] == len(read_history(trained)) == 3
    assert metrics["epoch"]["monitor"] == "val_iou"
    best = metrics["best"]
    assert best["val_auc"] > 0.95
    assert best["val_iou_tumor"] > 0.5, "twice the floor"
    assert 0 < best["train_matched"] <= 1
    model, description = load_pbip(trained / "model.safetensors")
    assert model.config.class_names == CLASSES
    assert (description["mpp"], description["tile_px"]) == (MPP, TILE_PX)
    assert description["stain"] == {"method": "none"}
    assert description["bank"]["name"] == "bank"
    on = description["trained_on"]
    assert (on["train_slides"], on["val_slides"]) == (["b0", "b1", "t0", "t1"], ["b2", "t2"])
    for name in ("round_0001", "round_0003", "curves", "examples"):
        with Image.open(trained / "plots" / f"{name}.png") as picture:
            assert picture.size[0] > 300
    assert yaml.safe_load((trained / "config.yaml").read_text())["command"] == "pbip train"


def test_stopped_and_resumed_ends_in_the_same_bits(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = FitSpec(epochs=1, lr=1e-3, device="cpu")
    whole = train_pbip(cohort.config(tmp_path / "whole", fit=fit), quiet=True)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "save_examples", stop)
    with pytest.raises(KeyboardInterrupt):
        train_pbip(cohort.config(tmp_path / "run", fit=fit), quiet=True)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "metrics.json").exists()

    metrics = train_pbip(cohort.config(tmp_path / "run", fit=fit), quiet=True)

    assert metrics["resumed_from_epoch"] == 1
    for name in ("model.safetensors",):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert metrics["best"]["val_loss"] == whole["best"]["val_loss"]
    assert train_pbip(cohort.config(tmp_path / "run", fit=fit), quiet=True) == metrics
    with pytest.raises(SettingsConflictError, match=r"fit\.seed was 0 and is now 1"):
        train_pbip(cohort.config(tmp_path / "run", fit=replace(fit, seed=1)), quiet=True)
    (tmp_path / "masks" / "t0.png").unlink()  # what is known of the tiles is now another thing
    with pytest.raises(SettingsConflictError, match=r"inputs\.train was"):
        train_pbip(cohort.config(tmp_path / "run", fit=fit), quiet=True)


def test_it_goes_on_from_a_trained_network(cohort: Cohort, trained: Path, tmp_path: Path) -> None:
    splits = cohort.labels("other.csv", "train,val\nb3,b2\nt3,t2\n")
    network = replace(PACKAGED, init=str(trained))
    config = cohort.config(
        tmp_path / "fine",
        tiles=cohort.tiles(splits=splits),
        network=network,
        fit=FitSpec(epochs=1, lr=1e-6, device="cpu"),
    )
    metrics = train_pbip(config, quiet=True)
    assert metrics["best"]["val_auc"] > 0.95, "it begins where the other ended"
    on = load_pbip(tmp_path / "fine" / "model.safetensors")[1]["trained_on"]
    assert on["train_slides"] == ["b0", "b1", "b3", "t0", "t1", "t3"]
    assert on["val_slides"] == ["b2", "t2"]
    stained = replace(config, stain=StainSettings("reinhard"), allow_other_stain=True)
    with pytest.raises(InputError, match="trained on tiles with stain normalization none"):
        train_pbip(replace(stained, run_dir=str(tmp_path / "x")), quiet=True)
    wider = replace(config, network=replace(network, hidden=64), run_dir=str(tmp_path / "x"))
    with pytest.raises(ModelError, match="hidden is 32, here 64"):
        train_pbip(wider, quiet=True)
    description = json.loads((trained / "model.json").read_text())
    other = tmp_path / "coarser"
    other.mkdir()
    shutil.copy(trained / "model.safetensors", other)
    (other / "model.json").write_text(json.dumps({**description, "mpp": 2.0}))
    coarser = replace(config, network=replace(network, init=str(other)))
    with pytest.raises(InputError, match="was trained on tiles of 32 px at 2 µm/px, and there are"):
        train_pbip(coarser, quiet=True)
    assert not (tmp_path / "x").exists()


def test_without_masks_the_auc_chooses(cohort: Cohort, tmp_path: Path) -> None:
    tiles = replace(cohort.tiles(), tile_labels=None, val_tiles=5)
    metrics = train_pbip(cohort.config(tmp_path / "run", tiles=tiles), quiet=True)
    assert metrics["epoch"]["monitor"] == "val_auc"
    assert metrics["floor"] == {}
    assert "val_iou" not in metrics["best"]
    assert metrics["tiles"]["val"] == {
        "slides": 2, "tiles": 10, "holding": {"benign": 5, "tumor": 5},
    }  # fmt: skip
    assert metrics["tiles"]["train"]["holding"] == {"benign": 32, "tumor": 32}


def weak_tiles(cohort: Cohort, stain: StainSpec) -> StoreWeakTiles:
    rng = np.random.default_rng(1)
    slides = [
        LabelledSlide(
            cohort.open[i], np.sort(rng.choice(16, 7, replace=False)), np.ones((7, 2), np.int8)
        )
        for i in ("t1", "b0", "b2")
    ]
    return StoreWeakTiles(cohort.grid, slides, stain)


@pytest.mark.parametrize("method", ["none", "reinhard"])
def test_tiles_are_those_of_the_slides_in_the_order_asked_for(cohort: Cohort, method: Any) -> None:
    stain = StainSpec(method, "slide")
    tiles = weak_tiles(cohort, stain)
    told: list[int] = []
    tiles.tell = told.append
    indices = np.random.default_rng(2).permutation(21)[:12]
    found = tiles.read(indices)
    assert told == [12]
    for index, tile in zip(indices, found, strict=True):
        slide = tiles.slides[tiles.slide_of[index]].slide
        dataset = slide.tiles(cohort.grid, features=False, scores=False)
        position = int(tiles.tile[index])
        expected = dataset.isel(tile=slice(position, position + 1)).tiles.pixels().values
        if method != "none":
            basis = fit_stored_slide(slide, cohort.grid, stain, slide_source(slide))
            normalize = StainNormalizer(stain, basis, torch.device("cpu"))
            expected = normalize(torch.from_numpy(expected))[0].numpy()
        np.testing.assert_array_equal(tile, expected[0])
    assert tiles.fingerprint == weak_tiles(cohort, stain).fingerprint
    assert tiles.fingerprint != weak_tiles(cohort, StainSpec("macenko")).fingerprint


def test_validation_tiles_do_not_depend_on_other_slides(cohort: Cohort) -> None:
    def chosen(splits: str, seed: int = 0) -> Mapping[str, list[int]]:
        settings = cohort.tiles(splits=cohort.labels("s.csv", splits), val_tiles=6)
        data = open_weak_data(
            cohort.open, cohort.grid, cohort.table, settings, StainSpec("none"), seed
        )
        return {each.slide.slide_id: each.tiles.tolist() for each in data.val.slides}

    both = chosen("train,val\nb0,b2\nt0,t2\n")
    assert both["t2"] == chosen("train,val\nb0,t2\nt0,t3\n")["t2"]
    assert both["t2"] != chosen("train,val\nb0,b2\nt0,t2\n", seed=1)["t2"]
    assert len(both["t2"]) == 6


def test_what_tiles_hold(cohort: Cohort, tmp_path: Path) -> None:
    slide, table = cohort.open["t0"], cohort.table
    x = slide.tile_table(cohort.grid).x
    assert SlideLabels(table)(slide, cohort.grid).tolist() == [[0, 1]] * 16
    mask = np.zeros((16, 16), np.uint8)
    mask[:, :7] = 255  # of the second column of tiles, three quarters
    Image.fromarray(mask).save(cohort.folder / "masks" / "t0.png")

    def held(positive_from: float, slide_id: str = "t0") -> list[set[str]]:
        truth = open_truth(cohort.folder / "masks")
        labels = TruthLabels(truth, table, positive_from)(cohort.open[slide_id], cohort.grid)
        assert labels is not None
        return [{CLASSES[k] for k in np.flatnonzero(row)} for row in labels]

    first, second, rest = x == 0, x == TILE_PX, x >= 2 * TILE_PX
    for positive_from, of_second in (
        (0.5, {"tumor"}),
        (0.1, {"benign", "tumor"}),
        (0.8, set[str]()),
        (0.0, {"benign", "tumor"}),
    ):
        found = np.array(held(positive_from), object)
        assert all(each == {"tumor"} for each in found[first]), positive_from
        assert all(each == of_second for each in found[second]), positive_from
        assert all(each == {"benign"} for each in found[rest]), positive_from
    assert held(0.5, "b0") == [{"benign"}] * 16
    names = CLASSES[::-1]  # of these the second says that nothing was found
    turned = read_label_table(cohort.folder / "labels.csv", task="multiclass", class_names=names)
    truth = TruthLabels(open_truth(cohort.folder / "masks"), turned, 0.5)
    labels = truth(slide, cohort.grid)
    assert labels is not None
    np.testing.assert_array_equal(labels, np.stack([x <= TILE_PX, x > TILE_PX], 1))
    (cohort.folder / "masks" / "t1.png").unlink()
    unknown = TruthLabels(open_truth(cohort.folder / "masks"), table, 0.5)
    assert unknown(cohort.open["t1"], cohort.grid) is None


def test_masks_of_tiles_are_the_truth_at_their_pixels(cohort: Cohort) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :12] = 255  # to the middle of the second column of tiles
    Image.fromarray(mask).save(cohort.folder / "masks" / "t2.png")
    (cohort.folder / "masks" / "t3.png").unlink()
    truth = TruthLabels(open_truth(cohort.folder / "masks"), cohort.table, 0.5)
    slides = [
        LabelledSlide(cohort.open[i], np.arange(16), np.ones((16, 2), np.int8))
        for i in ("t2", "b2", "t3")
    ]
    tiles = StoreWeakTiles(cohort.grid, slides, StainSpec("none"))
    masks = read_masks(tiles, truth, 8)
    assert masks is not None
    of_t2 = masks.read_masks(np.arange(16))
    for tile, x in zip(of_t2, tiles.x[:16], strict=True):
        positive = x + (np.arange(8) + 0.5) * 4 < 48
        np.testing.assert_array_equal(tile, np.broadcast_to(positive, (8, 8)))
    assert not masks.masks[16:32].any()
    assert (masks.masks[32:] == UNKNOWN).all()
    assert masks.floor(CLASSES) == {"benign": 1 - 0.375 / 2, "tumor": 0.375 / 2}
    swapped = read_label_table(
        cohort.folder / "labels.csv", task="multiclass", class_names=CLASSES[::-1]
    )
    turned = read_masks(tiles, replace(truth, table=swapped), 8)
    assert turned is not None
    np.testing.assert_array_equal(turned.masks[:32], 1 - masks.masks[:32])
    table = cohort.labels("tiles.csv", "slide_id,x,y,label\n")
    assert read_masks(tiles, replace(truth, truth=open_truth(Path(table))), 8) is None


def test_examples_show_borders_and_each_class() -> None:
    labels = np.zeros((40, 2), np.int8)
    labels[:, 0] = 1
    labels[30:, :] = [0, 1]
    masks = np.zeros((40, 4, 4), np.uint8)
    masks[30:] = 1
    masks[5, :, 2:] = 1
    masks[6] = UNKNOWN
    chosen = example_tiles(labels, masks, 8)
    assert len(chosen) == 8
    assert 5 in chosen
    assert 3 <= (chosen >= 30).sum() <= 4
    assert example_tiles(labels[:3], None, 8).tolist() == [0, 1, 2]


def test_what_does_not_fit_is_refused_before_anything_is_made(
    cohort: Cohort, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def refused(match: str, kind: type[Exception] = InputError, **changes: Any) -> None:
        with pytest.raises(kind, match=match):
            train_pbip(cohort.config(run, **changes), quiet=True)
        assert not run.exists()

    def slides(splits: str, **changes: Any) -> WeakTilesSettings:
        return cohort.tiles(splits=cohort.labels("s.csv", splits), **changes)

    refused(
        "the bank bank has the classes benign, tumor, in this order, and tumor, benign",
        tiles=cohort.tiles(class_order=("tumor", "benign")),
    )
    labels = cohort.labels("l.csv", "slide_id,label\nb0,stroma\nt0,tumor\nb2,stroma\nt2,tumor\n")
    refused(
        "the classes stroma, tumor, and the classes are to be benign, tumor",
        tiles=replace(slides("train,val\nb0,b2\n"), labels=labels),
    )
    refused(
        "The class tumor has no training tiles: none of the 2 training slides is labelled so",
        tiles=replace(slides("train,val\nb0,b2\nb1,t2\n"), tile_labels=None),
    )
    refused(
        "The class tumor has no training tiles: .* has a tile of it by the truth",
        tiles=slides("train,val\nb0,b2\nb1,t2\n"),
    )
    refused(
        "The column val of .* names no slide that has the grid",
        tiles=slides("train,val\nb0,\nt0,\n"),
    )
    everywhere = cohort.labels("l2.csv", "slide_id,label\nmoon,tumor\nb0,benign\nb2,benign\n")
    refused(
        r"The column train of .* names no slide that has the grid .* \(moon have not\)",
        tiles=replace(slides("train,val\nmoon,b2\n"), labels=everywhere),
    )
    refused("There are tiles of 32 px at 1 µm/px, and the prototypes of coarse are of tiles of 64 px at 2",
            prototypes="coarse", grid="32px_1.000mpp")  # fmt: skip
    matching = PbipTrainingSpec(sampling="tile")
    refused("made by another encoder than efficientnet-lite0 .*weights", ModelError,
            prototypes="foreign", training=matching)  # fmt: skip
    refused(
        "of tiles with no stain normalization, and reinhard per slide to .* is asked for",
        stain=StainSettings("reinhard"),
    )
    Image.new("L", (16, 4)).save(cohort.folder / "masks" / "t2.png")
    refused("t2.png", tiles=cohort.tiles())
    three = cohort.labels("l3.csv", "slide_id,label\nb0,benign\nt0,tumor\n")
    refused("splits .* name 6 slides without a label", tiles=replace(cohort.tiles(), labels=three))


def test_slides_that_are_lost_are_named(cohort: Cohort, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(cohort.store, store)
    lost = replace(cohort, store=str(store))
    path = Path(lost.open["t1"].record.source)
    moved = path.with_suffix(".away")
    path.rename(moved)
    try:
        with pytest.raises(InputError, match=r"1 of 6 slides can't be read; .*t1"):
            train_pbip(lost.config(tmp_path / "run"), quiet=True)
    finally:
        moved.rename(path)


def test_from_the_command_line_with_the_reference_s_file(
    slidestream: Slidestream, cohort: Cohort, tmp_path: Path
) -> None:
    config = tmp_path / "reference.yaml"
    document = {
        "paths": {
            "labels_csv": str(cohort.folder / "labels.csv"),
            "split_csv": str(cohort.folder / "splits.csv"),
            "wsi_dir": "slides",
        },
        "class_order": list(CLASSES),
        "training": {
            "epochs": 1,
            "batch_size": 8,
            "optimizer": {"name": "adamw", "lr": 0.002},
            "loss_weights": {"scale_weights": [0.0, 0.5, 1.0, 1.0], "contrastive": 0.0},
            "validation_interval": 4,
        },
        "inference": {"batch_size": 99, "use_crf": True},
        "store": cohort.store,
        "sampling": "tile",
    }
    config.write_text(yaml.safe_dump(document))
    command = (
        "pbip", "train", "--config", config, "--prototypes", "bank", "--backbone", "mit_nano",
        "--backbone-weights", "none", "--truth", cohort.folder / "masks", "--threads", "1",
        "--device", "cpu", "--run-dir", tmp_path / "run",
    )  # fmt: skip
    answer = slidestream(*command)
    assert answer.code == 0, answer.err
    assert "without meaning here: paths.wsi_dir (the store says where slides are" in answer.err
    assert "round 1/2 (best): train loss" in answer.err
    assert "train    64 tiles of 4 slides: 32 of benign, 32 of tumor" in answer.out
    assert "val      32 tiles of 2 slides: 24 of benign, 8 of tumor" in answer.out
    assert "tumor" in answer.out.partition("IoU      ")[2]
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["fit"]["lr"] == 0.002
    assert stored["training"]["batch_size"] == 8
    assert stored["training"]["loss"]["scale_weights"] == [0.0, 0.5, 1.0, 1.0]
    summary = json.loads(slidestream(*command, "--json").out)
    assert summary["status"] == "finished"
    missing = slidestream("pbip", "train", "--store", cohort.store, "--prototypes", "bonk",
                          "--config", config)  # fmt: skip
    assert missing.code == 1
    assert "no bank of prototypes 'bonk'" in missing.err
