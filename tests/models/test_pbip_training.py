"""Training on image-level labels finds where the classes are; it resumes, warns, and refuses what can't work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.checkpoint import read_tensors
from models.fit import fit
from models.fit_spec import EpochRecord, FitSpec
from models.pbip import Pbip, PbipConfig, confidence, new_pbip
from models.pbip_diagnostics import PixelOverlaps, round_warnings, tile_scores
from models.pbip_losses import PbipLossSpec
from models.pbip_training import PbipTraining, WeakBatch
from models.pbip_training_spec import PbipTrainingSpec
from models.preprocess import Preprocess
from models.prompt_encoder import PromptEncoder
from models.weak_tiles import UNKNOWN
from store_schema.errors import InputError, ModelError, SettingsConflictError

MakeTiles = Callable[..., Any]

CONFIG = PbipConfig("test_efficientnet", ("stripes", "checks"), (2, 2), 16, 64, hidden=16)
SPEC = PbipTrainingSpec(sampling="tile", batch_size=12, round_batches=8)
FIT = FitSpec(epochs=6, lr=3e-3, weight_decay=5e-4, monitor="val_iou", mode="max", device="cpu")
QUICK = replace(SPEC, batch_size=4, round_batches=3)


def encoder_of(tile_px: int = 64) -> PromptEncoder:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 16, 7, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return PromptEncoder(layers, Preprocess(None, None, "bilinear", (0.5,) * 3, (0.25,) * 3), 16)


def prototypes_of(source: Any, encoder: PromptEncoder) -> torch.Tensor:
    """Return two means of tiles of each class alone."""
    px = source.tile_px
    with torch.no_grad():
        features = encoder(
            torch.from_numpy(source.tiles),
            torch.arange(len(source)),
            torch.ones(len(source), 1, px, px),
        )
    alone = [features[k::3] for k in (0, 1)]
    means = [part.mean(0) for each in alone for part in each.chunk(2)]
    return nn.functional.normalize(torch.stack(means), dim=1)


def job_of(
    train: Any,
    val: Any,
    spec: PbipTrainingSpec = QUICK,
    fit_spec: FitSpec = FIT,
    config: PbipConfig = CONFIG,
) -> PbipTraining:
    encoder = encoder_of()
    model = new_pbip(config, prototypes_of(train, encoder), seed=fit_spec.seed)
    return PbipTraining(spec, fit_spec, train, val, model, encoder, val)


class Records:
    def __init__(self) -> None:
        self.records: list[EpochRecord] = []

    def on_epoch(self, record: EpochRecord) -> None:
        self.records.append(record)


def ious(model: Pbip, source: Any, tiles: np.ndarray) -> list[float]:
    with torch.no_grad():
        output = model(model.normalize(torch.from_numpy(source.tiles[tiles])))
        said = confidence(output, model.config, source.tile_px).argmax(1).numpy()
    truth = source.masks[tiles]
    return [
        float(((said == k) & (truth == k)).sum() / ((said == k) | (truth == k)).sum())
        for k in (0, 1)
    ]


def test_textures_are_told_and_found_in_half_of_a_tile(
    textured_tiles: MakeTiles, tmp_path: Path
) -> None:
    train, val = textured_tiles(96), textured_tiles(48, seed=1)
    job = job_of(train, val, SPEC)
    halves = np.flatnonzero(val.labels.sum(1) == 2)
    result = fit(job, FIT, tmp_path)
    best = result.history[result.best_epoch].values
    assert best["val_auc"] > 0.95
    found = ious(job.model, val, halves)
    # to take the whole tile for either class is an IoU of 0.5
    assert min(found) > 0.6
    assert best["val_iou"] > 0.8
    assert best["train_matched"] > 0.9
    assert (
        result.history[-1].values["train_foreground"] < result.history[0].values["train_foreground"]
    )
    assert not result.history[-1].warnings
    examples = job.examples(np.array([5, 2]))
    assert examples.confidence.shape == (2, 2, 64, 64)
    assert examples.confidence.dtype == np.float32
    assert np.array_equal(examples.tiles, val.tiles[[5, 2]])
    assert len(job.examples().tiles) == 8


def test_resumed_training_is_the_same_bit_for_bit(
    textured_tiles: MakeTiles, tmp_path: Path
) -> None:
    train, val = textured_tiles(30), textured_tiles(12, seed=1)
    spec = replace(QUICK, sampling="slide")

    class StopAfterTwo:
        def on_epoch(self, record: EpochRecord) -> None:
            if record.epoch == 1:
                raise KeyboardInterrupt

    fit_spec = replace(FIT, epochs=4)
    through, stopped = tmp_path / "a", tmp_path / "b"
    fit(job_of(train, val, spec, fit_spec), fit_spec, through)
    with pytest.raises(KeyboardInterrupt):
        fit(job_of(train, val, spec, fit_spec), fit_spec, stopped, [StopAfterTwo()])
    fit(job_of(train, val, spec, fit_spec), fit_spec, stopped)
    for name in ("model.safetensors", "last.safetensors"):
        first, second = read_tensors(through / name)[0], read_tensors(stopped / name)[0]
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(SettingsConflictError, match="sampling"):
        fit(job_of(train, val, QUICK, fit_spec), fit_spec, stopped)


def test_training_in_half_precision_and_without_matching(
    textured_tiles: MakeTiles, tmp_path: Path
) -> None:
    train, val = textured_tiles(30), textured_tiles(12, seed=1)
    spec = replace(QUICK, loss=PbipLossSpec(contrastive=0.0, cam_smooth=0.0))
    fit_spec = replace(FIT, epochs=1, amp=True, monitor="val_loss", mode="min")
    model = new_pbip(CONFIG, torch.randn(4, 16), seed=0)
    job = PbipTraining(spec, fit_spec, train, val, model)  # no encoder, no masks
    values = fit(job, fit_spec, tmp_path).history[0].values
    assert "train_foreground" not in values
    assert "train_smooth" not in values
    assert "val_iou" not in values
    assert "val_auc" in values
    assert values["train_loss"] == pytest.approx(
        values["train_classification"] + 0.01 * values["train_sparsity"]
    )


def test_tiles_without_a_class_match_nothing(textured_tiles: MakeTiles) -> None:
    train, val = textured_tiles(30), textured_tiles(12, seed=1)
    job = job_of(train, val)
    empty = WeakBatch(train.tiles[:4], np.zeros((4, 2), np.float32))
    terms = job.loss(empty)
    assert float(terms["matched"]) == float(terms["foreground"]) == float(terms["background"]) == 0
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    assert bool(torch.isfinite(terms["loss"]))
    half = WeakBatch(train.tiles[:4], np.array([[0, 0]] * 2 + [[1, 1]] * 2, np.float32))
    both = WeakBatch(train.tiles[2:4], np.array([[1, 1]] * 2, np.float32))
    job.model.eval()  # batch norms would tell the batches apart
    some, all_of_them = job.loss(half), job.loss(both)
    if float(all_of_them["matched"]):
        torch.testing.assert_close(some["foreground"], all_of_them["foreground"])
        assert float(some["matched"]) == float(all_of_them["matched"]) / 2


def test_one_subclass_a_class_and_one_class_of_several(textured_tiles: MakeTiles) -> None:
    train, val = textured_tiles(30), textured_tiles(12, seed=1)
    encoder = encoder_of()
    prototypes = prototypes_of(train, encoder)
    single = new_pbip(replace(CONFIG, k_list=(1, 1)), prototypes[::2], seed=0)
    job = PbipTraining(QUICK, FIT, train, val, single, encoder)
    batch = WeakBatch(train.tiles[:6], train.labels[:6].astype(np.float32))
    assert bool(torch.isfinite(job.loss(batch)["loss"]))
    train.labels, val.labels = train.labels[:, 1:], val.labels[:, 1:]  # is it checks, or not
    one = new_pbip(replace(CONFIG, class_names=("checks",), k_list=(2,)), prototypes[2:], seed=0)
    job = PbipTraining(QUICK, FIT, train, val, one, encoder)
    batch = WeakBatch(train.tiles[:6], train.labels[:6].astype(np.float32))
    assert bool(torch.isfinite(job.loss(batch)["loss"]))
    with torch.no_grad():
        assert "val_auc" in job.validate(0)


def test_training_sets_of_one_class_are_refused_or_warned_of(textured_tiles: MakeTiles) -> None:
    train, val = textured_tiles(30), textured_tiles(12, seed=1)
    labels = train.labels
    train.labels = np.tile(np.array([[1, 0]], np.int8), (30, 1))
    with pytest.raises(InputError, match=r"same labels \(stripes\)"):
        job_of(train, val)
    train.labels = labels.copy()
    train.labels[:, 0] = 1
    job = job_of(train, val)
    with torch.no_grad():
        values = {**job.validate(0), "train_classification": 1.0}
    assert any("every tile holds stripes" in said for said in job.warnings([values]))
    val.labels = np.tile(np.array([[0, 1]], np.int8), (12, 1))
    train.labels = labels
    job = job_of(train, val)
    with torch.no_grad():
        values = {**job.validate(0), "train_classification": 1.0}
    assert "val_auc" not in values
    assert any("validation split can't be told" in said for said in job.warnings([values]))


def test_batches_of_one_class_are_counted(textured_tiles: MakeTiles) -> None:
    train, val = textured_tiles(30), textured_tiles(12, seed=1)
    train.labels[:] = [1, 0]
    train.labels[0] = [0, 1]
    job = job_of(train, val, replace(QUICK, batch_size=3, round_batches=10))
    batches = list(job.batches(0))
    counted = sum(bool((b.labels == b.labels[0]).all()) for b in batches) / 10
    with torch.no_grad():
        values = {**job.validate(0), "train_classification": 1.0}
    assert values["one_class_batches"] == counted == 0.9
    assert any(said.startswith("batches of one class: in 90%") for said in job.warnings([values]))


def history(n: int, **columns: list[float]) -> list[dict[str, float]]:
    base = {"one_class_batches": 0.0, "val_actual_a": 5.0, "val_actual_b": 5.0}
    base |= {"val_predicted_a": 5.0, "val_predicted_b": 5.0, "val_loss": 1.0, "train_matched": 0.5}
    base["train_classification"] = 1.0
    return [base | {name: values[k] for name, values in columns.items()} for k in range(n)]


def test_what_the_rounds_warn_of() -> None:
    names = ("a", "b")
    assert round_warnings(history(12), names) == []
    [said] = round_warnings(history(10, val_predicted_b=[0.0] * 10), names)
    assert said.startswith("collapse to one class: every validation tile was taken for a")
    assert round_warnings(history(10, val_predicted_b=[0.0] * 9 + [1.0]), names) == []
    [said] = round_warnings(history(5, train_matched=[0.0] * 5), names)
    assert said.startswith("nothing is matched")
    val, train = [1.0, 0.5, *[0.6] * 5], [1.0, 0.6, *[0.3] * 5]
    [said] = round_warnings(history(7, val_loss=val, train_classification=train), names)
    assert said.startswith("overfitting")


def test_pixels_are_counted_where_they_are_known() -> None:
    overlaps = PixelOverlaps(("a", "b", "c"))
    truth = np.array([[0, 0, 1], [1, UNKNOWN, 0]], np.uint8)
    said = np.array([[0, 1, 1], [1, 0, 2]])
    overlaps.add(said[:1], truth[:1])
    overlaps.add(said[1:], truth[1:])
    values = overlaps.values()
    # a: 1 of 3 found; b: 2 found, 1 too many; c: not there, though said once
    assert values["val_iou_a"] == pytest.approx(1 / 3)
    assert values["val_iou_b"] == pytest.approx(2 / 3)
    assert values["val_iou"] == pytest.approx(1 / 2)
    assert values["val_dice"] == pytest.approx((1 / 2 + 4 / 5) / 2)
    assert values["val_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert values["val_recall"] == pytest.approx((1 / 3 + 1) / 2)
    assert "val_iou_c" not in values
    unknown = PixelOverlaps(("a", "b"))
    unknown.add(np.zeros((2, 2), int), np.full((2, 2), UNKNOWN, np.uint8))
    assert unknown.values() == {}


def test_auc_is_a_mean_over_the_classes_that_can_be_told() -> None:
    p = np.array([[0.9, 0.2, 0.5], [0.8, 0.6, 0.5], [0.1, 0.7, 0.6]])
    labels = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1]], np.int8)
    values = tile_scores(p, labels, ("a", "b", "c"))
    assert values["val_auc"] == pytest.approx((1.0 + 0.5) / 2)
    assert [values[f"val_predicted_{name}"] for name in "abc"] == [2, 1, 0]
    assert [values[f"val_actual_{name}"] for name in "abc"] == [2, 1, 3]


def test_validation_follows_the_masks(textured_tiles: MakeTiles) -> None:
    train, val = textured_tiles(30), textured_tiles(12, seed=1)
    job = job_of(train, val)
    job.model.eval()
    with torch.no_grad():
        values = job.validate(0)
        output = job.model(job.model.normalize(torch.from_numpy(val.tiles)))
        said = confidence(output, CONFIG, 64).argmax(1).numpy()
        val.masks = said.astype(np.uint8)
        agreed = job.validate(0)
    assert values["val_iou"] < agreed["val_iou"] == 1.0
    assert agreed["val_precision"] == agreed["val_recall"] == agreed["val_dice"] == 1.0


def test_what_does_not_fit_is_refused(textured_tiles: MakeTiles) -> None:
    train, val = textured_tiles(30), textured_tiles(12, seed=1)
    encoder = encoder_of()
    model = new_pbip(CONFIG, prototypes_of(train, encoder), seed=0)
    with pytest.raises(ModelError, match="tiles of 64 px and the validation tiles have 32"):
        PbipTraining(QUICK, FIT, train, textured_tiles(12, 32), model, encoder)
    with pytest.raises(InputError, match="no tiles"):
        PbipTraining(QUICK, FIT, train, textured_tiles(0), model, encoder)
    with pytest.raises(InputError, match="needs the prototypes' encoder"):
        PbipTraining(QUICK, FIT, train, val, model)
    narrow = new_pbip(replace(CONFIG, feature_dim=5), torch.randn(4, 5), seed=0)
    with pytest.raises(ModelError, match="length 16 and the prototypes 5"):
        PbipTraining(QUICK, FIT, train, val, narrow, encoder)
    three = replace(CONFIG, class_names=("a", "b", "c"), k_list=(2, 1, 1))
    with pytest.raises(InputError, match="one a tile and class"):
        PbipTraining(QUICK, FIT, train, val, new_pbip(three, torch.randn(4, 16), seed=0), encoder)
    val.labels = val.labels * 2
    with pytest.raises(InputError, match="0 or 1"):
        PbipTraining(QUICK, FIT, train, val, model, encoder)
    with pytest.raises(InputError, match="1 or more"):
        replace(QUICK, round_batches=0)
