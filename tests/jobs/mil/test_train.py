"""Training and cross-validation from the command line and from Python, on small stores with a planted signal."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from jobs import run_lock
from jobs.mil.cohort import make_splits, open_bags
from jobs.mil.config import BagSettings, MilConfig, SplitSettings
from jobs.mil.cv import fold_tasks
from jobs.mil.predictions import read_predictions
from jobs.mil.splits import Split
from jobs.mil.train import train_fold
from jobs.training.history import read_history
from models.bag_losses import LossSpec
from models.fit import EpochRecord, FitSpec
from models.metrics import choose_threshold
from store_schema.errors import (
    BusyError,
    InputError,
    ModelError,
    SettingsConflictError,
    StorageError,
)

Slidestream = Callable[..., Any]
N_SLIDES = 24


@pytest.fixture
def cohort(tmp_path: Path, feature_store: Callable[..., str]) -> BagSettings:
    """Return a store of 24 slides of 20 patients: in tumour slides a quarter of the tiles are shifted."""
    rng = np.random.default_rng(7)
    features, rows = {}, []
    for number in range(N_SLIDES):
        tumor = number % 2 == 1
        values = rng.normal(size=(int(rng.integers(6, 13)), 6))
        if tumor:
            values[::4, :2] += 4
        features[f"s{number:02d}"] = values.astype(np.float16)
        rows.append((f"s{number:02d}", "tumor" if tumor else "normal", f"p{number % 20:02d}"))
    labels = tmp_path / "labels.csv"
    write_csv(labels, [("slide_id", "label", "patient_id"), *rows])
    return BagSettings(store=feature_store(features), labels=str(labels))


def write_csv(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def settings(bags: BagSettings, **changes: Any) -> MilConfig:
    fit = FitSpec(epochs=5, lr=5e-3, warmup_epochs=0.5, device="cpu")
    config = MilConfig(
        command="train",
        bags=bags,
        model="abmil",
        loss=LossSpec(),
        fit=fit,
        model_settings=(("hidden", 8), ("attention", 4)),
        splits=SplitSettings(folds=3),
        plot_every=0,
    )
    return replace(config, **changes)


def first_split(config: MilConfig) -> Split:
    return make_splits(config.splits, open_bags(config.bags), config.fit.seed)[0]


def results(directory: Path) -> tuple[Any, ...]:
    """Return everything of a fold that must be the same when it is trained again."""
    metrics = json.loads((directory / "metrics.json").read_text())
    metrics.pop("seconds")
    history = read_history(directory)
    for epoch in history:
        epoch["values"].pop("seconds")
    weights = {name: w.tobytes() for name, w in load_file(directory / "model.safetensors").items()}
    return metrics, history, weights, (directory / "predictions.csv").read_text()


class Stop(Exception):
    """Interrupts a training."""


class StopAfter:
    """Interrupts a training after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch(self, record: EpochRecord) -> None:
        if record.epoch == self.epoch:
            raise Stop


