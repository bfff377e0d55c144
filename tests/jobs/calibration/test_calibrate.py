"""``slidestream calibrate`` on a small cohort: what is chosen by what, what is written, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from jobs.calibration.calibration import read_calibration
from jobs.calibration.lattice import LatticePlace
from jobs.calibration.morphology import MorphologySpec, cleaned
from jobs.calibration.threshold import Z_THRESHOLDS
from jobs.calibration.zscore import zscores
from store_schema.errors import InputError
from store_schema.specs import ArraySpec, GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import create_store
from store_schema.validate import validate

N = 12
GRID = "32px_0.500mpp"
ALL = list("abntu")


@pytest.fixture
def calibrate(slidestream: Callable[..., Any], cohort: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that calibrates the cohort; by its val slides unless told otherwise."""

    def call(*options: object, score: str | None = "vae", fit: bool = True) -> Any:
        arguments: list[object] = ["calibrate", "--store", cohort.store.url]
        arguments += [] if score is None else ["--score", score]
        if fit:
            arguments += ["--splits", cohort.splits, "--truth", cohort.masks]
        if "--run-dir" not in options:
            arguments += ["--run-dir", tmp_path / "run"]
        return slidestream(*arguments, *options)

    return call


def array(cohort: Any, slide: str, name: str, key: str) -> npt.NDArray[Any]:
    group = cohort.store[slide].block_group(GRID, "scores", name)
    return np.concatenate([group.read_array(key, block) for block in range(group.n_blocks)])


def mask(cohort: Any, slide: str, name: str = "vae-calibrated") -> npt.NDArray[np.bool_]:
    stored = cohort.store[slide].raster(GRID, name)["mask"]
    values: npt.NDArray[np.bool_] = stored.values.astype(bool)
    return values


def test_scores_and_masks_of_every_slide(
    cohort: Any, calibrate: Callable[..., Any], tmp_path: Path
) -> None:
    answer = calibrate()
    assert answer.code == 0, answer.err
    assert "by iou on 2 val slides (288 tiles, " in answer.out
    assert answer.out.count("Youden's J") == 2  # above the threshold, and of the mask
    assert "5 slides written, 0 were there, 0 failed" in answer.out
    assert "1 val slide has no truth and did not help to choose: n" in answer.err
    assert "1 val slide has no such scores and did not help to choose: gone" in answer.err
    assert "1 slide of those that chose the threshold trained the model (b)" in answer.err
    z = {slide: zscores(cohort.raw[slide]).values for slide in ALL}
    # the threshold by hand, on the val slides with truth
    fit_z, fit_truth = (np.concatenate([by[s] for s in "ab"]) for by in (z, cohort.truth))
    iou = [(fit_truth & (fit_z > t)).sum() / (fit_truth | (fit_z > t)).sum() for t in Z_THRESHOLDS]
    best = Z_THRESHOLDS[np.flatnonzero(np.array(iou) == max(iou)).max()]
    assert read_calibration(tmp_path / "run").threshold == best
    for slide in ALL:
        np.testing.assert_array_equal(array(cohort, slide, "vae-calibrated", "zscore"), z[slide])
        np.testing.assert_array_equal(
            array(cohort, slide, "vae-calibrated", "score"), cohort.raw[slide]
        )
        flagged = (z[slide] > best).reshape(N, N)
        expected = cleaned(flagged, np.ones((N, N), bool), MorphologySpec())
        np.testing.assert_array_equal(mask(cohort, slide), expected)
    assert mask(cohort, "t").any()
    attrs = cohort.store["t"].raster(GRID, "vae-calibrated")["mask"].attrs
    assert attrs["threshold"] == best
    assert attrs["threshold_metric"] == "iou"
    assert attrs["threshold_chosen_on"] == "2 val slides"
    assert attrs["upper_bound"] is False
    assert attrs["morphology"]["connectivity"] == 8
    source = cohort.store["t"].run_attrs(GRID, "scores", "vae")["fingerprint"]
    ours = cohort.store["t"].run_attrs(GRID, "scores", "vae-calibrated")
    assert ours["provenance"]["scores"] == {
        "run": "vae",
        "array": "l1",
        "class": None,
        "fingerprint": source,
    }
    assert validate(cohort.store) == []
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "calibrated_slides.csv", "calibration.json", "config.yaml", "metrics.json", "run.log", "threshold.png",
    }  # fmt: skip
    with (tmp_path / "run" / "calibrated_slides.csv").open(newline="") as file:
        rows = {row["slide_id"]: row for row in csv.DictReader(file)}
    assert int(rows["t"]["n_mask"]) == mask(cohort, "t").sum()
    assert float(rows["t"]["center"]) == pytest.approx(cohort.raw["t"].mean(), rel=1e-5)


