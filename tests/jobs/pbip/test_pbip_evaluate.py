"""``pbip evaluate``: masks of classes against truths."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from dataflow.stain import StainSpec
from jobs.evaluation.truth import open_truth
from jobs.pbip.class_truth import ClassTruth, GridTiles
from jobs.pbip.sample_pictures import mask_sample, sample_views
from jobs.pbip.segmented_mask import segmented_mask
from models.checkpoint import save_model
from models.pbip import Pbip, PbipConfig
from models.pbip_checkpoint import load_pbip, pbip_description
from models.pbip_losses import PbipLossSpec
from models.pbip_published import published_prediction
from store_schema.specs import GridGeometry, GridSpec, RasterSpec, TileTable
from store_schema.store import open_store

Slidestream = Callable[..., Any]
Slides = Any  # the class is in conftest.py, which can't be imported from


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def evaluate(slidestream: Slidestream, segmented: Slides) -> Callable[..., Any]:
    """Return a function: further arguments → the answer of ``pbip evaluate``, and its metrics."""

    def call(*more: object, name: str = "seg", truth: object = segmented.masks) -> Any:
        out = segmented.folder / "out"
        answer = slidestream(
            *("pbip", "evaluate", "--store", segmented.path, "--name", name, "--truth", truth),
            *("--out", out, "--resamples", 20, "--samples", 3),
            *more,
        )
        path = out / "metrics.json"
        return answer, json.loads(path.read_text()) if path.is_file() else None

    return call


def judged(slides: Slides, *ids: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return truth and prediction of all pixels in tiles; 2 where nothing was said."""
    last = (slides.n - 1) * slides.tile_px // slides.px
    truth = np.concatenate([slides.truth[i][:, :last].ravel() for i in ids])
    said = np.concatenate([slides.said[i][:, :last].ravel() for i in ids])
    return truth, np.where(said == 0, 2, said.astype(int) - 1)


def test_numbers_are_those_of_plain_arrays(evaluate: Callable[..., Any], segmented: Slides) -> None:
    answer, found = evaluate()
    assert answer.code == 0, answer.err
    truth, said = judged(segmented, "a", "b")
    assert found["confusion"] == confusion_matrix(truth, said)[:2].tolist()
    each = jaccard_score(truth, said, average=None, labels=[0, 1])
    assert found["val_iou"] == pytest.approx(each.mean())
    dice = f1_score(truth, said, average=None, labels=[0, 1])
    assert found["val_dice"] == found["val_f1"] == pytest.approx(dice.mean())
    assert found["iou_without_background"] == pytest.approx(each[1])
    share = np.bincount(truth) / len(truth)
    assert found["weighted"]["iou"] == pytest.approx(each @ share)
    assert found["per_class_metrics"]["tumor"]["iou"] == pytest.approx(each[1])
    assert found["floors"]["all tumor"]["tumor/iou"] == pytest.approx(share[1])
    assert found["floors"]["all tumor"]["iou"] == pytest.approx(share[1] / 2)
    of_slides = [jaccard_score(*judged(segmented, i), average=None, labels=[0, 1]) for i in "ab"]
    assert found["slides"]["b"]["iou"] == pytest.approx(of_slides[1].mean())
    assert found["slides_mean"]["iou"] == pytest.approx(np.mean(of_slides))
    assert found["protocol"] == "own"
    assert found["warning"] == ""
    assert found["without_truth"] == ["c"]
    out = segmented.folder / "out"
    rows = table(out / "tile_metrics.csv")
    assert len(rows) == 2 * segmented.n * (segmented.n - 1)
    row = rows[7]  # row 1, column 2
    assert (row["slide_id"], row["tile"], row["x"], row["y"]) == ("a", "7", "64", "32")
    window = slice(8, 16), slice(16, 24)
    mean = jaccard_score(
        segmented.truth["a"][window].ravel(),
        np.where(segmented.said["a"] == 0, 2, segmented.said["a"].astype(int) - 1)[window].ravel(),
        average=None,
        labels=np.unique(segmented.truth["a"][window]),
    ).mean()
    assert float(row["mean_iou"]) == pytest.approx(mean)
    known = [float(row["mean_iou"]) for row in rows]
    assert found["tiles_mean"]["iou"] == pytest.approx(np.mean(known))
    matrix = list(csv.reader((out / "confusion_matrix.csv").read_text().splitlines()))
    assert matrix[0][1:] == ["benign", "tumor", "nothing"]
    assert [list(map(int, row[1:])) for row in matrix[1:]] == found["confusion"]
    assert [row["slide_id"] for row in table(out / "slide_metrics.csv")] == ["a", "b"]
    text = (out / "evaluation_report.txt").read_text()
    assert "all tissue is tumor (floor)" in text
    assert text.count("\n") > 20
    assert "a" in found["slides"]
    said_of_models = "1 of the judged slides trained the model (a)"
    assert said_of_models in answer.out
    assert said_of_models in (out / "report.html").read_text()
    low, high = found["intervals"]["iou"]
    assert low <= found["val_iou"] <= high


