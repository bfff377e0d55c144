"""Evaluation and heatmaps from the command line, on scores that tests write themselves."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from dataflow.pyramid_tiff import write_pyramid
from dataflow.slide_digest import slide_digest
from jobs.evaluation.slide_level import evaluate_slides
from jobs.evaluation.tile_level import TileSettings, evaluate_tiles, tile_metrics
from jobs.mil.predictions import (
    Prediction,
    Predictions,
    predicted_name,
    read_predictions,
    write_predictions,
)
from jobs.score_reader import ScoreChoice, read_score
from store_schema.errors import IncompleteError, InputError, NotInStoreError
from store_schema.specs import ArraySpec, GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import Store, create_store

TILE = 64
N = 8  # tiles along a side
SPEC = GridSpec(tile_px=64, mpp=0.5, stride_px=64)
CLASSES = ["normal", "tumor"]


def truth_of(seed: int) -> npt.NDArray[np.bool_]:
    return np.random.default_rng(seed).random((N, N)) < 0.3


def scores_of(seed: int) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(seed + 100).normal(size=(N * N, 2))
    noise[:, 1] += truth_of(seed).ravel()
    return noise.astype(np.float32)


def add_slide(store: Store, slide_id: str, seed: int, slide_file: Path | None = None) -> None:
    side = N * TILE
    source, digest = str(slide_file or f"/nowhere/{slide_id}.tif"), f"of {slide_id}"
    if slide_file is not None:
        pixels = np.full((side, side, 3), 200, np.uint8)
        write_pyramid(slide_file, pixels, mpp=0.5, downsamples=(1,))
        digest = slide_digest(slide_file)
    record = SlideRecord(slide_id, source, digest, "tiff", side, side, 0.5, "properties")
    slide = store.add_slide(record)
    row, col = (index.ravel().astype(np.int32) for index in np.indices((N, N)))
    table = TileTable(col * TILE, row * TILE, row, col, np.ones(N * N, np.float32))
    geometry = GridGeometry(TILE, float(TILE), N, N)
    slide.create_grid(SPEC, geometry, table, {"slide": digest}, block_tiles=40)
    arrays = {
        "attention": ArraySpec(("tile",), (), "float32", {"long_name": "attention"}),
        "probability": ArraySpec(("tile", "class"), (2,), "float32", {"class_names": CLASSES}),
    }
    said = {
        "class_names": CLASSES,
        "probabilities": [0.25, 0.75],
        "predicted": "tumor",
        "threshold": 0.5,
        "split": "test",
    }
    group = slide.create_tile_group(
        SPEC.name, "scores", "run", arrays, {"made": "up"}, extra={"prediction": said}
    )
    values = scores_of(seed)
    for block in range(group.n_blocks):
        span = group.block_slice(block)
        group.write_block(block, {"attention": values[span, 1], "probability": values[span]})


@pytest.fixture
def cohort(tmp_path: Path) -> Store:
    """Two slides with a mask, one without; one slide's file is there."""
    store = create_store(tmp_path / "cohort.zarr")
    (tmp_path / "masks").mkdir()
    for seed, slide_id in enumerate(["a", "b", "c"]):
        add_slide(store, slide_id, seed, tmp_path / "a.tif" if slide_id == "a" else None)
        if slide_id != "c":
            mask = truth_of(seed).repeat(3, axis=0).repeat(3, axis=1)
            Image.fromarray((mask * 255).astype(np.uint8)).save(
                tmp_path / "masks" / f"{slide_id}.png"
            )
    return store


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tiles_against_masks(cohort: Store, tmp_path: Path) -> None:
    settings = TileSettings(ScoreChoice("run"), tmp_path / "masks")
    found = evaluate_tiles(cohort, settings)
    assert found.without_truth == ("c",)
    assert [each.slide_id for each in found.slides] == ["a", "b"]
    values = [scores_of(seed)[:, 1] for seed in (0, 1)]
    truths = [truth_of(seed).ravel() for seed in (0, 1)]
    for each, score, truth in zip(found.slides, values, truths, strict=True):
        assert each.auc_roc == pytest.approx(roc_auc_score(truth, score))
        assert each.auc_pr == pytest.approx(average_precision_score(truth, score))
        assert each.n_positive == truth.sum()
    assert found.pooled is not None
    assert found.pooled.auc_roc == pytest.approx(
        roc_auc_score(np.concatenate(truths), np.concatenate(values))
    )
    assert found.mean_auc_roc == pytest.approx(
        np.mean([roc_auc_score(t, v) for t, v in zip(truths, values, strict=True)])
    )
    everything = TileSettings(ScoreChoice("run"), tmp_path / "masks", 0.5, "negative")
    negative = evaluate_tiles(cohort, everything)
    assert negative.without_truth == ()
    assert negative.slides[2].auc_roc is None  # all of one kind
    assert negative.pooled is not None
    assert negative.pooled.n_tiles == 3 * N * N
    first_class = ScoreChoice("run", "probability", "normal")
    of_class = evaluate_tiles(cohort, TileSettings(first_class, tmp_path / "masks"))
    assert of_class.slides[0].auc_roc == pytest.approx(roc_auc_score(truths[0], scores_of(0)[:, 0]))