def test_a_fold_leaves_its_files_and_metrics(cohort: BagSettings, tmp_path: Path) -> None:
    config = settings(cohort, plot_every=4)
    split = first_split(config)
    metrics = train_fold(config, split, 0, tmp_path / "run")
    names = {p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").rglob("*.*")}
    assert names >= {
        "config.yaml", "run.log", "metrics.json", "model.safetensors", "model.json", "last.safetensors",
        "history.jsonl", "splits.csv", "predictions.csv", "plots/curves.png", "plots/val.png",
        "plots/test.png", "plots/epoch_0004.png",
    }  # fmt: skip
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    assert metrics["status"] == "finished"
    assert metrics["test"]["n"] == len(split.test)
    assert metrics["val"]["n"] == len(split.val)
    assert metrics["counts"]["bags"]["train"] == len(split.train)
    assert metrics["leaky"] is False
    assert [epoch["epoch"] for epoch in read_history(tmp_path / "run")] == [0, 1, 2, 3, 4]

    rows = read_predictions(tmp_path / "run" / "predictions.csv").rows
    assert {row.slide_id for row in rows if row.split == "test"} == set(split.test)
    val = [row for row in rows if row.split == "val"]
    chosen = choose_threshold(
        np.array([row.probabilities[1] for row in val]),
        np.array([row.label == "tumor" for row in val], dtype=np.int64),
        "youden",
    )
    assert chosen is not None
    assert metrics["threshold"] == {"value": chosen, "how": "youden", "chosen_on": "val"}
    assert all((row.predicted == "tumor") == (row.probabilities[1] >= chosen) for row in rows)

    description = json.loads((tmp_path / "run" / "model.json").read_text())
    assert description["kind"] == "mil"
    assert description["test_slide_ids"] == list(split.test)
    assert description["threshold"] == chosen
    assert description["features"]["name"] == "enc"


def test_an_interrupted_fold_ends_in_the_same_bits(cohort: BagSettings, tmp_path: Path) -> None:
    config = settings(cohort)
    split = first_split(config)
    train_fold(config, split, 0, tmp_path / "whole")
    with pytest.raises(Stop):
        train_fold(config, split, 0, tmp_path / "stopped", [StopAfter(2)])
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    resumed = train_fold(config, split, 0, tmp_path / "stopped")
    assert resumed["seconds"]["resumed_from_epoch"] == 3
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_a_finished_fold_is_left_alone_and_other_settings_are_refused(
    cohort: BagSettings, tmp_path: Path
) -> None:
    config = settings(cohort)
    split = first_split(config)
    first = train_fold(config, split, 0, tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert train_fold(replace(config, plot_every=2), split, 0, tmp_path / "run") == first
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == before

    other = replace(config, fit=replace(config.fit, lr=1e-3))
    with pytest.raises(SettingsConflictError, match=r"fit\.lr was 0\.005 and is now 0\.001"):
        train_fold(other, split, 0, tmp_path / "run")
    swapped = Split(split.train, split.test, split.val)
    with pytest.raises(SettingsConflictError, match="another split"):
        train_fold(config, swapped, 0, tmp_path / "run")
    labels = Path(str(cohort.labels))
    labels.write_text(labels.read_text().replace("s00,normal", "s00,tumor"))
    with pytest.raises(SettingsConflictError, match=r"inputs\.labels"):
        train_fold(config, split, 0, tmp_path / "run")


def test_what_a_finished_fold_has_lost_is_made_again_or_named(
    cohort: BagSettings, tmp_path: Path
) -> None:
    config, run = settings(cohort), tmp_path / "run"
    split = first_split(config)
    train_fold(config, split, 0, run)
    expected = results(run)
    for name in ("model.json", "predictions.csv", "metrics.json"):
        (run / name).unlink()
        train_fold(config, split, 0, run)
        assert results(run) == expected
    (run / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"does not hold the weights of epoch .* remove .*last"):
        train_fold(config, split, 0, run)
    (run / "last.safetensors").unlink()
    train_fold(config, split, 0, run)
    assert results(run) == expected


def test_two_trainings_in_one_folder_are_refused(
    cohort: BagSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "_GRACE_S", 0.0)
    config, run = settings(cohort), tmp_path / "run"
    split = first_split(config)
    with run_lock.alone_in(run), pytest.raises(BusyError, match="Another process works in"):
        train_fold(config, split, 0, run)
    assert train_fold(config, split, 0, run)["status"] == "finished"


@pytest.mark.parametrize("what", ["plots", "history.jsonl"])
def test_what_can_not_be_written_is_one_sentence(
    cohort: BagSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    config, run = settings(cohort, plot_every=2 if what == "plots" else 0), tmp_path / "run"
    split = first_split(config)
    train_fold(replace(config, plot_every=0), split, 0, tmp_path / "whole")
    real = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if path.is_relative_to(run / what) and mode == ("wb" if what == "plots" else "a"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(StorageError, match=r"No space left .* it goes on where it stopped"):
            train_fold(config, split, 0, run)
    train_fold(config, split, 0, run)
    assert results(run)[1:] == results(tmp_path / "whole")[1:]


def test_settings_that_a_full_disk_emptied_are_named(cohort: BagSettings, tmp_path: Path) -> None:
    config, run = settings(cohort), tmp_path / "run"
    split = first_split(config)
    run.mkdir()
    (run / "config.yaml").write_text("")
    with pytest.raises(InputError, match=r"config.yaml holds no settings: restore it"):
        train_fold(config, split, 0, run)


def test_the_test_fold_chooses_nothing(cohort: BagSettings, tmp_path: Path) -> None:
    """With other test slides, the model, its epoch and its threshold stay the same bits."""
    config = settings(cohort)
    split = first_split(config)
    one = train_fold(config, split, 0, tmp_path / "one")
    fewer = Split(split.train, split.val, split.test[:3])
    two = train_fold(config, fewer, 0, tmp_path / "two")
    assert results(tmp_path / "one")[1:3] == results(tmp_path / "two")[1:3]
    assert one["threshold"] == two["threshold"]
    assert one["val"] == two["val"]


def test_a_selection_that_has_seen_the_test_slides_is_flagged(
    slidestream: Slidestream, cohort: BagSettings, tmp_path: Path
) -> None:
    """Tiles ranked by a run: fine on the run's own split, flagged on one whose test slides the run learned from."""
    config = settings(cohort, fit=FitSpec(epochs=1, lr=5e-3, device="cpu"))
    split = first_split(config)
    train_fold(config, split, 0, tmp_path / "first")
    chosen = slidestream(
        "select", "top-k", "--store", cohort.store, "--name", "att", "--k", 4, "--rank", "attention",
        "--run", tmp_path / "first", "--device", "cpu",
    )  # fmt: skip
    assert chosen.code == 0, chosen.err
    selected = replace(config, bags=replace(cohort, selection="att"))
    same = train_fold(selected, split, 0, tmp_path / "same")
    assert not any("seen held-out" in each for each in same["flags"])

    crossed = Split(split.test, split.val, split.train)
    found = train_fold(selected, crossed, 0, tmp_path / "crossed")
    assert found["flags"][0] == "the selection has seen held-out slides"
    said = found["warnings"][0]["message"]
    assert f"{len(split.train)} of {len(split.train)} test slides" in said
    assert "validation" not in said  # they chose the epoch in the first run, too
    assert said in (tmp_path / "crossed" / "run.log").read_text()
    reported = slidestream(
        "mil",
        "report",
        tmp_path / "same",
        tmp_path / "crossed",
        "--out",
        tmp_path,
        "--resamples",
        5,
    )
    assert "tested on different slides" in reported.out
    page = (tmp_path / "report.html").read_text()
    assert "the selection has seen held-out slides" in page
    assert f"{len(split.train)} of {len(split.train)} test slides" in page
    assert "tested on different slides" in page


def test_the_published_protocol_is_labelled_leaky(
    slidestream: Slidestream, cohort: BagSettings, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    common = ("--store", cohort.store, "--labels", cohort.labels, "--folds", 3, "--epochs", 4)
    answer = slidestream(
        "mil", "train", *common, "--model", "mean", "--protocol", "published", "--plot-every", 0, "--run-dir", run
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "LEAKY" in answer.out
    assert [line for line in answer.err.splitlines() if "LEAKY" not in line] == []
    assert "LEAKY" in (run / "run.log").read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["leaky"] is True
    assert "LEAKY" in metrics["note"]
    assert metrics["val"] is None
    assert metrics["threshold"]["chosen_on"] == "test"
    assert metrics["epoch"]["monitor"] == "val_accuracy_at_own_threshold"
    best = max(e["values"]["val_accuracy_at_own_threshold"] for e in read_history(run))
    assert metrics["test"]["accuracy"] == best
    reported = slidestream("mil", "report", run, "--resamples", 20)
    assert "LEAKY" in reported.out
    assert "LEAKY" in (run / "report.html").read_text()
    assert "published (LEAKY)" in (run / "report.csv").read_text()


def test_cv_on_a_cluster_gives_the_bits_of_one_by_one(
    slidestream: Slidestream, scheduler: str, cohort: BagSettings, tmp_path: Path
) -> None:
    run = tmp_path / "cv"
    arguments = (
        "mil", "cv", "--store", cohort.store, "--labels", cohort.labels, "--folds", 2, "--repeats", 2,
        "--model", "abmil", "--set", "hidden=8", "--set", "attention=4", "--epochs", 3, "--lr", 5e-3,
        "--warmup-epochs", 0.5, "--plot-every", 0, "--device", "cpu", "--scheduler", scheduler, "--run-dir", run,
    )  # fmt: skip
    answer = slidestream(*arguments)
    assert answer.code == 0, answer.err
    assert "mean ± sd" in answer.out
    assert "4/4 fold" in answer.err
    assert " of 3, val loss " in answer.err  # each fold says which epoch was chosen

    config = settings(
        cohort,
        fit=FitSpec(epochs=3, lr=5e-3, warmup_epochs=0.5, device="cpu"),
        splits=SplitSettings(folds=2, repeats=2),
        run_dir=str(tmp_path / "alone"),
    )
    splits = make_splits(config.splits, open_bags(cohort), 0)
    task = fold_tasks(config, splits)[1]
    train_fold(task.config, task.split, task.fold, task.directory)
    assert results(task.directory) == results(run / "fold_1")

    metrics = json.loads((run / "metrics.json").read_text())
    aucs = [fold["test"]["auc"] for fold in metrics["folds"]]
    assert metrics["summary"]["auc"]["mean"] == pytest.approx(np.mean(aucs))
    assert metrics["summary"]["auc"]["sd"] == pytest.approx(np.std(aucs, ddof=1))
    rows = read_predictions(run / "predictions.csv").rows
    assert sorted(row.slide_id for row in rows) == sorted(
        2 * [f"s{i:02d}" for i in range(N_SLIDES)]
    )
    assert {row.split for row in rows} == {"test"}
    assert (run / "report.csv").exists()

    # the first fold of the second repeat, by `mil train` with the seed of that repeat
    alone = slidestream(
        "mil", "train", *arguments[2:6], "--folds", 2, "--fold", 0, "--seed", 1, *arguments[10:22],
        "--run-dir", tmp_path / "train",
    )  # fmt: skip
    assert alone.code == 0, alone.err
    assert results(tmp_path / "train")[1:3] == results(run / "fold_2")[1:3]

    before = (run / "report.html").stat().st_mtime_ns
    again = slidestream(*arguments)
    assert again.code == 0
    assert "dashboard" not in again.err  # nothing is left to do
    assert (run / "report.html").stat().st_mtime_ns == before


def test_a_fold_that_fails_is_recorded_and_the_others_go_on(
    slidestream: Slidestream, scheduler: str, cohort: BagSettings, tmp_path: Path
) -> None:
    ids = [f"s{i:02d}" for i in range(20)]  # a slide a patient
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    columns = ("train", "val", "test")
    write_csv(good, [columns, *zip(ids[:6], ids[6:12], ids[12:18], strict=True)])
    normal = ids[0:12:2]
    write_csv(bad, [columns, *zip(normal, ids[12:18], [ids[1], ids[3], *4 * [""]], strict=True)])
    answer = slidestream(
        "mil", "cv", "--store", cohort.store, "--labels", cohort.labels, "--splits", bad, "--splits", good,
        "--model", "max", "--epochs", 2, "--plot-every", 0, "--scheduler", scheduler, "--run-dir", tmp_path / "cv",
    )  # fmt: skip
    assert answer.code == 1
    assert "fold 0 failed: The training part of the split has no bag of class tumor" in answer.err
    metrics = json.loads((tmp_path / "cv" / "metrics.json").read_text())
    assert metrics["failed"] == [0]
    assert metrics["folds"][0]["error"]["reason"] == "input"
    assert metrics["folds"][1]["status"] == "finished"
    assert metrics["summary"]["accuracy"]["n"] == 1
    page = (tmp_path / "cv" / "report.html").read_text()
    assert "has no bag of class tumor" in page


def test_presets_give_what_is_not_given(
    slidestream: Slidestream, cohort: BagSettings, tmp_path: Path
) -> None:
    answer = slidestream(
        "mil", "train", "--store", cohort.store, "--labels", cohort.labels, "--folds", 3,
        "--preset", "dual-stream-audit", "--epochs", 1, "--no-class-weights", "--plot-every", 0,
        "--run-dir", tmp_path / "run", "--json",
    )  # fmt: skip
    assert answer.code in (0, 1), answer.err
    import yaml

    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["preset"] == "dual-stream-audit"
    assert config["model"] == "dsmil"
    assert (config["batch_size"], config["bag_size"]) == (4, 32)
    assert config["loss"]["label_smoothing"] == 0.2
    assert config["fit"]["amp"] is True
    assert config["fit"]["epochs"] == 1
    assert config["loss"]["class_weights"] is False
    assert json.loads(answer.out)["model"] == "dsmil"


def test_bags_of_a_table_and_tensorboard(slidestream: Slidestream, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[tuple[str, ...]] = [("label", "bag", "a", "b")]
    for bag in range(20):
        values = rng.normal(size=(4, 2)) + np.array([3.0 * (bag % 2), 0.0])
        rows += [(str(bag % 2), f"b{bag}", *(f"{v:.3f}" for v in tile)) for tile in values]
    write_csv(tmp_path / "bags.csv", rows)
    answer = slidestream(
        "mil", "train", "--bags-csv", tmp_path / "bags.csv", "--folds", 3, "--epochs", 2, "--model", "mean",
        "--plot-every", 0, "--tensorboard", "--run-dir", tmp_path / "run",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("label", "diagnosis"), "label"),
        (lambda text: text.replace("tumor", "normal"), "at least two classes"),
        (lambda text: "".join(text.splitlines(keepends=True)[:5]), "fewer"),
        (lambda text: text + "s00,tumor,p00\n", "s00"),
    ],
    ids=["no label column", "one class", "fewer patients than folds", "two labels"],
)
def test_labels_that_make_no_sense_are_one_sentence(
    slidestream: Slidestream,
    cohort: BagSettings,
    tmp_path: Path,
    change: Callable[[str], str],
    sentence: str,
) -> None:
    labels = Path(str(cohort.labels))
    labels.write_text(change(labels.read_text()))
    for command in ("train", "cv"):
        answer = slidestream(
            "mil",
            command,
            "--store",
            cohort.store,
            "--labels",
            labels,
            "--run-dir",
            tmp_path / "run",
        )
        assert answer.code == 1
        assert answer.err.startswith("Error: ")
        assert answer.err.count("\n") == 1
        assert sentence in answer.err
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--model", "dsmli"), "dsmil"),
        (("--set", "hiden=3"), "hidden"),
        (("--set", "hidden"), "NAME=VALUE"),
        (("--set", "hidden=99999999999"), "can't be built"),
        (("--features", "encoder"), "enc"),
        (("--fold", 7), "no fold 7"),
        (("--bags-csv", "bags.csv"), "exclude each other"),
        (("--splits", "nowhere.csv"), "nowhere.csv"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_options_that_make_no_sense_are_one_sentence(
    slidestream: Slidestream,
    cohort: BagSettings,
    tmp_path: Path,
    options: tuple[object, ...],
    sentence: str,
) -> None:
    answer = slidestream(
        "mil", "train", "--store", cohort.store, "--labels", cohort.labels, *options, "--run-dir", tmp_path / "run"
    )  # fmt: skip
    assert answer.code == 1
    assert answer.err.startswith("Error: ")
    assert sentence in answer.err


def test_report_of_what_is_no_run_is_refused(slidestream: Slidestream, tmp_path: Path) -> None:
    answer = slidestream("mil", "report", tmp_path)
    assert answer.code == 1
    assert "no finished run" in answer.err


def test_settings_of_the_model_in_a_config_file(
    slidestream: Slidestream, cohort: BagSettings, tmp_path: Path
) -> None:
    config = tmp_path / "mil.yaml"
    for text, sentence in (("[hidden=4, hiden=5]", "'hiden'"), ("hiden=5", "'hiden'")):
        config.write_text(f"set: {text}\n")
        answer = slidestream(
            "mil", "train", "--store", cohort.store, "--labels", cohort.labels, "--config", config
        )
        assert answer.code == 1
        assert sentence in answer.err


def test_a_damaged_history_is_named_by_the_report(slidestream: Slidestream, tmp_path: Path) -> None:
    metrics = {"kind": "mil-fold", "fold": 0, "status": "finished"}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "history.jsonl").write_text('{"epoch": 0')
    answer = slidestream("mil", "report", tmp_path)
    assert answer.code == 1
    assert "history.jsonl is damaged" in answer.err


def test_a_training_split_without_a_class_is_refused(cohort: BagSettings, tmp_path: Path) -> None:
    config = settings(cohort)
    split = Split(("s00", "s02"), ("s04", "s05"), ("s07",))
    with pytest.raises(InputError, match="no bag of class tumor"):
        train_fold(config, split, 0, tmp_path / "run")
