"""Evaluation and heatmaps from the command line, on scores that tests write themselves."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from jobs.evaluation.slide_level import evaluate_slides
from jobs.mil.predictions import (
    Prediction,
    Predictions,
    predicted_name,
    read_predictions,
    write_predictions,
)
from jobs.score_reader import ScoreChoice, read_score
from store_schema.errors import IncompleteError, InputError, NotInStoreError
from store_schema.specs import ArraySpec

CLASSES = ["normal", "tumor"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_which_number_is_read(cohort: Any) -> None:
    slide = cohort.store["a"]
    values = read_score(slide, ScoreChoice("run")).values
    np.testing.assert_array_equal(values, cohort.scores["a"][:, 1])
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
        cohort.grid, "scores", "three", arrays, {}, extra={"prediction": said}
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
    cohort: Any, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    labels = label_file(tmp_path, [("a", "normal", "p"), ("b", "tumor", "q"), ("c", "tumor", "r")])
    out, url = tmp_path / "out", cohort.store.url
    answer = slidestream(
        "evaluate", "--store", url, "--score", "run/probability", "--labels", labels,
        "--truth", cohort.masks, "--threshold", 0.5, "--out", out, "--resamples", 20,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "1 slide has scores but no truth, left out: c" in answer.out
    found = json.loads((out / "evaluation.json").read_text())
    # decided as it was made, and not by the threshold of tiles
    assert found["slides"]["metrics"]["confusion_matrix"] == [[0, 1], [0, 2]]
    assert [row["slide_id"] for row in found["localization"]["slides"]] == ["a", "b", "c"]
    summary = rows_of(out / "heatmap_summary.csv")
    assert [row["status"] for row in summary] == ["judged", "judged", "no truth"]
    assert float(summary[0]["auc_roc"]) == pytest.approx(
        roc_auc_score(cohort.truth["a"].ravel(), cohort.scores["a"][:, 1])
    )
    assert rows_of(out / "burden_summary.csv")[0]["group"] == "all"
    metrics = {row["metric"]: row for row in rows_of(out / "slide_metrics.csv")}
    assert float(metrics["sensitivity"]["value"]) == 1.0
    page = (out / "report.html").read_text()
    for text in (
        "best: ",
        "worst: ",
        "Slides",
        "FROC",
        "1 slide has scores but no truth, left out: c",
        "every tile flagged: 0.",
        "scores shuffled: 0.",
        "intervals of 2 patients mean little",
    ):
        assert text in page
    assert page.count("data:image/png;base64,") == 3  # two slides and the curves
    table = tmp_path / "predictions.csv"
    write_predictions(table, CLASSES, predictions([("a", 0.1, "normal", "")]).rows)
    as_json = slidestream(
        "evaluate", "--predictions", table, "--labels", labels, "--json", "--out", tmp_path / "p"
    )
    assert json.loads(as_json.out)["slides"]["metrics"]["n"] == 1
    assert "AUC of slides" not in (tmp_path / "p" / "report.html").read_text()  # one class only
    for option in ("--mask", "--raster"):
        unknown = slidestream(
            "evaluate", "--store", url, "--score", "run", "--truth", cohort.masks, option, "nope"
        )
        assert unknown.code == 1
        assert "has no masks 'nope'" in unknown.err
    (tmp_path / "others").mkdir()
    stray = slidestream(
        "evaluate", "--store", url, "--score", "run", "--truth", tmp_path / "others"
    )
    assert stray.code == 1
    assert "has the truth of none of the 3 slides with scores" in stray.err
    (cohort.masks / "b.png").write_text("broken")
    broken = slidestream("evaluate", "--store", url, "--score", "run", "--truth", cohort.masks)
    assert broken.code == 1
    assert "b: the mask" in broken.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--labels L", "Name what is judged"),
        ("--store S --labels L", "go together"),
        ("--predictions P --run R --labels L", "Name what is judged"),
        ("--predictions P --truth T", "name their scores"),
        ("--store S --score R --mask M", "--mask is of tiles"),
        ("--store S --score R --raster M", "--raster is of tiles"),
        ("--store S --score R --truth T --mask M --threshold 1", "give one"),
        ("--store S --score R --truth T --ladder", "give --splits"),
        ("--store S --score R --truth T --per-slide-oracle", "a step of --ladder"),
        ("--predictions P --threshold 2", "0 to 1"),
    ],
)
def test_options_that_do_not_go_together(
    slidestream: Callable[..., Any], options: str, message: str
) -> None:
    answer = slidestream("evaluate", *options.split())
    assert answer.code == 2
    assert message in answer.err


def test_splits_and_the_ladder(
    cohort: Any, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    splits, out = tmp_path / "splits.csv", tmp_path / "out"
    splits.write_text("train,val,test\nx,b,a\n,,c\n,,gone\n")
    call = (
        "evaluate", "--store", cohort.store.url, "--score", "run", "--truth", cohort.masks, "--splits", splits,
        "--without-truth", "negative",
    )  # fmt: skip
    answer = slidestream(*call, "--ladder", "--per-slide-oracle", "--out", out)
    assert answer.code == 0, answer.err
    assert "1 slide of the split has no such scores: gone" in answer.out
    assert "upper bound" in answer.out
    found = json.loads((out / "evaluation.json").read_text())
    assert [row["slide_id"] for row in found["localization"]["slides"]] == ["a", "c"]
    assert found["ladder"]["fit_slides"] == ["b"]
    assert found["ladder"]["judged_slides"] == ["a", "c"]
    steps = [row["step"] for row in rows_of(out / "ladder.csv") if row["burden"] == "all"]
    assert steps == ["every-tile", "global", "zscore", "iou", "morphology", "oracle"]
    oracle = [row["upper_bound"] for row in rows_of(out / "ladder.csv") if row["step"] == "oracle"]
    assert set(oracle) == {"True"}
    only = slidestream(*call, "--slides", "c", "--json")
    assert [row["slide_id"] for row in json.loads(only.out)["localization"]["slides"]] == ["c"]
    for wrong, message in (
        (["--slides", "b"], "slide b isn't among the test slides"),
        (["--split", "train"], "none of the 1 train slides"),
        (["--ladder", "--fit-split", "train"], "none of the 0 slides that choose"),
    ):
        refused = slidestream(*call, *wrong)
        assert refused.code == 1
        assert message in refused.err
    (cohort.masks / "b.png").write_text("broken")
    refused = slidestream(*call, "--ladder")
    assert refused.code == 1
    assert "choose the ladder's thresholds can't be read: the mask" in refused.err


def test_a_report_is_replaced_whole(
    cohort: Any, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    splits, out = tmp_path / "splits.csv", tmp_path / "out"
    splits.write_text("train,val,test\nc,b,a\n")
    call = (
        "evaluate", "--store", cohort.store.url, "--score", "run", "--truth", cohort.masks, "--out", out,
        "--resamples", 5,
    )  # fmt: skip
    first = slidestream(*call, "--splits", splits, "--split", "all", "--ladder")
    assert first.code == 0, first.err
    settings = json.loads((out / "evaluation.json").read_text())["settings"]
    assert (settings["split"], settings["fit_split"]) == ("all", "val")
    assert (out / "ladder.csv").exists()
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["a.png", "b.png"]
    others = ("my_ladder.csv", "notes.txt", "pictures/mine.png", "metrics.json")
    for name in others:
        (out / name).write_text("mine")
    edited = json.loads((out / "evaluation.json").read_text())
    edited["files"] += ["notes.txt", "../splits.csv", "pictures/../my_ladder.csv", str(splits), 7]
    (out / "evaluation.json").write_text(json.dumps(edited))
    second = slidestream(*call, "--slides", "a")
    assert second.code == 0, second.err
    assert splits.exists()
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    listed = json.loads((out / "evaluation.json").read_text())["files"]
    assert there == {*others, *listed, "evaluation.json", "report.html"}
    assert "pictures/a.png" in listed
    assert "ladder.csv" not in listed
    (out / "pictures/mine.png").unlink()
    table = tmp_path / "predictions.csv"
    write_predictions(
        table, CLASSES, predictions([("a", 0.1, "normal", ""), ("b", 0.9, "tumor", "")]).rows
    )
    labels = label_file(tmp_path, [("a", "normal", "p"), ("b", "tumor", "q")])
    third = slidestream("evaluate", "--predictions", table, "--labels", labels, "--out", out)
    assert third.code == 0, third.err
    assert not (out / "pictures").exists()
    assert sorted(path.name for path in out.glob("*.csv")) == ["my_ladder.csv", "slide_metrics.csv"]


def test_scores_that_say_nothing_of_slides_need_a_truth(
    cohort: Any, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    cohort.add_scores("a", "vae", cohort.scores["a"][:, 1])
    labels = label_file(tmp_path, [("a", "normal", "p")])
    answer = slidestream(
        "evaluate", "--store", cohort.store.url, "--score", "vae", "--labels", labels
    )
    assert answer.code == 1
    assert "scores vae of slide a predict no slides" in answer.err
    assert "--truth" in answer.err


def test_which_slides_means_are_over_is_told_where_it_is_not_all(
    cohort: Any, slidestream: Callable[..., Any]
) -> None:
    call = (
        "evaluate", "--store", cohort.store.url, "--score", "run", "--truth", cohort.masks, "--threshold", 0.5,
        "--resamples", 5,
    )  # fmt: skip
    said = "precision and recall are over the 2 of 3 slides with positive tiles"
    every = " ".join(slidestream(*call, "--without-truth", "negative").out.split())
    assert said in every
    assert "precision and recall are over" not in " ".join(slidestream(*call).out.split())


def test_settings_tell_a_split_only_where_there_is_one(
    cohort: Any, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    call = ("evaluate", "--store", cohort.store.url, "--score", "run", "--resamples", 5, "--json")
    tiles = json.loads(slidestream(*call, "--truth", cohort.masks).out)["settings"]
    assert not {"split", "fit_split"} & set(tiles)
    assert tiles["judged_slides"] == "all that have the scores and a truth"
    labels = label_file(tmp_path, [("a", "normal", "p"), ("b", "tumor", "q"), ("c", "tumor", "r")])
    slides = json.loads(slidestream(*call, "--labels", labels).out)["settings"]
    assert slides["split"] == "test"  # predictions have one
    assert not {"fit_split", "judged_slides"} & set(slides)


def test_heatmaps_from_the_command_line(
    cohort: Any, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    out = tmp_path / "heat"
    answer = slidestream(
        "heatmap", "--store", cohort.store.url, "--score", "run", "--out", out,
        "--truth", cohort.masks,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "3 of 3 heatmaps" in answer.out
    assert answer.out.count("blank ground") == 2  # b and c have no slide file
    sizes = {}
    for slide_id in "abc":
        with Image.open(out / f"{slide_id}.png") as picture:
            sizes[slide_id] = picture.width
    assert sizes["a"] > 1.5 * sizes["b"]  # slide and overlay side by side, or the overlay alone
    (Path(cohort.store.url) / "b" / cohort.grid / "scores/run/attention/c/0").unlink()
    partly = slidestream(
        "heatmap", "--store", cohort.store.url, "--score", "run/attention", "--out", out, "--json",
        "--overwrite",
    )  # fmt: skip
    assert partly.code == 1
    found = json.loads(partly.out)
    assert sorted(found["drawn"]) == ["a", "c"]
    assert "1/2 blocks" in found["failed"]["b"]
    unknown = slidestream("heatmap", "--store", cohort.store.url, "--score", "rum", "--out", out)
    assert unknown.code == 1
    assert "did you mean run" in unknown.err
    nobody = slidestream(
        "heatmap", "--store", cohort.store.url, "--score", "run", "--out", out, "--slides", "x"
    )
    assert nobody.code == 1


def test_intervals_are_of_patients_and_follow_resamples_and_seed(
    cohort: Any,
    tmp_path: Path,
    slidestream: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for slide_id in "abc":
        cohort.add_scores(slide_id, "tiles", cohort.scores[slide_id][:, 1])
    monkeypatch.chdir(tmp_path)

    def judge(*more: object) -> dict[str, Any]:
        call = ("--store", "cohort.zarr", "--score", "tiles", "--truth", "masks", "--threshold", 0)
        negative = ("--without-truth", "negative")
        answer = slidestream("evaluate", *call, *negative, *more, "--json")
        assert answer.code == 0, answer.err
        found: dict[str, Any] = json.loads(answer.out)
        return found

    def ends(found: dict[str, Any]) -> dict[str, float]:
        row = found["localization"]["groups"][0]
        return {key: value for key, value in row.items() if key.endswith("_95")}

    plain = judge("--resamples", 50)
    assert plain["localization"]["intervals"] == {
        "drawn": "slides", "n": 3, "resamples": 50, "seed": 0,
    }  # fmt: skip
    for name in ("mean_auc_roc", "pooled_auc_pr", "mean_recall", "pooled_iou"):
        low, high = (ends(plain)[f"{name}_{end}_95"] for end in ("low", "high"))
        assert low <= plain["localization"]["groups"][0][name] <= high
    assert ends(plain)["pooled_pixel_iou_low_95"] is None
    assert ends(judge("--resamples", 50)) == ends(plain)
    assert ends(judge("--resamples", 51)) != ends(plain)
    assert ends(judge("--resamples", 50, "--seed", 1)) != ends(plain)
    # scores that say nothing of slides take labels for their patients alone
    labels = label_file(tmp_path, [("a", "x", "p"), ("b", "x", "p"), ("c", "x", "q")])
    of_patients = judge("--resamples", 50, "--labels", labels, "--out", "out")
    assert "slides" not in of_patients
    assert of_patients["localization"]["intervals"]["drawn"] == "patients"
    assert of_patients["localization"]["intervals"]["n"] == 2
    assert ends(of_patients) != ends(plain)
    curve = of_patients["localization"]["froc"]
    assert set(curve["intervals"]) == {"0.25", "0.5", "1", "2", "4", "8", "score"}
    rows = rows_of(tmp_path / "out" / "froc_score.csv")
    assert float(rows[-1]["chance"]) == pytest.approx(curve["chance"]["score"])
    assert (plain["settings"]["threshold"], plain["settings"]["seed"]) == (0, 0)
    for name in ("store", "truth", "out"):
        assert Path(of_patients["settings"][name].removeprefix("file://")).is_absolute()