def test_half_of_a_tile_is_not_more_than_half(cohort: Store, tmp_path: Path) -> None:
    half = np.zeros((2 * N, 2 * N), np.uint8)
    half[:, ::2] = 255  # the left half of each tile
    half[0, 1] = 255  # and three quarters of the first
    Image.fromarray(half).save(tmp_path / "masks" / "a.png")
    for positive_from, n_positive in ((0.5, 1), (0.49, N * N), (0.75, 0)):
        settings = TileSettings(
            ScoreChoice("run"), tmp_path / "masks", positive_from, slides=("a",)
        )
        assert evaluate_tiles(cohort, settings).slides[0].n_positive == n_positive


def test_tiles_without_a_score_are_left_out() -> None:
    values = np.array([0.1, np.nan, 0.9, np.nan], np.float32)
    found = tile_metrics("s", values, np.array([False, True, True, False]))
    assert (found.n_tiles, found.n_positive, found.n_without_score) == (2, 1, 2)
    assert found.auc_roc == 1.0


def test_which_number_is_read(cohort: Store) -> None:
    slide = cohort["a"]
    np.testing.assert_array_equal(read_score(slide, ScoreChoice("run")).values, scores_of(0)[:, 1])
    by_class = read_score(slide, ScoreChoice.parse("run/probability"))
    assert by_class.class_name == "tumor"  # the positive one of two
    assert by_class.prediction["predicted"] == "tumor"
    for choice, error, message in (
        (ScoreChoice("rum"), NotInStoreError, "did you mean run"),
        (ScoreChoice("run", "probabilty"), NotInStoreError, "did you mean probability"),
        (ScoreChoice("run", "probability", "tumour"), InputError, "did you mean tumor"),
        (ScoreChoice("run", "attention", "tumor"), InputError, "leave --class away"),
    ):
        with pytest.raises(error, match=message):
            read_score(slide, choice)
    arrays = {"p": ArraySpec(("tile", "class"), (3,), "float32", {"class_names": ["x", "y", "z"]})}
    said = {"class_names": ["x", "y", "z"], "probabilities": [0.2, 0.5, 0.3]}
    group = slide.create_tile_group(
        SPEC.name, "scores", "three", arrays, {}, extra={"prediction": said}
    )
    with pytest.raises(IncompleteError, match="0/2 blocks"):
        read_score(slide, ScoreChoice("three", class_name="x"))
    for block in range(group.n_blocks):
        span = group.block_slice(block)
        group.write_block(block, {"p": np.zeros((span.stop - span.start, 3), np.float32)})
    with pytest.raises(InputError, match="classes x, y, z: name one"):
        read_score(slide, ScoreChoice("three"))
    assert read_score(slide, ScoreChoice("three"), follow_prediction=True).class_name == "y"


def predictions(rows: Sequence[tuple[str, float, str, str]]) -> Predictions:
    """Make predictions of (slide, probability of tumor, predicted, split)."""
    made = (Prediction(s, (1 - p, p), said, split=split) for s, p, said, split in rows)
    return Predictions(("normal", "tumor"), tuple(made))


def label_file(tmp_path: Path, rows: Sequence[tuple[str, str, str]]) -> Path:
    path = tmp_path / "labels.csv"
    lines = ["slide_id,label,patient_id", *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines))
    return path