def test_patients_are_drawn(evaluate: Callable[..., Any], segmented: Slides) -> None:
    labels = segmented.folder / "labels.csv"
    labels.write_text("slide_id,patient_id,label\na,p,1\nb,p,1\nc,q,0\n")
    answer, found = evaluate("--labels", labels)
    assert "nothing can be drawn from 1 patient" in answer.out
    assert found["intervals"]["n"] == 1
    assert "iou" not in found["intervals"]
    answer, found = evaluate("--labels", labels, "--without-truth", "negative")
    assert found["intervals"]["n"] == 2
    _, said = judged(segmented, "c")
    assert found["slides"]["c"]["benign/iou"] == pytest.approx(float(np.mean(said == 0)))
    assert found["slides"]["c"]["tumor/iou"] is None


def test_truths_of_several_classes(evaluate: Callable[..., Any], segmented: Slides) -> None:
    classes = ("stroma", "tumor", "necrosis")
    truth = np.zeros((48, 48), np.uint8)
    said = np.random.default_rng(5).integers(0, 4, (48, 48)).astype(np.uint8)
    segmented.add_mask("a", "three", said, {"made": "up"}, "scores/seg/confidence", classes)
    truth[:20], truth[30:] = 1, 2
    segmented.write_truth("a", truth, 1, "t")
    segmented.write_truth("a", truth, 2, "n")
    both = ("--truth", f"necrosis={segmented.folder / 'n'}")
    tumor = f"tumor={segmented.folder / 't'}"
    answer, found = evaluate(*both, name="three", truth=tumor)
    assert answer.code == 0, answer.err
    here = slice(None), slice(0, 40)
    values = np.where(said == 0, 3, said.astype(int) - 1)[here].ravel()
    counts = confusion_matrix(truth[here].ravel(), values, labels=range(4))
    assert found["confusion"] == counts[:3].tolist()
    assert found["background"] == "stroma"
    overlapping = truth.copy()
    overlapping[18:20] = 2  # tumour as well: which of them it is isn't known
    segmented.write_truth("a", overlapping, 2, "n")
    _, found = evaluate(*both, name="three", truth=tumor)
    assert found["n_pixels"] == (48 - 2) * 40
    answer, _ = evaluate(name="three")
    assert "say which one" in answer.err
    answer, _ = evaluate(name="three", truth=f"tumour={segmented.masks}")
    assert "there is no such class" in answer.err
    answer, _ = evaluate(name="three", truth=f"stroma={segmented.masks}")
    assert "what no truth marks" in answer.err
    answer, _ = evaluate("--truth", tumor, name="three", truth=tumor)
    assert "two truths" in answer.err