def test_the_same_again_changes_nothing(
    cohort: Any,
    calibrate: Callable[..., Any],
    tmp_path: Path,
    store_digests: Callable[[Path], dict[str, str]],
) -> None:
    assert calibrate().code == 0
    before = store_digests(Path(cohort.store.url))
    again = calibrate()
    assert "0 slides written, 5 were there" in again.out
    reused = calibrate(
        "--from", tmp_path / "run", "--run-dir", tmp_path / "b", score=None, fit=False
    )
    assert "0 slides written, 5 were there" in reused.out
    assert (tmp_path / "b" / "calibration.json").read_bytes() == (
        tmp_path / "run" / "calibration.json"
    ).read_bytes()
    assert store_digests(Path(cohort.store.url)) == before
    # a block that got lost is written again, bit for bit
    lost = Path(cohort.store.url) / "t" / GRID / "scores" / "vae-calibrated" / "zscore" / "c" / "1"
    lost.unlink()
    assert "1 slide written, 4 were there" in calibrate().out
    assert store_digests(Path(cohort.store.url)) == before


def test_test_slides_choose_nothing(
    cohort: Any, calibrate: Callable[..., Any], tmp_path: Path
) -> None:
    assert calibrate().code == 0
    first = read_calibration(tmp_path / "run")
    for name in ("t.png", "u.png"):
        shutil.copy(cohort.masks / "b.png", cohort.masks / name)
    assert calibrate("--name", "again").code == 0
    assert read_calibration(tmp_path / "run") == first
    np.testing.assert_array_equal(mask(cohort, "t"), mask(cohort, "t", "again"))


def test_slides_without_truth_may_be_negative(
    cohort: Any, calibrate: Callable[..., Any], tmp_path: Path
) -> None:
    assert calibrate("--without-truth", "negative").code == 0
    fit = read_calibration(tmp_path / "run").fit
    assert fit is not None
    assert (fit.slides, fit.without_truth) == (("a", "b", "n"), ())
    assert fit.flagged.tp + fit.flagged.fp + fit.flagged.fn + fit.flagged.tn == 3 * N * N


def test_a_truth_beside_the_tissue_is_told_of(
    cohort: Any, calibrate: Callable[..., Any], add_slide: Callable[..., None], tmp_path: Path
) -> None:
    left = np.zeros((N, N), bool)
    left[:, :3] = True
    add_slide(cohort.store, "shifted", cohort.raw["t"][left.ravel()], has_tile=left)
    mask_of_b = np.zeros((N, N), np.uint8)
    mask_of_b[:, 2:] = 255
    Image.fromarray(mask_of_b).save(cohort.masks / "shifted.png")
    cohort.splits.write_text("train,val\n,a\n,shifted\n")
    assert "shifted: only 10% of what is positive lies under tiles" in calibrate().err
    fit = read_calibration(tmp_path / "run").fit
    assert fit is not None
    assert len(fit.notes) == 1