def test_slides_against_labels(tmp_path: Path) -> None:
    labels = label_file(
        tmp_path,
        [
            ("a", "normal", "p1"), ("b", "normal", "p1"), ("c", "tumor", "p2"),
            ("d", "tumor", "p3"), ("e", "tumor", "p4"), ("z", "tumor", "p9"),
        ],
    )  # fmt: skip
    said = predictions(
        [
            ("a", 0.2, "normal", "test"), ("b", 0.6, "tumor", "test"), ("c", 0.5, "tumor", "test"),
            ("d", 0.9, "tumor", ""), ("e", 0.99, "tumor", "train"), ("x", 0.5, "tumor", "test"),
        ]
    )  # fmt: skip
    found = evaluate_slides(said, labels, resamples=200)
    assert found.metrics["n"] == 4
    assert found.metrics["auc"] == pytest.approx(0.75)  # c is below b
    assert found.metrics["accuracy"] == 0.75
    assert found.metrics["specificity"] == 0.5
    assert found.metrics["confusion_matrix"] == [[1, 1], [0, 2]]
    assert (found.without_label, found.without_prediction) == (("x",), ("z",))
    assert found.other_splits == 1
    assert found.n_patients == 3
    assert found.intervals == evaluate_slides(said, labels, resamples=200).intervals
    assert found.intervals["auc"]["high"] == 1.0
    every = evaluate_slides(said, labels, split="all", resamples=10)
    assert every.metrics["n"] == 5
    anew = evaluate_slides(said, labels, threshold=0.55, resamples=10)
    assert anew.metrics["confusion_matrix"] == [[1, 1], [1, 1]]
    assert anew.metrics["auc"] == found.metrics["auc"]
    with pytest.raises(InputError, match="labelled val slide"):
        evaluate_slides(said, labels, split="val")
    with pytest.raises(InputError, match="classes"):
        evaluate_slides(said, label_file(tmp_path, [("a", "other", "p")]))


def test_patients_are_drawn_whole(tmp_path: Path) -> None:
    """Ten copies of each slide of two patients tell no more than the slides do."""
    names = [f"{kind}{i}" for kind in "nt" for i in range(10)]
    said = predictions([(n, 0.7 if n[0] == "t" else 0.3, "tumor", "test") for n in names])
    rows = [(n, "tumor" if n[0] == "t" else "normal", n[0]) for n in names]
    together = evaluate_slides(said, label_file(tmp_path, rows), resamples=300)
    apart = evaluate_slides(
        said, label_file(tmp_path, [(s, label, s) for s, label, _ in rows]), resamples=300
    )
    assert together.intervals["accuracy"] == {"low": 0.0, "high": 1.0}
    low, high = apart.intervals["accuracy"]["low"], apart.intervals["accuracy"]["high"]
    assert low is not None
    assert high is not None
    assert 0.2 < low < high < 0.8


