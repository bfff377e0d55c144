"""Four passes with one command: what is selected by what, and that a second call does nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jobs.mil.ranking import attention_score, feature_norms, top_k, weighted
from jobs.mil.run_attention import attention_of_run
from jobs.mil.trained import load_trained
from store_schema.store import open_store

Slidestream = Callable[..., Any]
GRID = "32px_0.500mpp"
N_SLIDES = 16


@pytest.fixture
def cohort(tmp_path: Path, feature_store: Callable[..., str]) -> tuple[str, Path]:
    """Return a store of 16 slides, in tumour slides some tiles are shifted, and labels."""
    generator = np.random.default_rng(3)
    features, lines = {}, ["slide_id,label,patient_id"]
    for number in range(N_SLIDES):
        values = generator.normal(size=(int(generator.integers(6, 12)), 6))
        tumor = number % 2
        if tumor:
            values[::3, :2] += 3
        features[f"s{number:02d}"] = values.astype(np.float16)
        lines.append(f"s{number:02d},{'tumor' if tumor else 'normal'},p{number:02d}")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(lines))
    return feature_store(features), labels


def arguments(url: str, labels: Path, run_dir: Path, *more: object) -> list[object]:
    return [
        "mil", "two-pass", "--store", url, "--labels", labels, "--name", "tp", "--k", 4,
        "--epochs1", 2, "--epochs2", 3, "--lr", 0.01, "--plot-every", 0, "--device", "cpu",
        "--run-dir", run_dir, *more,
    ]  # fmt: skip


def chosen_by(url: str, slide_id: str, run: Path, alpha: float) -> np.ndarray[Any, Any]:
    """Rank a slide's tiles anew by a run's attention and the norm."""
    bag = next(bag for bag in open_store(url).bags("enc") if bag.slide_id == slide_id)
    attention = attention_score(attention_of_run(run, "cpu").attention(bag))
    return top_k(weighted(attention, feature_norms(bag.load()), alpha), 4)


def test_one_split(
    cohort: tuple[str, Path],
    tmp_path: Path,
    slidestream: Slidestream,
    store_digests: Callable[[Path], dict[str, str]],
) -> None:
    url, labels = cohort
    splits = tmp_path / "splits.csv"
    rows = zip(*(iter(f"s{i:02d}" for i in range(15)),) * 3, strict=True)
    splits.write_text("train,val,test\n" + "\n".join(",".join(row) for row in rows))
    call = arguments(url, labels, tmp_path / "tp", "--splits", splits, "--alpha", 0.6)
    answer = slidestream(*call, "--json")
    assert answer.code == 0, answer.err
    passes = json.loads(answer.out)["passes"]
    assert [each["number"] for each in passes] == [1, 2, 3, 4]
    assert passes == json.loads((tmp_path / "tp" / "two_pass.json").read_text())
    assert {each["device"] for each in passes} == {"cpu"}
    metrics = json.loads((tmp_path / "tp" / "pass4" / "metrics.json").read_text())
    assert passes[3]["test"]["auc"]["mean"] == metrics["test"]["auc"]
    assert passes[3]["output"] == str(tmp_path / "tp" / "pass4")
    assert not any("seen held-out" in each for each in metrics["flags"])  # its own selection
    assert "epochs" not in yaml.safe_load((tmp_path / "tp" / "config.yaml").read_text())["fit"]
    slide = open_store(url)["s01"]
    assert slide.runs(GRID, "selections") == ["tp-pass1", "tp-pass3"]
    norms = feature_norms(slide.block_group(GRID, "features", "enc").read_array("features", 0))
    assert int(np.argmax(norms)) in slide.selection(GRID, "tp-pass1")[0]
    run = tmp_path / "tp" / "pass2"
    for slide_id in ("s00", "s01", "s02", "s15"):  # of train, val, test, and of none
        found = open_store(url)[slide_id].selection(GRID, "tp-pass3")[0]
        np.testing.assert_array_equal(found, chosen_by(url, slide_id, run, 0.6))
    first, second = (load_trained(tmp_path / "tp" / each)[0] for each in ("pass2", "pass4"))
    assert first.description["selection"] == "tp-pass1"
    assert second.description["selection"] == "tp-pass3"

    before = store_digests(Path(url))
    weights = (tmp_path / "tp/pass4/model.safetensors").stat().st_mtime_ns
    again = slidestream(*call)
    assert again.code == 0, again.err
    assert store_digests(Path(url)) == before
    assert (tmp_path / "tp/pass4/model.safetensors").stat().st_mtime_ns == weights
    assert json.loads((tmp_path / "tp" / "two_pass.json").read_text()) == passes
    assert "total" in again.out
    assert again.out.count("abmil, test folds") == 2  # the tables of passes 2 and 4

    other = slidestream(*call[:-1], 0.9)
    assert other.code == 1
    assert "other settings" in other.err
    elsewhere = arguments(url, labels, tmp_path / "tp2", "--splits", splits, "--k", 3)
    refused = slidestream(*elsewhere)
    assert refused.code == 1
    assert "tp-pass1" in refused.err
    assert store_digests(Path(url)) == before


def test_each_fold_has_a_selection_of_its_own(
    cohort: tuple[str, Path], tmp_path: Path, slidestream: Slidestream, scheduler: str
) -> None:
    url, labels = cohort
    call = arguments(url, labels, tmp_path / "tp", "--folds", 2, "--scheduler", scheduler)
    answer = slidestream(*call)
    assert answer.code == 0, answer.err
    slide = open_store(url)["s03"]
    assert slide.runs(GRID, "selections") == ["tp-pass1", "tp-pass3-fold0", "tp-pass3-fold1"]
    for fold, trained in enumerate(load_trained(tmp_path / "tp" / "pass4")):
        name = f"tp-pass3-fold{fold}"
        assert trained.description["selection"] == name
        of_fold = tmp_path / "tp" / "pass2" / f"fold_{fold}"
        for slide_id in ("s03", "s06"):
            found = open_store(url)[slide_id].selection(GRID, name)[0]
            np.testing.assert_array_equal(found, chosen_by(url, slide_id, of_fold, 0.7))


def test_options_that_make_no_sense(
    cohort: tuple[str, Path], tmp_path: Path, slidestream: Slidestream
) -> None:
    url, labels = cohort
    call = arguments(url, labels, tmp_path / "tp")
    both = slidestream(*call, "--fraction", 0.5)
    assert both.code == 1
    assert "either --k or --fraction" in both.err
    assert slidestream(*call, "--selection", "x").code == 2  # the passes make their own
    assert slidestream("mil", "two-pass", "--name", "tp").code == 1
