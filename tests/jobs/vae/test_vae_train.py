"""``vae train`` from tiles to checkpoint: what it leaves, how it goes on, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from jobs.training.history import read_history
from jobs.training.stain_settings import StainSettings
from jobs.vae import train as train_module
from jobs.vae.config import OriginSettings
from jobs.vae.train import train_vae
from models.vae_checkpoint import load_vae
from store_schema.errors import InputError, SettingsConflictError

Slidestream = Callable[..., Any]


def test_a_training_leaves_its_model_metrics_and_pictures(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    tiles = metrics["tiles"]
    assert (tiles["read"], tiles["without_colour"], tiles["kept"]) == (256, 32, 224)
    assert tiles["train"] + tiles["val"] == 224
    assert tiles["split_by"] == "patient"
    assert metrics["epoch"]["trained"] == len(read_history(trained)) == 2
    assert metrics["best"]["val_loss"] == metrics["epoch"]["value"]
    assert metrics["latent"] == [8, 1, 1]
    model, description = load_vae(trained / "model.safetensors")
    assert description["mpp"] == 0.972
    assert description["tile_px"] == 32
    assert description["stain"]["method"] == "macenko"
    assert description["stain"]["fit"] == "slide"
    on = description["trained_on"]
    assert sorted(on["train_slides"] + on["val_slides"]) == ["n0", "n1", "n2", "n3"]
    assert {"n0", "n1"} <= set(on["train_slides"]) or {"n0", "n1"} <= set(on["val_slides"])
    np.testing.assert_allclose(model.pixel_mean.numpy(), metrics["pixels"]["mean"])
    assert 0.2 < model.pixel_mean.mean() < 0.9
    for name in ("epoch_0001", "epoch_0002", "curves", "reconstructions"):
        with Image.open(trained / "plots" / f"{name}.png") as picture:
            assert picture.size[0] > 300
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["command"] == "vae train"
    assert config["inputs"]["slides"]["n2"]["tumour_tiles"] == 0


def test_stopped_and_resumed_ends_in_the_same_bits(
    cohort: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "save_examples", stop)
    with pytest.raises(KeyboardInterrupt):
        train_vae(cohort.config(tmp_path / "run"), quiet=True)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "metrics.json").exists()
    prepared = (tmp_path / "run" / "tiles.npy").stat().st_mtime_ns

    metrics = train_vae(cohort.config(tmp_path / "run"), quiet=True)

    assert metrics["resumed_from_epoch"] == 1
    assert (tmp_path / "run" / "tiles.npy").stat().st_mtime_ns == prepared
    for name in ("model.safetensors", "tiles.npy", "tiles.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes(), name
    again = train_vae(cohort.config(tmp_path / "run"), quiet=True)
    assert again == metrics
    with pytest.raises(SettingsConflictError, match=r"common\.fit\.seed was 0 and is now 1"):
        train_vae(cohort.config(tmp_path / "run", seed=1), quiet=True)
    with pytest.raises(
        SettingsConflictError, match=r"stain\.method was 'macenko' and is now 'none'"
    ):
        train_vae(cohort.config(tmp_path / "run", stain=StainSettings("none")), quiet=True)


def test_folders_and_pcam_train_too(
    cohort: Any, tmp_path: Path, write_pcam: Callable[..., tuple[Path, Path]]
) -> None:
    x, y = write_pcam(tmp_path, [0, 0, 1, 0, 0, 0, 1, 0])
    origin = OriginSettings(pcam=(str(x), str(y)), allow_other_grid=True)
    metrics = train_vae(cohort.config(tmp_path / "pcam", origin=origin, epochs=1), quiet=True)
    assert metrics["tiles"]["read"] == 6
    assert metrics["tiles"]["notes"] == ["2 tiles that are not labelled 0 were left out"]
    assert metrics["tiles"]["split_by"] == "tile"
    _, description = load_vae(tmp_path / "pcam" / "model.safetensors")
    assert (description["mpp"], description["stain"]["fit"]) == (0.972, "tile")
    assert description["trained_on"]["train_slides"] == []

    images = tmp_path / "images"
    images.mkdir()
    import h5py

    with h5py.File(x) as file:
        for number, tile in enumerate(file["x"][()]):
            Image.fromarray(tile).save(images / f"{number}.png")
    origin = OriginSettings(images=str(images), allow_other_grid=True)
    metrics = train_vae(cohort.config(tmp_path / "folder", origin=origin, epochs=1), quiet=True)
    assert metrics["tiles"]["read"] == 8
    assert load_vae(tmp_path / "folder" / "model.safetensors")[1]["mpp"] is None
    with pytest.raises(InputError, match="--stain-fit slide needs slides"):
        train_vae(
            cohort.config(tmp_path / "x", origin=origin, stain=StainSettings(fit="slide")),
            quiet=True,
        )


def test_one_tile_is_too_few(cohort: Any, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (32, 32), (200, 100, 150)).save(images / "only.png")
    origin = OriginSettings(images=str(images), allow_other_grid=True)
    with pytest.raises(InputError, match="There is 1 tile to learn from"):
        train_vae(cohort.config(tmp_path / "run", origin=origin), quiet=True)


def test_from_the_command_line(slidestream: Slidestream, cohort: Any, tmp_path: Path) -> None:
    command = (
        "vae", "train", "--store", cohort.store, "--labels", cohort.labels, "--slides", "n2",
        "--epochs", "1", "--batch-size", "32", "--threads", "1", "--device", "cpu", "--run-dir", tmp_path / "run",
    )  # fmt: skip
    refused = slidestream(*command)
    assert refused.code == 1
    assert (
        "tiles of 32 px at 0.972 µm/px, and the VAE is for tiles of 96 px at 0.972" in refused.err
    )
    assert not (tmp_path / "run").exists()

    answer = slidestream(*command, "--allow-other-grid")

    assert answer.code == 0, answer.err
    assert (
        "64 of 64 (0 without colour), 54 to train and 10 to validate, split by tile" in answer.out
    )
    assert "all tiles are of one slide or patient" in answer.out
    assert "epoch 1/1 (best): train loss" in answer.err
    summary = json.loads(slidestream(*command, "--allow-other-grid", "--json").out)
    assert summary["status"] == "finished"


def test_presets_and_what_wins_over_them() -> None:
    import click

    from jobs.vae.train_command import config_of, train

    def config(*arguments: str) -> Any:
        context: click.Context = train.make_context("train", ["--images", "folder", *arguments])
        return config_of(context.params)

    default, b1, b2 = config(), config("--preset", "b1"), config("--preset", "b2")
    assert (default.common.fit.patience, b1.common.fit.patience, b2.common.fit.patience) == (
        5,
        None,
        5,
    )
    assert (b1.training.loss.beta, b2.training.loss.beta) == (1.0, 0.5)
    assert (b1.training.loss.capacity, b2.training.loss.capacity) == (120, 200)
    assert (b1.network.skip_dropout, b2.network.skip_dropout) == (0.25, 0.5)
    assert default.network == b1.network
    assert default.training == b1.training
    given = config("--preset", "b2", "--beta", "0", "--patience", "0", "--skip-levels", "0")
    assert (given.training.loss.beta, given.common.fit.patience, given.network.skip_levels) == (
        0,
        None,
        0,
    )
    assert given.training.loss.capacity == 200
