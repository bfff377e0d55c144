"""``vae score`` and ``vae finetune``: trained models on the tiles of a store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dataflow.discover import SlideSource
from dataflow.index import index_slide
from dataflow.pyramid_tiff import write_pyramid
from dataflow.stream_spec import IndexSpec
from dataflow.tissue import TissueSpec
from jobs.evaluation.model_split import split_of
from jobs.training.stain_settings import StainSettings
from jobs.vae.config import OriginSettings, TrainingSettings, VaeFinetuneConfig
from jobs.vae.finetune import finetune_vae
from models.checkpoint import save_model
from models.fit_spec import FitSpec
from models.tile_head import TileHeadConfig
from models.tile_head_training import TileHeadTrainingSpec
from store_schema.errors import InputError, ModelError
from store_schema.specs import GridSpec
from store_schema.store import open_store

Slidestream = Callable[..., Any]
Digests = Callable[[Path], Mapping[str, str]]


@pytest.fixture
def score(slidestream: Slidestream, scheduler: str, cohort: Any) -> Callable[..., Any]:
    """Return a function: run, further arguments → the answer of ``vae score`` on the cohort."""

    def call(run: Path, *more: object) -> Any:
        return slidestream(
            "vae", "score", "--run", run, "--store", cohort.store, "--scheduler", scheduler, *more
        )

    return call


def test_every_tile_gets_its_scores(
    score: Callable[..., Any], cohort: Any, trained: Path, store_digests: Digests
) -> None:
    answer = score(trained, "--name", "vae", "--map-px", 4, "--json")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    assert summary["command"] == "vae score"
    assert summary["scores"] == "vae"
    assert summary["tiles"]["done"] == 6 * 64
    assert summary["stain_methods"] == {"macenko": 6 * 64}
    tiles = open_store(cohort.store)["t0"].tiles(cohort.grid, scores="vae")
    for name in ("l1", "l2", "ssim", "kl"):
        assert np.isfinite(tiles[name].values).all()
        assert tiles[name].values.std() > 0
    np.testing.assert_allclose(
        tiles["error_map"].values.astype(float).mean(axis=(1, 2)), tiles["l1"], rtol=2e-3
    )
    before = store_digests(Path(cohort.store))
    again = json.loads(score(trained, "--name", "vae", "--map-px", 4, "--json").out)
    assert again["tiles"]["done"] == 0
    assert store_digests(Path(cohort.store)) == before
    other = score(trained, "--name", "vae")
    assert other.code == 1
    assert other.out.count("failed   ") == 1
    assert "failed   6 slides (" in other.out
    assert (
        " [settings-conflict]: scores/vae was made with --map-px 4, and is asked for with no --map-px: pass "
        "--overwrite to replace it, or choose another name" in other.out
    )
    assert summary["maps"] == {"error_map": {"side_px": 4, "px_um": 32 * 0.972 / 4}}
    assert (
        len(tiles["error_map"][3].to_dataframe()) == 16
    )  # x and y of the tile don't clash with the map's
    text = score(trained, "--name", "vae", "--map-px", 4)
    assert "maps     error_map: 4 x 4 values a tile, 7.78 µm each" in text.out
    text = score(trained, "--name", "vae", "--overwrite")
    assert text.code == 0
    assert "maps" not in text.out
    assert "384 scored now of 384" in text.out


def test_scores_are_those_of_the_model_on_normalized_tiles(
    score: Callable[..., Any], cohort: Any, trained: Path
) -> None:
    """The tiles of the training that lie in the run's directory, put through the model by hand."""
    from models.vae_checkpoint import load_vae

    assert score(trained, "--name", "vae", "--precision", "fp32").code == 0
    stored = open_store(cohort.store)["n2"].tiles(cohort.grid, scores="vae")
    pixels = np.load(trained / "tiles.npy", mmap_mode="r")[128:192]
    model, _ = load_vae(trained / "model.safetensors")
    with torch.no_grad():
        x = model.normalize(torch.from_numpy(np.array(pixels)))
        error = (model(x).reconstruction - x).abs().mean((1, 2, 3))
    np.testing.assert_allclose(stored["l1"].values, error.numpy(), rtol=1e-4)


