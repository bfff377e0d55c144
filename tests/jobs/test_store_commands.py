from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result

from jobs.store_commands import store
from store_schema import names
from store_schema.errors import NotAStoreError, NotInStoreError
from store_schema.specs import ArraySpec, GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import create_store

SPEC = GridSpec(tile_px=128, mpp=0.5, stride_px=128)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return a store with one slide, one grid of three tiles, and features of two blocks."""
    path = str(tmp_path / "s.zarr")
    record = SlideRecord("a", "a.svs", "0" * 16, "aperio", 512, 256, 0.5, "user")
    slide = create_store(path).add_slide(record)
    index = np.arange(3, dtype=np.int32)
    zeros = np.zeros(3, np.int32)
    table = TileTable(index * 128, zeros, zeros, index, np.ones(3, np.float32))
    slide.create_grid(SPEC, GridGeometry(128, 128.0, 2, 4), table, {"made": "here"}, block_tiles=2)
    spec = ArraySpec((names.TILE, names.FEATURE), (4,), "float32")
    group = slide.create_tile_group(SPEC.name, names.FEATURES, "enc", {"features": spec}, {})
    for block in range(group.n_blocks):
        n_tiles = len(range(3)[group.block_slice(block)])
        group.write_block(block, {"features": np.ones((n_tiles, 4), np.float32)})
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(store, arguments, standalone_mode=False)


def first_block(url: str) -> Path:
    return Path(url, "a", SPEC.name, names.FEATURES, "enc", "features", "c", "0", "0")


def test_show(url: str) -> None:
    text = run("show", "--store", url).output
    assert "1 slide" in text
    assert "features/enc: 1/1 slides complete, 2/2 blocks" in text
    assert run("show", url).output == text
    assert "aperio, 512 x 256 px" in run("show", url, "--slide", "a").output
    found = json.loads(run("show", url, "--json").output)
    assert found["slides"][0]["slide_id"] == "a"
    assert found["grids"][0]["runs"][0] == {
        "kind": "features",
        "name": "enc",
        "done": 2,
        "total": 2,
    }


def test_show_of_what_is_not_there(url: str, tmp_path: Path) -> None:
    assert isinstance(run("show", url, "--slide", "b").exception, NotInStoreError)
    assert isinstance(run("show", str(tmp_path / "none.zarr")).exception, NotAStoreError)


def test_the_store_is_named_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIDESTREAM_STORE", raising=False)
    assert isinstance(run("show").exception, click.UsageError)
    assert isinstance(run("show", url, "--store", url + "2").exception, click.UsageError)
    monkeypatch.setenv("SLIDESTREAM_STORE", url + "2")
    assert run("show", url).return_value == 0  # what is said wins over the environment
    monkeypatch.setenv("SLIDESTREAM_STORE", url)
    assert run("show").return_value == 0


def test_validate(url: str) -> None:
    assert run("validate", url).return_value == 0
    block = first_block(url)
    data = bytearray(block.read_bytes())
    data[0] ^= 1
    block.write_bytes(data)
    result = run("validate", url)
    assert result.return_value == 1
    assert "[damaged-block]" in result.output
    assert "damaged-block: run the command that made it again" in result.output
    block.unlink()
    found = json.loads(run("validate", url, "--json").output)
    assert not found["valid"]
    assert [violation["code"] for violation in found["violations"]] == ["missing-block"]
    assert list(found["remedies"]) == ["missing-block"]


def test_validate_shows_some_and_counts_all(url: str) -> None:
    for i in range(60):
        (Path(url) / f"a/{SPEC.name}/features/enc/features/c/{i + 9}").mkdir()
        (Path(url) / f"a/{SPEC.name}/features/enc/features/c/{i + 9}/0").touch()
    result = run("validate", url)
    assert "60 violations" in result.output
    assert "and 10 more" in result.output
    assert len(run("validate", url, "-v").output.splitlines()) == 62


def test_finalize(url: str) -> None:
    result = run("finalize", url, "--json")
    nodes = json.loads(result.output)["nodes"]
    root = zarr.open_group(url, mode="r", use_consolidated=True)
    assert root.metadata.consolidated_metadata is not None
    assert nodes == len(list(root.members(max_depth=None)))
    assert run("validate", url).return_value == 0


def test_gc_lists_and_removes_what_nothing_refers_to(url: str) -> None:
    beyond = first_block(url).parent.parent / "7" / "0"
    beyond.parent.mkdir()
    beyond.write_bytes(b"x" * 10)
    listed = run("gc", url, "--dry-run")
    assert listed.return_value == 0
    assert "features/c/7/0  10 bytes, beyond" in listed.output
    assert beyond.exists()
    found = json.loads(run("gc", url, "--json").output)
    assert found["removed"]
    assert [item["reason"] for item in found["leftovers"]] == ["beyond"]
    assert not beyond.exists()
    assert "0 leftovers" in run("gc", url).output
    assert run("validate", url).return_value == 0


def test_gc_leaves_young_temporary_files_alone(url: str) -> None:
    from store_schema.objects import PARTIAL

    temporary = first_block(url).with_name(f"0.123{PARTIAL}")
    temporary.touch()
    run("gc", url)
    assert temporary.exists()
    run("gc", url, "--min-age", "0")
    assert not temporary.exists()