def test_other_settings_under_one_name_change_nothing(
    cohort: Any, calibrate: Callable[..., Any], store_digests: Callable[[Path], dict[str, str]]
) -> None:
    assert calibrate().code == 0
    before = store_digests(Path(cohort.store.url))
    for options, named in (
        (("--min-tiles", 3), "morphology.min_tiles: stored 5, asked 3"),
        (("--zscore", "median-mad"), "zscore: stored 'mean-std', asked 'median-mad'"),
    ):
        refused = calibrate(*options)
        assert refused.code == 1
        assert named in refused.err
        assert store_digests(Path(cohort.store.url)) == before
    # a name that only the mask has, or only the scores, is no place for half a result either
    cohort.store["a"].write_raster(
        GRID, "taken", {"mask": _raster(cohort)}, {"made": "up"}
    )  # fmt: skip
    assert calibrate("--name", "taken").code == 1
    assert "taken" not in cohort.store["a"].scores(GRID)
    arrays = {"x": ArraySpec(("tile",), (), "float32")}
    cohort.store["a"].create_tile_group(GRID, "scores", "other", arrays, {"made": "up"})
    assert calibrate("--name", "other").code == 1
    assert "other" not in cohort.store["a"].runs(GRID, "masks")
    replaced = calibrate("--zscore", "median-mad", "--overwrite")
    assert "5 slides written" in replaced.out
    np.testing.assert_array_equal(
        array(cohort, "t", "vae-calibrated", "zscore"),
        zscores(cohort.raw["t"], "median-mad").values,
    )
    assert calibrate("--name", "vae").code == 1  # what is calibrated is not written over
    assert validate(cohort.store)[0].code == "missing-block"  # only of `other`, which is ours


def _raster(cohort: Any) -> Any:
    from store_schema.specs import RasterSpec

    return RasterSpec(("y", "x"), (N, N), "uint8", 32.0), np.zeros((N, N), np.uint8)


def test_a_given_threshold_needs_no_truth(
    cohort: Any, calibrate: Callable[..., Any], tmp_path: Path
) -> None:
    answer = calibrate("--threshold", 1.25, "--min-tiles", 1, "--no-fill-holes", fit=False)
    assert answer.code == 0, answer.err
    assert "threshold: z > 1.250, given" in answer.out
    np.testing.assert_array_equal(
        mask(cohort, "u"), (zscores(cohort.raw["u"]).values > 1.25).reshape(N, N)
    )
    assert not (tmp_path / "run" / "threshold.png").exists()
    other = calibrate(
        "--from", tmp_path / "run", "--run-dir", tmp_path / "x", score="vae/ssim", fit=False
    )
    assert other.code == 1
    assert "calibrates vae/l1, and its threshold says nothing of vae/ssim" in other.err


def test_an_upper_bound_says_so_everywhere(
    cohort: Any, calibrate: Callable[..., Any], slidestream: Callable[..., Any], tmp_path: Path
) -> None:
    arguments = (
        "calibrate", "--store", cohort.store.url, "--score", "vae", "--per-slide-oracle",
        "--truth", cohort.masks, "--run-dir", tmp_path / "run",
    )  # fmt: skip
    answer = slidestream(*arguments)
    assert answer.code == 0, answer.err
    assert "UPPER BOUND" in answer.out
    assert "note: UPPER BOUND" in answer.err
    assert "2 slides have no truth, left out: n, u" in answer.err
    assert cohort.store["t"].raster(GRID, "vae-oracle")["mask"].attrs["upper_bound"] is True
    assert "upper bound" in cohort.store["t"].raster(GRID, "vae-oracle")["mask"].attrs[
        "threshold_chosen_on"
    ]  # fmt: skip
    assert "vae-oracle" not in cohort.store["u"].scores(GRID)
    as_json = json.loads(slidestream(*arguments, "--json").out)
    assert as_json["upper_bound"] is True
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["upper_bound"] is True
    refused = calibrate(
        "--from", tmp_path / "run", "--run-dir", tmp_path / "x", score=None, fit=False
    )
    assert refused.code == 1
    assert "is an upper bound" in refused.err
    # no threshold does better on any slide
    assert calibrate().code == 0
    for slide in "abt":
        truth = cohort.truth[slide].reshape(N, N)
        ious = [
            (m & truth).sum() / (m | truth).sum()
            for m in (mask(cohort, slide, "vae-oracle"), mask(cohort, slide))
        ]
        assert ious[0] >= ious[1]