def test_slides_are_chosen_by_id(
    score: Callable[..., Any], cohort: Any, trained: Path, tmp_path: Path
) -> None:
    answer = score(trained, "--name", "few", "--slides", "t1", "--slides", "n0", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["slides"]["asked"] == 2
    store = open_store(cohort.store)
    assert [i for i in store.slides if store[i].scores(cohort.grid)] == ["n0", "t1"]
    unknown = score(trained, "--name", "few", "--slides", "t1x")
    assert unknown.code == 1
    assert "has no slide 't1x': did you mean t1?" in unknown.err
    # files say where slides are now, ids which of them are scored
    for slide_id in ("t0", "t1"):
        shutil.copy(Path(cohort.slides) / f"{slide_id}.tif", tmp_path / f"{slide_id}.tif")
    moved = score(trained, tmp_path, "--name", "moved", "--slides", "t0", "--json")
    assert moved.code == 0, moved.err
    assert [i for i in store.slides if "moved" in store[i].scores(cohort.grid)] == ["t0"]


def test_scores_repeat_what_is_wrong_with_their_model(
    score: Callable[..., Any], cohort: Any, trained: Path, tmp_path: Path
) -> None:
    run = with_warning(trained, tmp_path / "vae", "posterior collapse: nothing varies")
    said = score(run, "--slides", "t0", "--run-dir", tmp_path / "scored")
    assert said.code == 0, said.err
    assert "warning  of the model: posterior collapse: nothing varies" in said.out
    assert "posterior collapse" in (tmp_path / "scored" / "run.log").read_text()
    finetune_vae(head_config(cohort, run, tmp_path / "head"), quiet=True)
    head = json.loads(score(tmp_path / "head", "--slides", "t0", "--json").out)
    assert head["warnings"][0] == "of the VAE: posterior collapse: nothing varies"
    assert json.loads(score(trained, "--slides", "t1", "--json").out)["warnings"] == []


def test_scores_say_which_slides_their_model_was_trained_with(
    score: Callable[..., Any], slidestream: Slidestream, cohort: Any, trained: Path, tmp_path: Path
) -> None:
    """Those of the VAE too where a head stands on it, and wherever calibrated scores were made of them."""
    assert score(trained, "--name", "vae").code == 0
    finetune_vae(head_config(cohort, trained, tmp_path / "head"), quiet=True)
    assert score(tmp_path / "head", "--name", "head").code == 0
    call = ("--store", cohort.store, "--score", "vae/l1", "--threshold", 1, "--name", "calibrated")
    assert slidestream("calibrate", *call).code == 0
    of_vae, of_head = (
        json.loads((run / "model.json").read_text())["trained_on"]
        for run in (trained, tmp_path / "head")
    )
    store = open_store(cohort.store)
    found = {
        run: {i: split_of(store[i], cohort.grid, run) for i in store.slides}
        for run in ("vae", "head", "calibrated")
    }
    assert {i for i, part in found["vae"].items() if part == "train"} == set(of_vae["train_slides"])
    assert {i for i, part in found["vae"].items() if part == "val"} == set(of_vae["val_slides"])
    assert "" in found["vae"].values()
    assert found["calibrated"] == found["vae"]
    learned = {i for i, part in found["head"].items() if part == "train"}
    assert learned == {*of_vae["train_slides"], *of_head["train_slides"]}
    assert learned > set(of_vae["train_slides"])
    assert score(trained, "--name", "vae", "--overwrite", "--map-px", 4).code == 0
    assert split_of(store["n0"], cohort.grid, "calibrated") is None  # made of what is gone


def test_a_slide_of_one_tile_is_scored(
    score: Callable[..., Any], cohort: Any, trained: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    write_pyramid(
        tmp_path / "one.tif", rng.integers(60, 250, (32, 32, 3), np.uint8), 0.972, downsamples=(1,)
    )
    spec = GridSpec(**open_store(cohort.store)["n0"].grid_attrs(cohort.grid)["spec"])
    index = IndexSpec(spec, TissueSpec("none"), block_tiles=16)
    source = SlideSource("one", str(tmp_path / "one.tif"))
    index_slide(open_store(cohort.store, mode="r+"), index, source)

    answer = score(trained, tmp_path / "one.tif", "--name", "vae")

    assert answer.code == 0, answer.err
    tiles = open_store(cohort.store)["one"].tiles(cohort.grid, scores="vae")
    assert tiles["l1"].shape == (1,)
    assert np.isfinite(tiles["l1"].values).all()


def test_another_stain_or_grid_is_refused_unless_told(
    score: Callable[..., Any], cohort: Any, trained: Path, slidestream: Slidestream, scheduler: str
) -> None:
    refused = score(trained, "--stain", "none")
    assert refused.code == 1
    assert "macenko normalization per slide to the target default" in refused.err
    assert "--allow-other-stain" in refused.err
    assert score(trained, "--stain", "macenko", "--dry-run").code == 0  # what it was trained on
    assert score(trained, "--stain", "none", "--allow-other-stain", "--name", "plain").code == 0
    tiles = open_store(cohort.store)["n0"].tiles(cohort.grid, scores="plain")
    assert set(tiles["stain_method"].values) == {0}

    for tile_px, mpp in ((64, 0.972), (32, 1.5)):
        indexed = slidestream(
            "index", cohort.slides, "--store", cohort.store, "--tile-px", tile_px, "--mpp", mpp,
            "--tissue", "none", "--no-qc", "--scheduler", scheduler,
        )  # fmt: skip
        assert indexed.code == 0, indexed.err
    several = score(trained)
    assert several.code == 1
    assert "name one with --grid" in several.err
    large = score(trained, "--grid", "64px_0.972mpp", "--allow-other-grid")
    assert large.code == 1
    assert "has tiles of 64 px" in large.err
    assert "--tile-px 32 --mpp 0.972" in large.err
    coarse = score(trained, "--grid", "32px_1.500mpp")
    assert coarse.code == 1
    assert "--allow-other-grid" in coarse.err
    assert score(trained, "--grid", "32px_1.500mpp", "--allow-other-grid").code == 0
    assert open_store(cohort.store)["n0"].scores("32px_1.500mpp") == {"vae": (1, 1)}


def test_what_is_no_vae_is_refused(
    score: Callable[..., Any], cohort: Any, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "mil").mkdir()
    save_model(tmp_path / "mil" / "model.safetensors", torch.nn.Linear(2, 2), {"kind": "mil"})
    (tmp_path / "empty").mkdir()
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "last.safetensors").touch()
    description = json.loads((trained / "model.json").read_text())
    description["config"]["rungs"] = 5
    (tmp_path / "other").mkdir()
    weights = (trained / "model.safetensors").read_bytes()
    (tmp_path / "other" / "model.safetensors").write_bytes(weights)
    (tmp_path / "other" / "model.json").write_text(json.dumps(description))
    for run, words in (
        ("mil", "is a model of kind 'mil'"),
        ("empty", "has no trained model"),
        ("stopped", "is not finished"),
        ("nowhere", "There is no checkpoint at"),
        ("other", "of another architecture"),
    ):
        answer = score(tmp_path / run)
        assert answer.code == 1, run
        assert words in answer.err
        assert len(answer.err.strip().splitlines()) == 1
    assert not any(open_store(cohort.store)[i].scores(cohort.grid) for i in ("n0", "t0"))


def test_a_model_that_does_not_fit_leaves_stored_scores_alone(
    score: Callable[..., Any],
    cohort: Any,
    trained: Path,
    tmp_path: Path,
    store_digests: Digests,
) -> None:
    assert score(trained, "--name", "vae").code == 0
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    description = json.loads((other / "model.json").read_text())
    description["config"]["latent_channels"] += 1
    (other / "model.json").write_text(json.dumps(description))
    before = store_digests(Path(cohort.store))
    answer = score(other, "--name", "vae", "--overwrite")
    assert answer.code == 1
    assert "does not fit VaeSkip96" in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert store_digests(Path(cohort.store)) == before


def test_a_job_that_is_handed_over_scores_too(
    score: Callable[..., Any], cohort: Any, trained: Path, slidestream: Slidestream, scheduler: str
) -> None:
    answer = score(trained, "--name", "later", "--detach", "--json")
    assert answer.code == 0, answer.err
    job = json.loads(answer.out)["job"]
    waited = slidestream("jobs", "wait", job, "--scheduler", scheduler, "--timeout", 120)
    assert waited.code == 0, waited.out
    assert open_store(cohort.store)["t1"].scores(cohort.grid)["later"] == (4, 4)


def head_config(cohort: Any, run: Path, run_dir: Path, **changes: Any) -> VaeFinetuneConfig:
    origin: OriginSettings = changes.pop("origin", cohort.origin(truth=str(cohort.masks)))
    fit = FitSpec(epochs=24, lr=3e-2, device="cpu", threads=1)
    common = TrainingSettings(
        origin, changes.pop("stain", StainSettings()), fit, val_fraction=0.4, run_dir=str(run_dir)
    )
    return VaeFinetuneConfig(
        common, str(run), TileHeadConfig(hidden=16), TileHeadTrainingSpec(batch_size=32), **changes
    )


def test_a_head_learns_from_truth_and_scores_like_any_other(
    score: Callable[..., Any], cohort: Any, trained: Path, tmp_path: Path
) -> None:
    metrics = finetune_vae(head_config(cohort, trained, tmp_path / "head"), quiet=True)
    tiles = metrics["tiles"]
    assert tiles["train_tumour"] == tiles["val_tumour"] == 32  # a slide on either side
    assert metrics["best"]["val_auc"] > 0.9
    assert (tmp_path / "head" / "plots" / "curves.png").is_file()
    vae, head = (load_file(run / "model.safetensors") for run in (trained, tmp_path / "head"))
    assert all(torch.equal(head[f"vae.{name}"], tensor) for name, tensor in vae.items())
    assert finetune_vae(head_config(cohort, trained, tmp_path / "head"), quiet=True) == metrics

    answer = score(tmp_path / "head", "--name", "head")

    assert answer.code == 0, answer.err
    tiles = open_store(cohort.store)["t0"].tiles(cohort.grid, scores="head")
    p = tiles["probability"].values
    tumour = tiles["x"].values < 128
    assert p[tumour].mean() > p[~tumour].mean()
    with pytest.raises(ModelError, match=r"tile classifier .*: give a VAE"):
        finetune_vae(head_config(cohort, tmp_path / "head", tmp_path / "again"), quiet=True)


def with_warning(trained: Path, run: Path, warning: str) -> Path:
    """Return a run directory of the same VAE, whose training has warned."""
    run.mkdir()
    (run / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    description = json.loads((trained / "model.json").read_text())
    assert "warnings" in description["trained_on"]
    description["trained_on"]["warnings"] = [warning]
    (run / "model.json").write_text(json.dumps(description))
    return run


def test_a_head_says_what_is_wrong_with_its_vae(cohort: Any, trained: Path, tmp_path: Path) -> None:
    run = with_warning(trained, tmp_path / "vae", "posterior collapse: nothing varies")
    metrics = finetune_vae(head_config(cohort, run, tmp_path / "head"), quiet=True)
    assert metrics["warnings"][0]["message"] == "of the VAE: posterior collapse: nothing varies"
    assert "of the VAE: posterior" in (tmp_path / "head" / "run.log").read_text()


def test_a_head_of_pcam_labels(
    cohort: Any, trained: Path, tmp_path: Path, write_pcam: Callable[..., tuple[Path, Path]]
) -> None:
    x, y = write_pcam(tmp_path, [0, 1] * 10)
    origin = OriginSettings(pcam=(str(x), str(y)))
    config = head_config(cohort, trained, tmp_path / "head", origin=origin)
    with pytest.raises(InputError, match=r"normalized slide by slide.*--stain-fit tile"):
        finetune_vae(config, quiet=True)
    stain = StainSettings(fit="tile")
    config = head_config(
        cohort, trained, tmp_path / "head", origin=origin, stain=stain, allow_other_stain=True
    )
    metrics = finetune_vae(config, quiet=True)
    assert metrics["tiles"]["read"] == 20
    assert json.loads((tmp_path / "head" / "model.json").read_text())["stain"]["fit"] == "tile"


def test_finetune_from_the_command_line(
    slidestream: Slidestream, cohort: Any, trained: Path, tmp_path: Path
) -> None:
    command = (
        "vae", "finetune", "--run", trained, "--store", cohort.store, "--labels", cohort.labels,
        "--epochs", 1, "--val-fraction", 0.4, "--threads", 1, "--run-dir", tmp_path / "head",
    )  # fmt: skip
    refused = slidestream(*command)
    assert refused.code == 1
    assert "give --truth" in refused.err
    answer = slidestream(*command, "--truth", cohort.masks)
    assert answer.code == 0, answer.err
    assert "; 64 of tumour" in answer.out
    assert "AUC 0." in answer.out or "AUC 1." in answer.out