def test_multilabel_predictions(tmp_path: Path) -> None:
    rows = (
        Prediction("a", (0.9, 0.8), "x;y"),
        Prediction("b", (0.1, 0.7), "y"),
        Prediction("c", (0.2, 0.1), ""),
    )
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\na,x;y\nb,x\nc,\n")
    found = evaluate_slides(Predictions(("x", "y"), rows), labels, resamples=5)
    assert found.task == "multilabel"
    assert found.metrics["accuracy"] == pytest.approx(2 / 3)


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "predictions.csv"
    rows = (
        Prediction("a,b", (1 / 3, 2 / 3), "t", "n", "p", "0+1", "test"),
        Prediction("ü", (0.1 + 0.2, 0.7), "n"),
    )
    write_predictions(path, ["n", "t"], rows)
    assert read_predictions(path) == Predictions(("n", "t"), rows)
    path.write_text("slide_id,probability_n,probability_t\ns,0.2,0.8\n")
    assert read_predictions(path).rows[0].predicted == "t"
    for text, message in (
        ("slide_id,label\n", "probability_<class>"),
        ("slide_id,probability_x\ns,much\n", "line 2"),
        ("slide_id,probability_x\ns\n", "line 2"),
        ("slide_id,probability_x\ns,nan\n", "line 2: a probability is not within 0 to 1"),
        ("slide_id,probability_x\ns,0.1\ns,0.2\n", "line 3: slide s is there twice"),
        ("slide_id,probability_x\n,0.1\n", "line 2: no slide"),
        ("slide_id,probability_x,probability_x\n", "each once"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_predictions(path)
    with pytest.raises(InputError, match="can't be read"):
        read_predictions(tmp_path / "none.csv")


def test_no_class_at_all_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    rows = (Prediction("a", (0.1, 0.4), "", "x"), Prediction("b", (0.9, 0.8), "x;y", "x;y"))
    write_predictions(path, ["x", "y"], rows)
    assert read_predictions(path).rows == rows


def test_labels_of_other_classes_in_the_predictions() -> None:
    rows = (Prediction("a", (0.4, 0.6), "t", "odd"), Prediction("b", (0.9, 0.1), "n", "n"))
    with pytest.raises(InputError, match="classes n, t, and a slide is said to be 'odd'"):
        evaluate_slides(Predictions(("n", "t"), rows), None, resamples=5)


def test_what_probabilities_come_to() -> None:
    p = np.array([0.7, 0.3])
    assert predicted_name(p, "ab", multilabel=False, threshold=None) == "a"
    assert predicted_name(p, "ab", multilabel=False, threshold=0.3) == "b"
    assert predicted_name(p, "ab", multilabel=True, threshold=0.2) == "a;b"
    assert predicted_name(p, "ab", multilabel=True, threshold=None) == "a"
    assert predicted_name(np.array([0.1, 0.5, 0.4]), "abc", multilabel=False, threshold=0.3) == "b"


def test_evaluate_from_the_command_line(
    cohort: Store, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    labels = label_file(tmp_path, [("a", "normal", "p"), ("b", "tumor", "q"), ("c", "tumor", "r")])
    out = tmp_path / "out"
    answer = slidestream(
        "evaluate", "--store", cohort.url, "--score", "run/probability", "--labels", labels,
        "--truth", tmp_path / "masks", "--out", out, "--resamples", 20,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "1 slides have scores but no mask: c" in answer.out
    found = json.loads((out / "evaluation.json").read_text())
    assert found["slides"]["metrics"]["confusion_matrix"] == [[0, 1], [0, 2]]
    tiles = rows_of(out / "tile_metrics.csv")
    assert [row["slide_id"] for row in tiles] == ["a", "b", "(all)"]
    assert float(tiles[0]["auc_roc"]) == pytest.approx(
        roc_auc_score(truth_of(0).ravel(), scores_of(0)[:, 1])
    )
    metrics = {row["metric"]: row for row in rows_of(out / "slide_metrics.csv")}
    assert float(metrics["sensitivity"]["value"]) == 1.0
    table = tmp_path / "predictions.csv"
    write_predictions(table, CLASSES, predictions([("a", 0.1, "normal", "")]).rows)
    as_json = slidestream("evaluate", "--predictions", table, "--labels", labels, "--json")
    assert json.loads(as_json.out)["slides"]["metrics"]["n"] == 1
    (tmp_path / "masks" / "b.png").write_text("broken")
    broken = slidestream(
        "evaluate", "--store", cohort.url, "--score", "run", "--truth", tmp_path / "masks"
    )
    assert broken.code == 1
    assert "b: the mask" in broken.out
    for wrong in (
        ["--labels", labels],
        ["--store", cohort.url, "--labels", labels],
        ["--predictions", table, "--run", tmp_path, "--labels", labels],
        ["--predictions", table, "--truth", tmp_path / "masks"],
    ):
        assert slidestream("evaluate", *wrong).code == 2


def test_heatmaps_from_the_command_line(
    cohort: Store, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    out = tmp_path / "heat"
    answer = slidestream(
        "heatmap", "--store", cohort.url, "--score", "run", "--out", out,
        "--truth", tmp_path / "masks",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "3 of 3 heatmaps" in answer.out
    assert answer.out.count("blank ground") == 2  # b and c have no slide file
    sizes = {}
    for slide_id in "abc":
        with Image.open(out / f"{slide_id}.png") as picture:
            sizes[slide_id] = picture.width
    assert sizes["a"] > 1.5 * sizes["b"]  # slide and overlay side by side, or the overlay alone
    (Path(cohort.url) / "b" / SPEC.name / "scores/run/attention/c/0").unlink()
    partly = slidestream(
        "heatmap", "--store", cohort.url, "--score", "run/attention", "--out", out, "--json"
    )
    assert partly.code == 1
    found = json.loads(partly.out)
    assert sorted(found["drawn"]) == ["a", "c"]
    assert "1/2 blocks" in found["failed"]["b"]
    unknown = slidestream("heatmap", "--store", cohort.url, "--score", "rum", "--out", out)
    assert unknown.code == 1
    assert "did you mean run" in unknown.err
    nobody = slidestream(
        "heatmap", "--store", cohort.url, "--score", "run", "--out", out, "--slides", "x"
    )
    assert nobody.code == 1