def test_bad_slides_are_named_and_stop_no_other(
    cohort: Any, calibrate: Callable[..., Any], add_slide: Callable[..., None]
) -> None:
    everywhere_nan = np.full(N * N, np.nan, np.float32)
    add_slide(cohort.store, "nan", everywhere_nan)
    partly = cohort.raw["t"].copy()
    partly[:7] = np.nan
    add_slide(cohort.store, "partly", partly)
    one = np.zeros((N, N), bool)
    one[3, 4] = True
    add_slide(cohort.store, "one", np.array([0.3], np.float32), has_tile=one)
    add_slide(cohort.store, "none", np.empty(0, np.float32), has_tile=np.zeros((N, N), bool))
    add_slide(cohort.store, "flat", np.full(N * N, 0.1, np.float32))
    add_slide(cohort.store, "other", cohort.raw["t"], model={"weights": "beef"})
    add_slide(
        cohort.store, "gpu", cohort.raw["t"], model={"weights": "c0ffee", "precision": "bf16"}
    )
    answer = calibrate()
    assert answer.code == 1
    assert "slide nan have no finite number in 144 tiles" in answer.err
    assert (
        "failed: other: scores vae were made otherwise than those that the threshold was chosen on (other "
        "model.weights): " in answer.err
    )
    assert "10 slides written, 0 were there, 2 failed" in answer.out
    assert "7 tiles of 1 slide without a finite score, never flagged: partly" in answer.err
    assert "so that all z-scores are 0): 2 slides: flat, one" in answer.err
    assert "tiny" in answer.err
    for slide in ("nan", "other"):
        assert "vae-calibrated" not in cohort.store[slide].scores(GRID)
        assert "vae-calibrated" not in cohort.store[slide].runs(GRID, "masks")
    assert array(cohort, "one", "vae-calibrated", "zscore").tolist() == [0.0]
    assert not mask(cohort, "flat").any()
    assert np.isnan(array(cohort, "partly", "vae-calibrated", "zscore")).sum() == 7
    assert validate(cohort.store) == []


def test_scores_of_another_model_are_refused_in_one_line(
    cohort: Any,
    calibrate: Callable[..., Any],
    add_slide: Callable[..., None],
    slidestream: Callable[..., Any],
    tmp_path: Path,
) -> None:
    assert calibrate().code == 0
    for slide in ("x", "y", "z"):
        add_slide(cohort.store, slide, cohort.raw["t"], model={"weights": "beef"})
    named = [part for slide in ("x", "y", "z") for part in ("--slides", slide)]
    answer = slidestream(
        "calibrate", "--store", cohort.store.url, "--from", tmp_path / "run", *named, "--name", "again",
        "--run-dir", tmp_path / "again",
    )  # fmt: skip
    assert answer.code == 1
    failed = [line for line in answer.err.splitlines() if line.startswith("failed")]
    assert len(failed) == 1
    assert failed[0].startswith("failed: 3 slides (x, y, z): scores vae were made otherwise")
    assert "beef" not in failed[0]


def test_a_fit_that_can_not_be_trusted_writes_nothing(
    cohort: Any,
    calibrate: Callable[..., Any],
    add_slide: Callable[..., None],
    tmp_path: Path,
    store_digests: Callable[[Path], dict[str, str]],
) -> None:
    add_slide(cohort.store, "nan", np.full(N * N, np.nan, np.float32))
    add_slide(cohort.store, "other", cohort.raw["t"], model={"weights": "beef"})
    before = store_digests(Path(cohort.store.url))

    def refused(splits: str, *options: object) -> str:
        cohort.splits.write_text(splits)
        answer = calibrate(*options)
        assert answer.code == 1
        assert store_digests(Path(cohort.store.url)) == before
        assert not (tmp_path / "run").exists()
        return str(answer.err)

    shutil.copy(cohort.masks / "a.png", cohort.masks / "nan.png")
    assert "slide nan have no finite number" in refused("train,val\n,a\n,nan\n")
    assert "of another model or stain" in refused("train,val\n,a\n,other\n")
    assert "none of the 1 val slides" in refused("train,val\n,gone\n")
    assert "has a positive tile" in refused("train,val\n,n\n", "--without-truth", "negative")
    assert "name 1 slides twice (a)" in refused("train,val,test\n,a,a\n")
    assert "columns train, val" in refused("slide\na\n")
    (cohort.masks / "a.png").write_bytes(b"no picture")
    assert "can't be read as an image" in refused("train,val\n,a\n")


