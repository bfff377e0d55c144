"""Bags are drawn fairly and reproducibly, models learn, failures that are planted are warned of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch

from models.bag_losses import LossSpec
from models.bag_sampling import draw_bags, sampling_weights
from models.bag_source import BagSource
from models.bag_tensor import bag_tensor
from models.checkpoint import read_tensors
from models.feature_statistics import feature_statistics
from models.fit import EpochRecord, FitResult, FitSpec, fit
from models.mil_training import MilSpec, MilTraining
from models.predict import predict_bags
from models.slide_models import build_slide_model
from store_schema.errors import InputError, ModelError, SettingsConflictError

SPEC = MilSpec("multiclass", ("normal", "tumor"), "abmil", {"hidden": 16, "attention": 8})


class InMemory(BagSource, Protocol):
    arrays: list[Any]
    loaded: list[tuple[int, Any]]


MakeBags = Callable[..., InMemory]


def training(spec: MilSpec, fit_spec: FitSpec, train: InMemory, val: InMemory) -> MilTraining:
    torch.manual_seed(fit_spec.seed)
    n_classes = len(spec.class_names)
    model = build_slide_model(spec.model, train.n_features, n_classes, spec.model_settings)
    return MilTraining(spec, fit_spec, train, val, model)


def heads(result: FitResult) -> set[str]:
    """Return the warnings of a training, without their numbers."""
    return {warning.split(":")[0] for record in result.history for warning in record.warnings}


@pytest.mark.parametrize("name", ["abmil", "dsmil", "clam-mb", "mean"])
def test_a_healthy_training_learns_and_warns_of_nothing(
    array_bags: MakeBags, tmp_path: Path, name: str
) -> None:
    small = SPEC.model_settings if name in {"abmil", "clam-mb"} else {}
    spec = replace(SPEC, model=name, model_settings=small)
    fit_spec = FitSpec(epochs=12, lr=1e-2)
    train, val = array_bags([16, 16], seed=1), array_bags([8, 8], seed=2)
    result = fit(training(spec, fit_spec, train, val), fit_spec, tmp_path)
    assert result.history[-1].values["val_auc"] > 0.9
    assert heads(result) == set()


def test_40_to_2_without_weighting_predicts_one_class_and_says_so(
    array_bags: MakeBags, tmp_path: Path
) -> None:
    fit_spec = FitSpec(epochs=14, lr=1e-3)
    train, val = array_bags([40, 2], seed=1), array_bags([10, 3], seed=2)
    spec = replace(SPEC, balanced_sampler=False)
    planted = fit(training(spec, fit_spec, train, val), fit_spec, tmp_path / "planted")
    assert heads(planted) == {"only one class is predicted"}
    healthy = fit(training(SPEC, fit_spec, train, val), fit_spec, tmp_path / "default")
    assert heads(healthy) == set()


def test_overregularised_attention_is_uniform_and_said_so(
    array_bags: MakeBags, tmp_path: Path
) -> None:
    train, val = array_bags([8, 8], seed=1), array_bags([4, 4], seed=2)
    fit_spec = FitSpec(epochs=12, lr=3e-3, weight_decay=100.0)
    result = fit(training(SPEC, fit_spec, train, val), fit_spec, tmp_path)
    assert "attention is uniform" in heads(result)
    mean = replace(SPEC, model="mean", model_settings={})  # uniform by construction
    result = fit(training(mean, fit_spec, train, val), fit_spec, tmp_path / "mean")
    assert "attention is uniform" not in heads(result)


def test_a_split_without_a_class_is_said_once(array_bags: MakeBags, tmp_path: Path) -> None:
    fit_spec = FitSpec(epochs=2)
    job = training(SPEC, fit_spec, array_bags([4, 4]), array_bags([3, 0], seed=2))
    result = fit(job, fit_spec, tmp_path)
    assert [len(record.warnings) for record in result.history] == [1, 0]
    assert result.history[0].warnings[0].startswith("the validation split lacks a class")
    assert "val_auc" not in result.history[0].values
    assert "val_accuracy" in result.history[0].values


@pytest.mark.parametrize("bag_size", [None, 7])
def test_resumed_training_is_the_same_bit_for_bit(
    array_bags: MakeBags, tmp_path: Path, bag_size: int | None
) -> None:
    spec = replace(SPEC, bag_size=bag_size, batch_size=3)
    fit_spec = FitSpec(epochs=4, lr=3e-3)

    class Kill:
        def on_epoch(self, record: EpochRecord) -> None:
            if record.epoch == 1:
                raise KeyboardInterrupt

    def job() -> MilTraining:
        return training(spec, fit_spec, array_bags([6, 4], seed=1), array_bags([3, 3], seed=2))

    def values(result: FitResult) -> list[dict[str, float]]:
        return [{k: v for k, v in r.values.items() if k != "seconds"} for r in result.history]

    whole = fit(job(), fit_spec, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(job(), fit_spec, tmp_path / "killed", [Kill()])
    resumed = fit(job(), fit_spec, tmp_path / "killed")
    assert values(resumed) == values(whole)
    assert "val_same_critical" in values(whole)[2]
    assert ("train_same_critical" in values(whole)[2]) is (bag_size is None)
    ours, _ = read_tensors(tmp_path / "killed" / "last.safetensors")
    theirs, _ = read_tensors(tmp_path / "whole" / "last.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    other = replace(spec, loss=LossSpec(label_smoothing=0.2))
    changed = training(other, fit_spec, array_bags([6, 4], seed=1), array_bags([3, 3], seed=2))
    with pytest.raises(SettingsConflictError, match=r"label_smoothing is 0.2, was 0.0"):
        fit(changed, fit_spec, tmp_path / "killed")


def test_an_epoch_again_draws_the_same_and_another_does_not(array_bags: MakeBags) -> None:
    fit_spec = FitSpec(epochs=3)
    source = array_bags([9, 3], seed=1, n_tiles=(20, 30))
    job = training(replace(SPEC, bag_size=8, batch_size=5), fit_spec, source, array_bags([2, 2]))
    drawn = []
    for epoch in (0, 1, 0):
        source.loaded.clear()
        sizes = [len(batch) for batch in job.batches(epoch)]
        assert sizes == [5, 5, 2]
        assert job.n_batches() == 3
        drawn.append([(bag, tuple(tiles)) for bag, tiles in source.loaded])
    assert drawn[0] == drawn[2] != drawn[1]
    for bag, tiles in drawn[0]:
        assert len(tiles) == 8
        assert list(tiles) == sorted(set(tiles))
        assert 0 <= min(tiles) <= max(tiles) < source.lengths[bag]


def test_balanced_draws_see_both_classes_alike(array_bags: MakeBags) -> None:
    source = array_bags([90, 10])

    def drawn(seed: int, *, balanced: bool) -> list[int]:
        rng = np.random.default_rng(seed)
        batches = draw_bags(source, rng, balanced=balanced, bag_size=None, batch_size=1)
        return [draw.bag for (draw,) in batches]

    classes = [int(source.targets[bag]) for seed in range(20) for bag in drawn(seed, balanced=True)]
    assert np.mean(classes) == pytest.approx(0.5, abs=0.04)
    assert sorted(drawn(0, balanced=False)) == list(range(100))


def test_weights_of_a_multilabel_task() -> None:
    targets = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], np.float32)
    raw = np.array([1 + 1 / 3, 2 / 3, 2 / 3, 1 / 3 + 1])
    np.testing.assert_allclose(sampling_weights(targets), raw / raw.sum())


def test_normalized_in_the_stored_dtype_and_the_source_is_left_alone() -> None:
    stored = np.random.default_rng(0).normal(2, 3, (40_000, 24)).astype(np.float16)
    stored[7] = 0
    before = stored.copy()
    model = build_slide_model("mean", 24, 2)
    bag = bag_tensor(stored, model, l2_normalize=True)
    np.testing.assert_array_equal(stored, before)
    assert bag.dtype == torch.float16
    exact = stored.astype(np.float64)
    exact[np.arange(len(exact)) != 7] /= np.linalg.norm(exact, axis=1, keepdims=True)[
        np.arange(len(exact)) != 7
    ]
    np.testing.assert_allclose(bag.double().numpy(), exact, rtol=2**-11, atol=2**-24)
    assert torch.equal(bag_tensor(stored, model, l2_normalize=False), torch.from_numpy(stored))


def test_features_are_standardized_by_the_training_tiles_and_the_model_keeps_how(
    array_bags: MakeBags,
) -> None:
    train, val = array_bags([6, 6], seed=1), array_bags([3, 3], seed=2)
    job = training(SPEC, FitSpec(), train, val)
    tiles = np.concatenate([train.load(i) for i in range(len(train.ids))]).astype(np.float64)
    tiles /= np.linalg.norm(tiles, axis=1, keepdims=True)
    mean, deviation = tiles.mean(axis=0), tiles.std(axis=0)
    first = val.load(0).astype(np.float64)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    bag = bag_tensor(val.load(0), job.model, l2_normalize=True)
    np.testing.assert_allclose(bag.numpy(), (first - mean) / deviation, rtol=2e-3, atol=2e-3)
    state = job.model.state_dict()
    np.testing.assert_allclose(state["feature_mean"].numpy(), mean, rtol=1e-5, atol=1e-7)
    plain = training(replace(SPEC, standardize=False), FitSpec(), train, val)
    assert torch.equal(plain.model.state_dict()["feature_scale"], torch.ones(16))


def test_a_feature_that_never_varies_in_training_is_not_blown_up(array_bags: MakeBags) -> None:
    train = array_bags([4, 4])
    for index in range(len(train.ids)):
        train.load(index)[:, 3] = 0
    statistics = feature_statistics(train, l2_normalize=False)
    assert statistics.scale[3] <= 10 * np.median(statistics.scale) * 1.2


def test_multilabel_training(array_bags: MakeBags, tmp_path: Path) -> None:
    train, val = array_bags([6, 6, 6], seed=1), array_bags([3, 3, 3], seed=2)
    for source in (train, val):
        source.targets = np.eye(3, dtype=np.float32)[source.targets]  # type: ignore[misc]
    spec = MilSpec("multilabel", tuple("abc"), "dsmil", standardize=False)
    fit_spec = FitSpec(epochs=10, lr=3e-3, monitor="val_auc", mode="max")
    job = training(spec, fit_spec, train, val)
    assert fit(job, fit_spec, tmp_path).best_value > 0.9
    first = next(predict_bags(job.model, val, "multilabel", l2_normalize=True))
    assert first.attention.shape == (val.lengths[0], 3)


def test_predictions_are_of_whole_bags_in_eval_mode(array_bags: MakeBags, tmp_path: Path) -> None:
    fit_spec = FitSpec(epochs=3, lr=3e-3)
    val = array_bags([4, 4], seed=2)
    spec = replace(SPEC, bag_size=4)
    job = training(spec, fit_spec, array_bags([6, 6], seed=1), val)
    result = fit(job, fit_spec, tmp_path)
    job.model.train()
    found = list(predict_bags(job.model, val, "multiclass", l2_normalize=True))
    assert [p.id for p in found] == list(val.ids)
    assert [p.index for p in found] == list(range(8))
    for prediction, length in zip(found, val.lengths, strict=True):
        assert prediction.attention.shape == prediction.attention_logits.shape == (length,)
        assert prediction.attention.sum() == pytest.approx(1, abs=1e-5)
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert prediction.instance_probabilities is None
    right = [p.probabilities.argmax() == t for p, t in zip(found, val.targets, strict=True)]
    best = result.history[result.best_epoch].values
    assert np.mean(right) == best["val_accuracy"]
    dsmil = build_slide_model("dsmil", 16, 2)
    with_tiles = next(predict_bags(dsmil, val, "multiclass", l2_normalize=False, amp=True))
    assert with_tiles.instance_probabilities is not None
    assert with_tiles.instance_probabilities.shape == (val.lengths[0], 2)
    assert with_tiles.instance_probabilities.dtype == np.float32


def test_what_does_not_fit_is_refused(array_bags: MakeBags) -> None:
    fit_spec = FitSpec()
    wide = array_bags([2, 2], n_features=17)
    with pytest.raises(ModelError, match=r"takes 16 features a tile and the bags have 17"):
        training(SPEC, fit_spec, array_bags([2, 2]), wide)
    with pytest.raises(ModelError, match=r"takes 16 features a tile and the bags have 17"):
        next(predict_bags(build_slide_model("mean", 16, 2), wide, "multiclass", l2_normalize=True))
    with pytest.raises(InputError, match="validation split has no bags"):
        training(SPEC, fit_spec, array_bags([2, 2]), array_bags([0, 0]))
    with pytest.raises(InputError, match="training split don't fit 2 classes"):
        training(SPEC, fit_spec, array_bags([2, 2, 2]), array_bags([2, 2]))
    with pytest.raises(InputError, match="too few classes"):
        replace(SPEC, class_names=("normal",))
    with pytest.raises(InputError, match="bag size"):
        replace(SPEC, bag_size=0)


def test_a_source_that_fails_is_heard(array_bags: MakeBags, tmp_path: Path) -> None:
    source = array_bags([4, 4])

    def load(index: int, tiles: object = None) -> object:
        raise InputError(f"bag {index} has NaN features")

    source.load = load  # type: ignore[method-assign,assignment]
    fit_spec = FitSpec(epochs=1)
    with pytest.raises(InputError, match="has NaN features"):
        fit(training(SPEC, fit_spec, source, array_bags([2, 2])), fit_spec, tmp_path)
