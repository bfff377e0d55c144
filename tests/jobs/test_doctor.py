from __future__ import annotations

import json
import socket
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dataflow.discover import SlideSource
from dataflow.pyramid_tiff import write_pyramid
from jobs import library_checks, machine_checks
from jobs.doctor import doctor
from jobs.slide_checks import check_slide
from jobs.store_checks import store_check
from store_schema import names
from store_schema.specs import ArraySpec, GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import create_store


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "good.tif"
    level0 = np.full((512, 768, 3), 200, np.uint8)
    write_pyramid(path, level0, 0.25, downsamples=(1, 4))
    return path


def test_installed_packages_meet_what_the_distribution_asks_for() -> None:
    assert library_checks.packages_check().status == "ok"
    assert library_checks.torchvision_check().status == "ok"
    assert library_checks.openslide_check().status == "ok"


def test_an_old_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        library_checks, "_version", lambda name: "3.0.0" if name == "zarr" else "9999"
    )
    check = library_checks.packages_check()
    assert check.status == "fail"
    assert "zarr>=" in check.says
    assert "there is 3.0.0" in check.says
    assert "xarray" not in check.says


def test_torch_and_torchvision_of_different_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_checks, "_version", lambda name: "1.0.0")
    check = library_checks.torchvision_check()
    assert check.status == "fail"
    assert "there is 1.0.0" in check.says


def test_a_taken_port_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert machine_checks.port_check(port).facts["free"] is False
    assert machine_checks.port_check(port).facts["free"] is True


def test_disk_of_a_folder_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = machine_checks.disk_check("disk", tmp_path / "a" / "b.zarr")
    assert check.facts["free_bytes"] > 0
    assert str(tmp_path) in check.says
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert machine_checks.disk_check("disk", tmp_path).status == "fail"


def test_a_good_slide(slide: Path) -> None:
    check = check_slide(SlideSource("good", str(slide)))
    assert check.status == "ok"
    assert (check.width, check.height, check.downsamples) == (768, 512, (1.0, 4.0))
    assert check.mpp == pytest.approx(0.25)


def test_a_slide_without_pixel_size_is_told_the_option(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "plain.png")
    source = SlideSource("plain", str(tmp_path / "plain.png"))
    check = check_slide(source)
    assert check.status == "fail"
    assert "--slide-mpp" in check.says
    assert check_slide(SlideSource("plain", source.path, 0.5)).status == "ok"
    coarse = check_slide(SlideSource("plain", source.path, 2.0))
    assert coarse.status == "warn"
    assert "--mpp 2" in coarse.says


def test_broken_slides(test_data: Path) -> None:
    for path in sorted((test_data / "broken").iterdir()):
        assert check_slide(SlideSource(path.stem, str(path))).status == "fail", path


def test_a_store_says_what_is_not_complete(tmp_path: Path) -> None:
    url = str(tmp_path / "s.zarr")
    assert store_check(url).status == "ok"
    store = create_store(url)
    view = store.add_slide(SlideRecord("a", "a.svs", "0" * 16, "x", 256, 256, 0.5, "user"))
    spec = GridSpec(tile_px=128, mpp=0.5, stride_px=128)
    index = np.zeros(1, np.int32)
    table = TileTable(index, index, index, index, np.ones(1, np.float32))
    view.create_grid(spec, GridGeometry(128, 128.0, 2, 2), table, {"made": "here"})
    assert store_check(url).status == "ok"
    group = view.create_tile_group(
        spec.name, names.FEATURES, "enc", {"f": ArraySpec((names.TILE,), (), "float32")}, {}
    )
    check = store_check(url)
    assert check.status == "warn"
    assert "a/128px_0.500mpp/features/enc (0/1)" in check.says
    group.write_block(0, {"f": np.ones(1, np.float32)})
    assert store_check(url).status == "ok"


def test_something_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert store_check(str(tmp_path)).facts["reason"] == "not-a-store"


def test_the_command(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIDESTREAM_STATE_DIR", str(tmp_path / "state"))
    (slide.parent / "zero [bold].svs").touch()
    runner = CliRunner()
    result = runner.invoke(doctor, [str(slide.parent)], standalone_mode=False)
    assert result.return_value == 1
    assert "zero [bold]" in result.output  # a name is not markup
    assert "0.25 (properties)" in result.output
    result = runner.invoke(doctor, [str(slide), "--json"], standalone_mode=False)
    found = json.loads(result.output)
    assert [row["slide_id"] for row in found["slides"]] == ["good"]
    by_name = {check["name"]: check for check in found["checks"]}
    assert by_name["CPU"]["facts"]["cores"] >= 1
    assert found["ok"] == (result.return_value == 0)


def test_no_slides_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIDESTREAM_STATE_DIR", str(tmp_path / "state"))
    arguments = [str(tmp_path / "*.svs"), "--json"]
    result = CliRunner().invoke(doctor, arguments, standalone_mode=False)
    failed = [c for c in json.loads(result.output)["checks"] if c["name"] == "slides"]
    assert failed[0]["status"] == "fail"


def test_the_version_is_told(slidestream: Callable[..., Any]) -> None:
    answer = slidestream("--version")
    assert answer.code == 0
    assert version("slidestream") in answer.out