def test_an_upper_bound_of_slides_without_any_truth_is_refused(
    cohort: Any, slidestream: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    shutil.copy(cohort.masks / "a.png", tmp_path / "others" / "of_another_slide.png")
    answer = slidestream(
        "calibrate", "--store", cohort.store.url, "--score", "vae", "--per-slide-oracle",
        "--truth", tmp_path / "others", "--run-dir", tmp_path / "run",
    )  # fmt: skip
    assert answer.code == 1
    assert "none of the 5 slides has a truth, so nothing was written" in answer.err
    assert "vae-oracle" not in cohort.store["a"].scores(GRID)


def test_options_that_make_no_sense_together(
    calibrate: Callable[..., Any], cohort: Any, tmp_path: Path
) -> None:
    for answer, named in (
        (calibrate(fit=False), "Say once where the threshold comes from"),
        (calibrate("--threshold", 1), "(not --splits and --threshold)"),
        (calibrate("--splits", cohort.splits, fit=False), "--splits needs --truth"),
        (calibrate("--per-slide-oracle", fit=False), "--per-slide-oracle needs --truth"),
        (calibrate("--threshold", 1, "--truth", "x", fit=False), "looks at no --truth"),
        (calibrate("--threshold", 1, "--metric", "f1", fit=False), "no --metric chooses it"),
        (calibrate("--from", tmp_path, "--min-tiles", 2, fit=False), "leave out --min-tiles"),
        (calibrate("--threshold", "nan", fit=False), "no number"),
        (calibrate("--fit-split", "test"), "'test' is not one of 'val', 'train'"),
        (calibrate("--threshold", 1, score=None, fit=False), "--score"),
    ):
        assert answer.code == 2
        assert named in answer.err


def test_a_calibration_that_was_edited_is_refused(
    calibrate: Callable[..., Any], tmp_path: Path
) -> None:
    assert calibrate().code == 0
    path = tmp_path / "run" / "calibration.json"
    sound = json.loads(path.read_text())
    assert read_calibration(tmp_path / "run").to_json() == sound
    morphology = sound["morphology"]
    edits: list[dict[str, Any]] = [
        {"threshold": "high"},
        {"threshold": float("nan")},
        {"zscore": "rank"},
        {"morphology": {}},
        {"morphology": {**morphology, "connectivity": 6}},
        {"morphology": {**morphology, "opening": -1}},
        {"metric": "auc"},
        {"kind": "vae"},
        {"fit": {"split": "val"}},
        {"score": None},
    ]
    for changes in edits:
        path.write_text(json.dumps({**sound, **changes}))
        with pytest.raises(InputError, match="calibrate again"):
            read_calibration(tmp_path / "run")
    path.write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        read_calibration(tmp_path / "run")
    with pytest.raises(InputError, match="give the folder of a run"):
        read_calibration(tmp_path / "nowhere")


def test_masks_of_overlapping_tiles_lie_on_their_middles(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s.zarr")
    slide = store.add_slide(SlideRecord("s", "s.tif", "f", "t", 400, 300, 0.5, "user"))
    nought = np.zeros(1, np.int32)
    table = TileTable(nought, nought, nought, nought, np.ones(1, np.float32))
    for stride_px, geometry, origin in (
        (96, GridGeometry(93, 93.312, 3, 4), (0.0, 0.0)),
        (32, GridGeometry(96, 32.0, 7, 10), (32.0, 32.0)),
    ):
        spec = GridSpec(tile_px=96, mpp=0.5, stride_px=stride_px)
        slide.create_grid(spec, geometry, table, {"stride": stride_px})
        place = LatticePlace.of(slide, spec.name)
        assert place.shape == (geometry.n_rows, geometry.n_cols)
        assert place.px_level0 == geometry.stride_level0
        assert place.origin_level0 == origin


def test_a_run_that_is_not_there(cohort: Any, slidestream: Callable[..., Any]) -> None:
    answer = slidestream(
        "calibrate", "--store", cohort.store.url, "--score", "wae", "--threshold", 1
    )
    assert answer.code == 1
    assert "did you mean vae" in answer.err
