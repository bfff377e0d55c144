"""Scores of hand-made runs: what is stored is what the models say."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from jobs.mil.predictions import read_predictions
from jobs.mil.run_labels import labels_digest
from jobs.mil.score import ScoreReport, score_slides
from jobs.mil.score_here import ScoreCall, score_here
from jobs.mil.score_inputs import ScoreSettings
from jobs.mil.trained import load_trained
from models.bag_tensor import bag_tensor
from models.checkpoint import save_model
from models.determinism import repeatable
from models.slide_model import SlideModel, SlideOutput, probabilities
from models.slide_models import build_slide_model
from store_schema.errors import (
    IncompleteError,
    InputError,
    ModelError,
    NotInStoreError,
    SettingsConflictError,
)
from store_schema.specs import fingerprint
from store_schema.store import open_store
from store_schema.validate import validate

FeatureStore = Callable[..., str]
GRID = "32px_0.500mpp"
DIM = 6
CLASSES = ["normal", "tumor"]
COUNTS = {"a": 11, "b": 3, "c": 1, "d": 9, "e": 6}
FEATURES = {
    slide_id: np.random.default_rng(seed).normal(size=(n_tiles, DIM)).astype(np.float16)
    for seed, (slide_id, n_tiles) in enumerate(COUNTS.items())
}


def make_fold(
    directory: Path,
    seed: int,
    model: str = "abmil",
    *,
    test: Sequence[str] = (),
    train: Sequence[str] = (),
    **changes: Any,
) -> SlideModel:
    torch.manual_seed(seed)
    built = build_slide_model(model, changes.pop("n_features", DIM), len(CLASSES))
    directory.mkdir(parents=True)
    description = {
        "kind": "mil",
        "model": model,
        "model_config": asdict(built.config),
        "task": "multiclass",
        "class_names": CLASSES,
        "n_features": built.config.n_features,
        "l2_normalize": True,
        "features": {"name": "enc", "grid": GRID, "fingerprint": fingerprint({"model": "enc"})},
        "threshold": 0.4,
        "bag_level": "slide",
        "fold": seed,
        "train_slide_ids": list(train),
        "val_slide_ids": [],
        "test_slide_ids": list(test),
        **changes,
    }
    save_model(directory / "model.safetensors", built, description)
    return built.eval()


def say(model: SlideModel, slide_id: str) -> SlideOutput:
    # on one thread, as scoring does: the last bits depend on it
    with repeatable(torch.device("cpu"), 1), torch.inference_mode():
        output: SlideOutput = model(bag_tensor(FEATURES[slide_id], model, l2_normalize=True))
        return output


def score(url: str, *runs: Path, name: str = "run", **settings: Any) -> ScoreReport:
    models = [load_trained(run) for run in runs]
    wanted = ScoreSettings(name, device="cpu", **settings)
    return score_slides(open_store(url, mode="r+"), models, wanted)


def stored(url: str, slide_id: str, name: str = "run") -> xr.Dataset:
    """Read as anybody would, without our code."""
    group = f"{slide_id}/{GRID}/scores/{name}"
    found: xr.Dataset = xr.open_zarr(url, group=group, consolidated=False).load()
    return found


@pytest.mark.parametrize("name", ["abmil", "dsmil", "clam-mb", "mean"])
def test_what_is_stored_is_what_the_model_says(
    feature_store: FeatureStore, tmp_path: Path, name: str
) -> None:
    url = feature_store(FEATURES)
    model = make_fold(tmp_path / "run", 0, name)
    report = score(url, tmp_path / "run")
    assert report.written == sorted(COUNTS)
    for slide_id in COUNTS:
        output, found = say(model, slide_id), stored(url, slide_id)
        np.testing.assert_array_equal(found["attention"], output.attention)
        np.testing.assert_array_equal(found["attention_logits"], output.attention_logits)
        if output.instance_logits is None:
            assert "probability" not in found
        else:
            said = model.instance_probabilities(output.instance_logits, "multiclass")
            np.testing.assert_array_equal(found["probability"], said)
            assert found["probability"].attrs["class_names"] == CLASSES
        assert found["attention"].attrs["long_name"] == "attention"
        row = next(row for row in report.predictions if row.slide_id == slide_id)
        p = probabilities(output.logits, "multiclass").numpy()
        np.testing.assert_array_equal(np.array(row.probabilities, np.float32), p)
        assert row.predicted == CLASSES[int(p[1] >= 0.4)]
        ours = open_store(url)[slide_id].run_attrs(GRID, "scores", "run")
        assert ours["array_order"][0] == "attention"
        assert ours["extra"]["prediction"]["probabilities"] == list(row.probabilities)
        assert ours["provenance"]["selection"] is None
    assert not validate(url)


def test_percentiles_are_of_the_slide_and_ties_share(
    feature_store: FeatureStore, tmp_path: Path
) -> None:
    features = {**FEATURES, "t": np.repeat(FEATURES["a"][:2], 2, axis=0)}
    url = feature_store(features)
    make_fold(tmp_path / "run", 0)
    score(url, tmp_path / "run")
    found = stored(url, "a")
    order = np.argsort(found["attention"].values)
    np.testing.assert_allclose(
        found["attention_percentile"].values[order], np.arange(11) * 10, rtol=1e-6
    )
    # two pairs of equal tiles: ranks 0, 1 and 2, 3 of 3
    assert sorted(stored(url, "t")["attention_percentile"].values) == pytest.approx(
        [100 / 6, 100 / 6, 500 / 6, 500 / 6]
    )
    assert stored(url, "c")["attention_percentile"].values == [50.0]


def test_a_slide_is_judged_by_the_fold_that_tested_it(
    feature_store: FeatureStore, tmp_path: Path
) -> None:
    url = feature_store(FEATURES)
    cv = tmp_path / "cv"
    models = [
        make_fold(cv / "fold_0", 0, test=["a"], train=["b", "d"]),
        make_fold(cv / "fold_1", 1, test=["b"], train=["a", "d"]),
        make_fold(cv / "fold_2", 2, test=["a", "c"], train=["b", "d"]),
    ]
    report = score(url, cv)
    rows = {row.slide_id: row for row in report.predictions}
    judges = {"a": [0, 2], "b": [1], "c": [2], "d": [0, 1, 2], "e": [0, 1, 2]}
    for slide_id, folds in judges.items():
        said = [say(models[fold], slide_id) for fold in folds]
        attention = np.mean([each.attention.numpy() for each in said], axis=0, dtype=float)
        np.testing.assert_allclose(stored(url, slide_id)["attention"], attention, rtol=1e-6)
        p = np.mean([probabilities(s.logits, "multiclass").numpy() for s in said], axis=0)
        np.testing.assert_allclose(rows[slide_id].probabilities, p, rtol=1e-6)
        assert rows[slide_id].fold == "+".join(map(str, folds))
    # of d the models learned, so it must not count as unseen
    assert [rows[s].split for s in "abcde"] == ["test", "test", "test", "train", ""]


def test_runs_are_averaged(feature_store: FeatureStore, tmp_path: Path) -> None:
    url = feature_store(FEATURES)
    one = make_fold(tmp_path / "one", 1, "abmil", threshold=0.2)
    other = make_fold(tmp_path / "other", 2, "dsmil", threshold=0.6)
    report = score(url, tmp_path / "one", tmp_path / "other")
    said = [say(model, "a") for model in (one, other)]
    p = np.mean([probabilities(s.logits, "multiclass").numpy() for s in said], axis=0)
    np.testing.assert_allclose(report.predictions[0].probabilities, p, rtol=1e-6)
    found = stored(url, "a")
    expected = (said[0].attention[:, None].numpy() + said[1].attention.numpy()) / 2
    np.testing.assert_allclose(found["attention"], expected, rtol=1e-5)
    assert "probability" not in found  # one of them has no opinion of tiles
    prediction = open_store(url)["a"].run_attrs(GRID, "scores", "run")["extra"]["prediction"]
    assert prediction["threshold"] == pytest.approx(0.4)


def test_again_is_nothing_and_what_is_lost_is_made_again(
    feature_store: FeatureStore,
    tmp_path: Path,
    store_digests: Callable[[Path], dict[str, str]],
) -> None:
    url = feature_store(FEATURES)
    make_fold(tmp_path / "run", 0)
    first = score(url, tmp_path / "run")
    before = store_digests(Path(url))
    again = score(url, tmp_path / "run")
    assert again.written == []
    assert again.found == sorted(COUNTS)
    assert again.predictions == first.predictions
    (Path(url) / "a" / GRID / "scores/run/attention/c/1").unlink()
    damaged = Path(url) / "d" / GRID / "scores/run/attention_logits/c/0"
    damaged.write_bytes(bytes(len(damaged.read_bytes())))
    assert score(url, tmp_path / "run").written == ["a", "d"]
    assert store_digests(Path(url)) == before
    make_fold(tmp_path / "new", 1)
    with pytest.raises(SettingsConflictError, match=r"models.*--overwrite"):
        score(url, tmp_path / "new")
    assert store_digests(Path(url)) == before
    assert score(url, tmp_path / "new", name="second").written == sorted(COUNTS)
    assert score(url, tmp_path / "new", overwrite=True).written == sorted(COUNTS)


def test_patients_are_judged_whole(feature_store: FeatureStore, tmp_path: Path) -> None:
    url = feature_store(FEATURES)
    model = make_fold(tmp_path / "run", 0, bag_level="patient")
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label,patient_id\na,tumor,p\nd,normal,p\nb,normal,q\n")
    with pytest.raises(InputError, match="--labels"):
        score(url, tmp_path / "run")
    report = score(url, tmp_path / "run", slides=("a", "b"), labels=labels)
    assert report.written == ["a", "d", "b"]  # the whole of patient p
    together = np.concatenate([FEATURES["a"], FEATURES["d"]])
    with torch.inference_mode():
        output = model(bag_tensor(together, model, l2_normalize=True))
    np.testing.assert_array_equal(stored(url, "a")["attention"], output.attention[:11])
    np.testing.assert_array_equal(stored(url, "d")["attention"], output.attention[11:])
    rows = {row.slide_id: row for row in report.predictions}
    assert rows["a"].probabilities == rows["d"].probabilities
    assert (rows["a"].label, rows["a"].patient_id) == ("tumor", "p")
    assert stored(url, "d")["attention_percentile"].max() == 100


def test_incomplete_features(feature_store: FeatureStore, tmp_path: Path) -> None:
    url = feature_store(FEATURES, blocks={"a": [0, 2]})
    model = make_fold(tmp_path / "run", 0)
    with pytest.raises(IncompleteError, match=r"a \(2/3 blocks\)"):
        score(url, tmp_path / "run")
    score(url, tmp_path / "run", allow_incomplete=True)
    found = stored(url, "a")["attention"].values
    there = np.r_[0:4, 8:11]
    with torch.inference_mode():
        output = model(bag_tensor(FEATURES["a"][there], model, l2_normalize=True))
    np.testing.assert_array_equal(found[there], output.attention)
    assert np.isnan(found[4:8]).all()


def test_one_bad_slide_stops_no_other(feature_store: FeatureStore, tmp_path: Path) -> None:
    broken = FEATURES["b"].copy()
    broken[1, 2] = np.nan
    url = feature_store({**FEATURES, "b": broken, "empty": FEATURES["a"][:0]})
    make_fold(tmp_path / "run", 0)
    report = score(url, tmp_path / "run")
    assert "slide b" in report.failed["b"]
    assert "tile 1" in report.failed["b"]
    assert report.written == ["a", "c", "d", "e"]
    assert any("empty" in note for note in report.notes)
    assert open_store(url)["b"].runs(GRID, "scores") == []


def test_features_that_are_not_those_of_the_training(
    feature_store: FeatureStore, tmp_path: Path
) -> None:
    url = feature_store(FEATURES)
    make_fold(tmp_path / "wide", 0, n_features=DIM + 1)
    with pytest.raises(InputError, match=r"6 numbers a tile, and .*wide takes 7"):
        score(url, tmp_path / "wide")
    other = {"name": "enc", "grid": GRID, "fingerprint": "of another encoder"}
    make_fold(tmp_path / "other", 0, features=other)
    with pytest.raises(InputError, match=r"of 5 slides \(a, b, c and 2 more\) were made otherwise"):
        score(url, tmp_path / "other")
    make_fold(tmp_path / "table", 0, features={"name": None, "grid": None, "fingerprint": None})
    with pytest.raises(InputError, match="--features"):
        score(url, tmp_path / "table")
    make_fold(tmp_path / "run", 0)
    with pytest.raises(NotInStoreError, match="did you mean enc"):
        score(url, tmp_path / "run", features="encc")
    make_fold(tmp_path / "patients", 0, bag_level="patient")
    with pytest.raises(InputError, match="different kinds of bags"):
        score(url, tmp_path / "run", tmp_path / "patients")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_runs_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.pth", "model.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ModelError, match="pickle"):
            load_trained(tmp_path / name)
    with pytest.raises(ModelError, match="pickle"):
        load_trained(tmp_path)  # the folder of such a file
    assert not (tmp_path / "exploded").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no trained model"):
        load_trained(tmp_path / "empty")
    make_fold(tmp_path / "cv" / "fold_0", 0)
    (tmp_path / "cv" / "fold_1").mkdir()
    with pytest.raises(ModelError, match=r"unfinished folds \(fold_1\)"):
        load_trained(tmp_path / "cv")
    for number in (2, 10, 1):
        make_fold(tmp_path / "many" / f"fold_{number}", number)
    assert [fold.fold for fold in load_trained(tmp_path / "many")] == ["1", "2", "10"]
    make_fold(tmp_path / "vae", 0, kind="vae")
    with pytest.raises(ModelError, match="'vae'"):
        load_trained(tmp_path / "vae")
    folds = {"folds": [{"fold": fold} for fold in (1, 2, 3, 10)]}
    (tmp_path / "many" / "metrics.json").write_text(json.dumps(folds))
    with pytest.raises(ModelError, match="has lost fold_3"):
        load_trained(tmp_path / "many")


@pytest.mark.parametrize(
    "change",
    [
        {"task": "guess"},
        {"class_names": "01"},
        {"class_names": ["0", "0"]},
        {"model_config": [1]},
        {"threshold": float("nan")},
        {"threshold": "high"},
        {"features": "enc"},
        {"test_slide_ids": 5},
        {"l2_normalize": "no"},
    ],
    ids=str,
)
def test_an_edited_description_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    make_fold(tmp_path / "run", 0)
    path = tmp_path / "run" / "model.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps({**description, **change}))
    with pytest.raises(ModelError, match=rf"damaged \({next(iter(change))} missing or garbled"):
        load_trained(tmp_path / "run")


def test_from_the_command_line(
    feature_store: FeatureStore, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    url = feature_store(FEATURES)
    make_fold(tmp_path / "run", 0)
    out = tmp_path / "out"
    answer = slidestream(
        "mil", "score", "--store", url, "--run", tmp_path / "run", "--run-dir", out, "--slides", "b"
    )
    assert answer.code == 0, answer.err
    assert "scores/run: 1 slides written" in answer.out
    table = read_predictions(out / "predictions.csv")
    assert table.class_names == ("normal", "tumor")
    prediction = open_store(url)["b"].run_attrs(GRID, "scores", "run")["extra"]["prediction"]
    assert table.rows[0].probabilities == tuple(prediction["probabilities"])
    said = open_store(url).predictions("run")
    np.testing.assert_array_equal(
        said.probability.sel(slide_id="b"), np.array(prediction["probabilities"])
    )
    assert said["class"].values.tolist() == ["normal", "tumor"]
    assert said.predicted.to_series().to_dict() == {"b": prediction["predicted"]}
    with pytest.raises(NotInStoreError, match="did you mean run"):
        open_store(url).predictions("runn")
    assert slidestream("mil", "score", "--store", url, "--run", tmp_path / "none").code == 1
    two = slidestream("mil", "score", "--store", url, "--run", tmp_path / "run", "--run", out)
    assert two.code == 1
    assert "--name" in two.err


def test_labels_are_those_of_the_training_unless_they_changed(
    feature_store: FeatureStore, tmp_path: Path
) -> None:
    url, run = feature_store(FEATURES), tmp_path / "run"
    make_fold(run, 0)
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label,patient_id\na,tumor,p\nb,normal,q\n")
    config = {"bags": {"labels": str(labels)}, "inputs": {"labels": labels_digest(labels)}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    call = ScoreCall(url, (run,), ScoreSettings("r"), tmp_path / "out")
    rows = {row.slide_id: row for row in score_here(call)[0].predictions}
    assert [(rows[i].label, rows[i].patient_id) for i in "ab"] == [("tumor", "p"), ("normal", "q")]
    labels.write_text(labels.read_text() + "d,tumor,p\n")
    report, _ = score_here(call)
    assert {row.label for row in report.predictions} == {""}
    assert "has changed since the training; give --labels" in report.notes[-1]


def test_the_call_leaves_nothing_where_it_cannot_begin(
    feature_store: FeatureStore, tmp_path: Path
) -> None:
    url = feature_store(FEATURES)
    make_fold(tmp_path / "run", 0)
    call = ScoreCall(url, (tmp_path / "run",), ScoreSettings("r", features="x"), tmp_path / "out")
    with pytest.raises(NotInStoreError):
        score_here(call)
    assert not (tmp_path / "out").exists()
