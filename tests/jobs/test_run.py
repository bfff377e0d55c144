"""run, index and encode, end to end on a real cluster."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from jobs.detached import get_job, submit
from jobs.run_config import RunConfig
from store_schema import open_store

GRID = "64px_0.500mpp"
FEATURES = "timm-test_resnet-random0"
SMALL = [
    "--tile-px", 64, "--mpp", 0.5, "--block-tiles", 32, "--batch-size", 8, "--resize", "none",
]  # fmt: skip
ENCODER = ["--encoder", "timm:test_resnet", "--random-weights"]


class Answer(Protocol):
    code: int
    out: str
    err: str


Call = Callable[..., Answer]
Digests = Callable[[Path], dict[str, str]]


@pytest.fixture
def run(slidestream: Call, scheduler: str, slides: Path) -> Callable[..., tuple[int, Any]]:
    """Return a function: ``slidestream run`` with small tiles → exit code and JSON summary."""

    def call(store: Path, *more: object, only: Path | None = None) -> tuple[int, Any]:
        answer = slidestream(
            "run", only or slides, "--store", store, *SMALL, *ENCODER, "--scheduler", scheduler,
            "--json", *more,
        )  # fmt: skip
        return answer.code, json.loads(answer.out) if answer.out else answer.err

    return call


Run = Callable[..., tuple[int, Any]]


def test_slides_go_in_and_a_store_comes_out(run: Run, tmp_path: Path) -> None:
    store_path = tmp_path / "s.zarr"

    code, summary = run(store_path, "--stain", "macenko")

    assert code == 0, summary
    assert summary["slides"] == {
        "asked": 3,
        "complete": 3,
        "failed": 0,
        "interrupted": 0,
        "not_started": 0,
    }
    assert summary["stain_methods"] == {"macenko": summary["tiles"]["done"]}
    assert set(summary["stage_seconds"]) == {"index", "read", "normalize", "model", "write"}
    store = open_store(store_path)
    tiles = store["a"].tiles(GRID)
    assert tiles.sizes["tile"] > 100
    features = tiles["features"].to_numpy()
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0
    plain = xr.open_datatree(store_path, engine="zarr", consolidated=False)
    np.testing.assert_array_equal(plain[f"a/{GRID}/features/{FEATURES}"]["features"], features)
    assert (tmp_path / "s_qc" / GRID / "a.png").is_file()
    metrics = json.loads((Path(summary["run_dir"]) / "metrics.json").read_text())
    assert metrics == summary
    assert (Path(summary["run_dir"]) / "config.yaml").is_file()
    assert "complete" in (Path(summary["run_dir"]) / "run.log").read_text()


def test_features_are_those_of_the_tile_at_that_place(
    run: Run, slides: Path, tmp_path: Path
) -> None:
    """What the stream stored is what the encoder gives for the pixels read again at the coordinate."""
    import torch

    from models.encoder import EncoderFactory, EncoderSpec

    code, summary = run(tmp_path / "s.zarr")
    assert code == 0, summary
    tiles = open_store(tmp_path / "s.zarr")["b"].tiles(GRID)
    chosen = tiles.isel(tile=[5, 50, -1])
    model = EncoderFactory(
        EncoderSpec("timm:test_resnet", random_weights=True, resize="none", dtype="float32")
    ).load()
    again = model(torch.from_numpy(chosen.tiles.pixels().to_numpy()))["features"]
    np.testing.assert_allclose(
        chosen["features"].to_numpy().astype(np.float32),
        again.astype(np.float32),
        rtol=2e-3,
        atol=1e-3,
    )


def test_the_same_again_does_nothing(run: Run, tmp_path: Path, store_digests: Digests) -> None:
    run(tmp_path / "s.zarr")
    before = store_digests(tmp_path / "s.zarr")

    code, summary = run(tmp_path / "s.zarr")

    assert code == 0
    assert summary["blocks"]["done"] == 0
    assert summary["blocks"]["already_stored"] == summary["blocks"]["total"] > 0
    assert store_digests(tmp_path / "s.zarr") == before


def test_index_and_encode_are_the_halves_of_run(
    run: Run,
    slidestream: Call,
    scheduler: str,
    slides: Path,
    tmp_path: Path,
    store_digests: Digests,
) -> None:
    run(tmp_path / "whole.zarr", "--stain", "reinhard")
    halves = tmp_path / "halves.zarr"
    index = slidestream("index", slides, "--store", halves, *SMALL[:6], "--scheduler", scheduler)
    assert index.code == 0, index.err
    assert not list(halves.rglob("features"))

    encode = slidestream(
        "encode", "--store", halves, *SMALL[6:], *ENCODER, "--stain", "reinhard",
        "--scheduler", scheduler,
    )  # fmt: skip

    assert encode.code == 0, encode.err
    assert store_digests(halves) == store_digests(tmp_path / "whole.zarr")


def test_damaged_and_lost_blocks_are_done_again(
    run: Run, tmp_path: Path, store_digests: Digests
) -> None:
    store = tmp_path / "s.zarr"
    run(store)
    before = store_digests(store)
    blocks = sorted((store / "a" / GRID / "features" / FEATURES / "features" / "c").glob("*/0"))
    flipped = bytearray(blocks[0].read_bytes())
    flipped[100] ^= 1
    blocks[0].write_bytes(flipped)
    blocks[1].unlink()

    code, summary = run(store)

    assert code == 0
    assert summary["blocks"]["done"] == 2
    assert store_digests(store) == before


def test_other_settings_under_the_same_name_are_refused_by_name(
    run: Run, tmp_path: Path, store_digests: Digests
) -> None:
    run(tmp_path / "s.zarr")
    before = store_digests(tmp_path / "s.zarr")

    code, summary = run(tmp_path / "s.zarr", "--stain", "macenko")

    assert code == 1
    assert summary["failures_by_reason"] == {"settings-conflict": 3}
    assert (
        "--stain none, and is asked for with --stain macenko" in summary["failures"][0]["message"]
    )
    assert "--overwrite" in summary["failures"][0]["message"]
    assert store_digests(tmp_path / "s.zarr") == before

    code, summary = run(tmp_path / "s.zarr", "--stain", "macenko", "--features-name", "stained")
    assert code == 0
    code, summary = run(tmp_path / "s.zarr", "--stain", "macenko", "--overwrite")
    assert code == 0
    assert summary["blocks"]["already_stored"] == 0
    tiles = open_store(tmp_path / "s.zarr")["a"]
    np.testing.assert_array_equal(
        tiles.tiles(GRID, features="stained")["features"],
        tiles.tiles(GRID, features=FEATURES)["features"],
    )


def test_a_bad_slide_is_reported_and_the_rest_is_done(
    run: Run, slides: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(slides, folder)
    (folder / "empty.svs").touch()
    (folder / "text.tif").write_text("not a slide")
    (folder / "cut.tif").write_bytes((slides / "a.tif").read_bytes()[:3000])

    code, summary = run(tmp_path / "s.zarr", only=folder)

    assert code == 1
    assert summary["slides"]["complete"] == 3
    assert {f["slide_id"] for f in summary["failures"]} == {"empty", "text", "cut"}
    assert {f["reason"] for f in summary["failures"]} <= {"unreadable", "read-failed"}
    assert open_store(tmp_path / "s.zarr").slides == ["a", "b", "c"]


def test_a_slide_without_mpp_names_the_option(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (300, 300), (200, 120, 170)).save(tmp_path / "plain.png")

    code, summary = run(tmp_path / "s.zarr", only=tmp_path / "plain.png")
    assert code == 1
    assert summary["failures"][0]["reason"] == "no-mpp"
    assert "--slide-mpp" in summary["failures"][0]["message"]

    code, summary = run(
        tmp_path / "s.zarr", "--slide-mpp", 0.5, "--tissue", "none", only=tmp_path / "plain.png"
    )
    assert code == 0
    assert summary["tiles"]["done"] == 16


def test_a_slide_without_tissue_is_a_complete_empty_grid(run: Run, tmp_path: Path) -> None:
    from dataflow.pyramid_tiff import write_pyramid

    write_pyramid(tmp_path / "blank.tif", np.full((600, 600, 3), 243, np.uint8), mpp=0.5)

    code, summary = run(tmp_path / "s.zarr", "--stain", "macenko", only=tmp_path / "blank.tif")

    assert code == 0, summary
    assert "no tissue" in summary["notes"]["blank"][0]
    tiles = open_store(tmp_path / "s.zarr")["blank"].tiles(GRID)
    assert tiles.sizes["tile"] == 0
    assert tiles["features"].shape[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--encoder", "efficientnet-lite1"], "efficientnet-lite0"),
        (["--scheduler", "tcp://127.0.0.1:9"], "No scheduler answers"),
        (["--tissue", "mask"], "--tissue-mask"),
        (["--stride-px", 100, "--tile-px", 64], "stride"),
    ],
)
def test_what_cannot_start_says_so_in_a_sentence(
    slidestream: Call,
    scheduler: str,
    slides: Path,
    tmp_path: Path,
    arguments: list[object],
    sentence: str,
) -> None:
    answer = slidestream(
        "run", slides, "--store", tmp_path / "s.zarr", "--scheduler", scheduler, *arguments
    )

    assert answer.code == 1
    assert sentence in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "s.zarr").exists()


def test_a_folder_of_something_else_is_no_store(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("all of it")

    code, message = run(tmp_path / "thesis")

    assert code == 1
    assert "no slidestream store" in message
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter1.txt"]


def test_options_come_from_a_yaml_file_too(
    slidestream: Call, scheduler: str, slides: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"store: {tmp_path / 's.zarr'}\ntile-px: 128\nmpp: 1.0\nscheduler: {scheduler}\njson: true\n"
    )
    answer = slidestream("index", slides, "--config", config)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["grid"] == "128px_1.000mpp"

    config.write_text("tile-pixels: 128\n")
    answer = slidestream("index", slides, "--store", tmp_path / "s.zarr", "--config", config)
    assert answer.code == 2
    assert "tile_px" in answer.err


def test_a_detached_job_goes_on_and_can_be_followed(
    slidestream: Call, scheduler: str, slides: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    answer = slidestream(
        "run", slides, "--store", store, *SMALL, *ENCODER, "--scheduler", scheduler,
        "--detach", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    job = json.loads(answer.out)["job"]

    waited = slidestream("jobs", "wait", job, "--scheduler", scheduler, "--timeout", 120)
    assert waited.code == 0, waited.out
    shown = json.loads(slidestream("jobs", "show", job, "--scheduler", scheduler, "--json").out)
    assert shown["state"] == "done"
    assert shown["metrics"]["slides"]["complete"] == 3
    assert "3/3 slides" in slidestream("jobs", "logs", job, "--scheduler", scheduler).out
    assert job in slidestream("jobs", "list", "--scheduler", scheduler).out
    assert open_store(store)["c"].features(GRID)[FEATURES][0] > 0
    unknown = slidestream("jobs", "show", "nothing", "--scheduler", scheduler)
    assert unknown.code == 1
    assert job in unknown.err


def test_a_job_that_breaks_off_says_why(
    slidestream: Call, scheduler: str, slides: Path, tmp_path: Path
) -> None:
    with Client(scheduler, set_as_default=False) as client:
        config = RunConfig("run", (str(slides),), "s", None, None, run_dir=str(tmp_path / "odd"))
        job = submit(client, config)  # neither grid nor encoder: only a bug can ask for that

        waited = slidestream("jobs", "wait", job, "--scheduler", scheduler, "--timeout", 60)

        assert waited.code == 1
        record = get_job(client, job)
        assert record.state == "failed"
        assert "Unexpected ValueError" in str(record.error)
        log = slidestream("jobs", "logs", job, "--scheduler", scheduler).out
        assert "Traceback" in log
        assert "Unexpected ValueError" in log
        stopped = slidestream("jobs", "cancel", job, "--scheduler", scheduler)
        assert "has ended already: failed" in stopped.out

        client.set_metadata(["slidestream-jobs", "odder", "state"], "running")
        future = client.submit(divmod, 1, 0, key="job-odder", pure=False)
        assert isinstance(future.exception(), ZeroDivisionError)
        assert get_job(client, "odder").state == "failed"
        assert "ZeroDivisionError" in str(get_job(client, "odder").error)
        assert slidestream("jobs", "show", "odder", "--scheduler", scheduler).code == 0


def test_a_job_whose_task_is_on_its_way_is_not_lost(
    scheduler: str, slides: Path, tmp_path: Path
) -> None:
    with Client(scheduler, set_as_default=False) as client:
        client.scheduler_comm.interval = 0.5  # [s] between batches of tasks
        client.submit(int).result()
        config = RunConfig("run", (str(slides),), "s", None, None, run_dir=str(tmp_path / "slow"))
        job = submit(client, config)
        with Client(scheduler, set_as_default=False) as other:
            assert get_job(other, job).state in {"queued", "running", "failed"}


def test_two_runs_at_once_share_the_work(
    run: Run,
    slidestream: Call,
    scheduler: str,
    slides: Path,
    tmp_path: Path,
    store_digests: Digests,
) -> None:
    run(tmp_path / "alone.zarr")
    store = tmp_path / "both.zarr"
    answer = slidestream(
        "run", slides, "--store", store, *SMALL, *ENCODER, "--scheduler", scheduler,
        "--detach", "--json",
    )  # fmt: skip
    job = json.loads(answer.out)["job"]

    code, here = run(store)

    assert code == 0, here
    assert slidestream("jobs", "wait", job, "--scheduler", scheduler).code == 0
    shown = slidestream("jobs", "show", job, "--scheduler", scheduler, "--json")
    there = json.loads(shown.out)["metrics"]
    for summary in (here, there):
        blocks = summary["blocks"]
        assert blocks["done"] + blocks["already_stored"] == blocks["total"]
    assert store_digests(store) == store_digests(tmp_path / "alone.zarr")


def test_the_number_of_workers_does_not_show_in_the_bits(
    run: Run, slides: Path, slidestream: Call, tmp_path: Path, store_digests: Digests
) -> None:
    """One worker with two threads, and two workers with one."""
    run(tmp_path / "one.zarr", "--stain", "macenko")
    answer = slidestream(
        "run", slides, "--store", tmp_path / "two.zarr", *SMALL, *ENCODER, "--stain", "macenko",
        "--workers", 2, "--threads", 1, "--dashboard-port", 0,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert store_digests(tmp_path / "one.zarr") == store_digests(tmp_path / "two.zarr")