def test_labels_of_tiles_are_those_of_their_pixels(
    evaluate: Callable[..., Any], segmented: Slides
) -> None:
    tiles = GridTiles.of(segmented.view("a"), segmented.grid)
    labels = [int(x >= 96 and y < 64) for x, y in zip(tiles.table.x, tiles.table.y, strict=True)]
    path = segmented.folder / "tiles.csv"
    rows = zip(tiles.table.x, tiles.table.y, labels, strict=True)
    path.write_text("slide_id,x,y,label\n" + "".join(f"a,{x},{y},{k}\n" for x, y, k in rows))
    answer, found = evaluate("--slides", "a", truth=path)
    assert answer.code == 0, answer.err
    truth = np.zeros((48, 48), np.uint8)
    truth[:16, 24:] = 1
    segmented.truth["a"] = truth
    truth, said = judged(segmented, "a")
    assert found["confusion"] == confusion_matrix(truth, said)[:2].tolist()
    assert "only its tiles are known" in answer.out


def test_another_grid_says_which_pixels_count(
    evaluate: Callable[..., Any], segmented: Slides
) -> None:
    one = np.zeros(2, np.int32)
    corners = np.array(
        [32, 48], np.int32
    )  # they overlap by half: pixels count once, of tiles twice
    slide = segmented.view("a")
    spec = GridSpec(32, 0.972, 16)
    slide.create_grid(
        spec,
        GridGeometry(32, 16.0, 12, 12),
        TileTable(corners, one + 64, one + 4, corners // 16, np.ones(2, np.float32)),
        {"slide": slide.record.fingerprint},
        block_tiles=8,
    )
    answer, found = evaluate("--slides", "a", "--tiles", spec.name)
    assert answer.code == 0, answer.err
    assert found["n_pixels"] == 8 * 12
    window = slice(16, 24), slice(8, 20)
    counts = np.bincount(segmented.truth["a"][window].ravel(), minlength=2)
    assert [sum(row) for row in found["confusion"]] == counts.tolist()
    rows = table(segmented.folder / "out" / "tile_metrics.csv")
    assert [row["pixels"] for row in rows] == ["64", "64"]
    answer, _ = evaluate("--tiles", spec.name)
    assert answer.code == 1
    assert "slide b has no grid" in (answer.err + answer.out).replace("\n", " ")


def test_masks_that_were_told_the_labels_say_so(
    evaluate: Callable[..., Any], segmented: Slides
) -> None:
    steps = {"steps": [{"step": "gate-by-label", "classes": ["benign"]}]}
    for slide_id in "ab":
        said = segmented.said[slide_id]
        segmented.add_mask(slide_id, "seg-post", said, steps, "masks/seg/confidence")
    answer, found = evaluate(name="seg-post")
    assert answer.code == 0, answer.err
    out = segmented.folder / "out"
    texts = [answer.out, (out / "report.html").read_text(), found["warning"]]
    texts.append((out / "evaluation_report.txt").read_text())
    assert all("GATED BY LABELS" in text for text in texts)
    assert found["slides"]["a"]["gated"] is True
    assert found["slides"]["a"]["model_split"] == "train"  # followed to the scores


def network(folder: Path, class_names: tuple[str, ...] = ("benign", "tumor")) -> Path:
    torch.manual_seed(3)
    config = PbipConfig("tf_efficientnet_lite0", class_names, (2, 2), 8, 32)
    model = Pbip(config, torch.nn.functional.normalize(torch.randn(4, 8))).eval()
    described: dict[str, Any] = {
        "mpp": 0.972,
        "stain": StainSpec("none").provenance,
        "bank": {"name": "b", "fingerprint": "0", "encoder": {}},
        "trained_on": {"train_slides": ["b"], "val_slides": []},
    }
    folder.mkdir()
    description = pbip_description(model, PbipLossSpec(), **described)
    save_model(folder / "model.safetensors", model, description)
    return folder


def test_masks_of_several_networks_are_not_pooled(
    evaluate: Callable[..., Any], segmented: Slides
) -> None:
    for seed, slide_id in enumerate("ab"):
        segmented.add_scores(slide_id, "net", seed, weights=f"of network {slide_id}")
        said = segmented.said[slide_id]
        segmented.add_mask(slide_id, "net", said, {"made": "up"}, "scores/net/confidence")
    answer, _ = evaluate(name="net")
    assert answer.code == 1
    assert "scores net of b were made otherwise than those of a" in answer.err


def test_masks_of_what_was_replaced_are_refused(
    evaluate: Callable[..., Any], segmented: Slides
) -> None:
    """`segment --overwrite` of another network leaves what was made of the old confidence, if it isn't asked for."""
    for slide_id in "ab":
        view = segmented.view(slide_id)
        made_by = view.run_attrs(segmented.grid, "masks", "seg")["fingerprint"]
        of_old = "0123456789abcdef" if slide_id == "b" else made_by
        said = segmented.said[slide_id]
        segmented.add_mask(
            slide_id, "seg-crf", said, {"confidence": of_old}, "masks/seg/confidence"
        )
        crf = view.run_attrs(segmented.grid, "masks", "seg-crf")["fingerprint"]
        segmented.add_mask(
            slide_id, "seg-post", said, {"confidence": crf}, "masks/seg-crf/confidence"
        )
    for name in ("seg-crf", "seg-post"):
        answer, found = evaluate(name=name)
        assert answer.code == 1
        assert list(found["slides"]) == ["a"]
        said_of_it = f"masks/{name} of slide b is out of date, masks/seg that it goes back to"
        assert said_of_it in found["problems"]["b"]
    of_old_scores = {"source": {"kind": "scores", "fingerprint": "0123456789abcdef"}}
    segmented.add_mask("a", "old", segmented.said["a"], of_old_scores, "scores/seg/confidence")
    answer, _ = evaluate(name="old")
    assert answer.code == 1
    assert "scores/seg that it goes back to was replaced" in answer.err


def test_the_published_protocol_is_called_leaky(
    evaluate: Callable[..., Any], segmented: Slides
) -> None:
    run = network(segmented.folder / "net")
    answer, found = evaluate("--protocol", "published", "--run", run)
    assert answer.code == 0, answer.err
    out = segmented.folder / "out"
    texts = [answer.out, (out / "report.html").read_text(), found["warning"]]
    texts.append((out / "evaluation_report.txt").read_text())
    assert all("LEAKY" in text for text in texts)
    assert found["protocol"] == "published"
    model, _ = load_pbip(run / "model.safetensors")
    counts = np.zeros((2, 2), int)
    for slide_id in "ab":
        image = segmented.image(slide_id)
        truth = segmented.truth[slide_id].repeat(4, 0).repeat(4, 1)
        tiles = [(y, x) for y in range(0, 192, 32) for x in range(0, 160, 32)]
        pixels = np.stack([image[y : y + 32, x : x + 32] for y, x in tiles])
        true = np.stack([truth[y : y + 32, x : x + 32] for y, x in tiles])
        labels = np.stack([(true == k).any((1, 2)) for k in range(2)], 1)
        told = torch.from_numpy(labels).float()
        with torch.inference_mode():
            said = published_prediction(model, torch.from_numpy(pixels), told, 32).argmax(1)
        counts += confusion_matrix(true.ravel(), said.numpy().ravel(), labels=[0, 1])
    assert np.abs(np.array(found["confusion"])[:, :2] - counts).max() <= 5  # sums in other batches
    assert found["slides"]["b"]["model_split"] == "train"
    assert (out / "prediction_samples" / "sample_1_pred.png").is_file()
    slide = segmented.view("a")
    spec, one = GridSpec(64, 0.972, 64), np.zeros(1, np.int32)
    slide.create_grid(
        spec,
        GridGeometry(64, 64.0, 3, 3),
        TileTable(one, one, one, one, np.ones(1, np.float32)),
        {"slide": slide.record.fingerprint},
        block_tiles=8,
    )
    one_slide = "--protocol", "published", "--run", run, "--slides", "a"
    answer, _ = evaluate(*one_slide, "--tiles", spec.name)
    assert answer.code == 1
    assert "was trained on tiles of 32 px at 0.972 µm/px, and the grid" in answer.err
    labels = segmented.folder / "tiles.csv"
    table_of = slide.tile_table(segmented.grid)
    rows = (f"a,{x},{y},1\n" for x, y in zip(table_of.x, table_of.y, strict=True))
    labels.write_text("slide_id,x,y,label\n" + "".join(rows))
    answer, _ = evaluate(*one_slide, truth=labels)
    assert answer.code == 1
    assert "needs masks or annotations" in answer.err
    answer, _ = evaluate("--protocol", "published")
    assert answer.code == 2
    assert "go together" in answer.err
    other = network(segmented.folder / "other", ("tumor", "benign"))
    answer, _ = evaluate("--protocol", "published", "--run", other)
    assert "has the classes tumor, benign, and the masks benign, tumor" in answer.err


def test_what_cannot_be_judged_is_said(evaluate: Callable[..., Any], segmented: Slides) -> None:
    Image.fromarray(np.zeros((40, 90), np.uint8)).save(segmented.masks / "b.png")
    answer, found = evaluate()
    assert answer.code == 1
    assert list(found["slides"]) == ["a"]
    assert "doesn't have the proportions of the slide" in found["problems"]["b"]
    empty = segmented.folder / "empty"
    empty.mkdir()
    answer, _ = evaluate(truth=empty)
    assert answer.code == 1
    assert "has the truth of none of the 3 slides with masks" in answer.err
    answer, _ = evaluate(name="sge")
    assert "has no masks 'sge'" in answer.err
    answer, _ = evaluate("--background", "stroma")
    assert "no class 'stroma' for a background" in answer.err
    plain = np.ones((6, 6), np.uint8)
    spec = RasterSpec(("y", "x"), plain.shape, "uint8", 32.0)
    segmented.view("a").write_raster(segmented.grid, "cal", {"mask": (spec, plain)}, {"a": 1})
    answer, _ = evaluate(name="cal")
    assert "is no mask of classes" in answer.err
    classes = ("tumor", "benign")
    segmented.add_mask("a", "odd", segmented.said["a"], {"a": 1}, "")
    segmented.add_mask("b", "odd", segmented.said["b"], {"a": 1}, "", classes)
    segmented.write_truth("b", segmented.truth["b"])
    answer, found = evaluate(name="odd")
    assert "segment them with the same network" in found["problems"]["b"]


def test_splits_choose_slides(evaluate: Callable[..., Any], segmented: Slides) -> None:
    splits = segmented.folder / "splits.csv"
    splits.write_text("train,val,test\na,c,b\n,,z\n")
    answer, found = evaluate("--splits", splits)
    assert list(found["slides"]) == ["b"]
    assert found["without_masks"] == ["z"]
    assert "1 slide of the split has no such masks: z" in answer.out


def test_pictures_show_the_place(segmented: Slides) -> None:
    slide = open_store(str(segmented.path))["a"]
    truth = ClassTruth({1: open_truth(segmented.masks)}, 0)
    known = truth.of_slide(GridTiles.of(slide, segmented.grid))
    assert known is not None
    sample = mask_sample(segmented_mask(slide, "seg", None), known, 7)  # at (64, 32)
    np.testing.assert_array_equal(sample.pixels, segmented.image("a")[0:96, 32:128])
    fine = segmented.truth["a"].repeat(4, 0).repeat(4, 1)[0:96, 32:128]
    np.testing.assert_array_equal(sample.truth, fine)
    said = segmented.said["a"].repeat(4, 0).repeat(4, 1)[0:96, 32:128].astype(int)
    np.testing.assert_array_equal(sample.predicted, np.where(said == 0, 2, said - 1))
    assert sample.um_per_px == pytest.approx(0.972)
    corner = mask_sample(segmented_mask(slide, "seg", None), known, 0)
    assert (corner.pixels[:32] == 255).all()
    assert (corner.predicted[:32] == 2).all()
    scanned, true, _ = (np.asarray(view) for view in sample_views(sample, 0, 2))
    large = fine.repeat(3, 0).repeat(3, 1).astype(bool)
    inner, outer = ndimage.minimum_filter(large, 31), ~ndimage.maximum_filter(large, 31)
    assert inner.any()
    assert outer.any()
    apart = np.abs(true.astype(int) - scanned).sum(2)
    assert apart[inner].mean() > 60  # tinted
    assert apart[outer].max() <= 3
