from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataflow.discover import SlideSource
from dataflow.index import index_slide
from dataflow.pyramid_tiff import write_pyramid
from jobs.dry_run import dry_run
from jobs.run_config import EncodeSettings, GridSettings, RunConfig, stream_spec
from store_schema import names
from store_schema.store import create_store

GRID = GridSettings(
    tile_px=64,
    tile_um=None,
    mpp=0.5,
    stride_px=None,
    edge="drop",
    min_tissue=0.5,
    tissue="otsu",
    tissue_threshold=None,
    tissue_mask=None,
    slide_mpp=None,
    grid_name=None,
    block_tiles=10,
    qc=True,
)
ENCODE = EncodeSettings(
    encoder="timm:test_vit",
    features_name=None,
    resize="model",
    stain="none",
    stain_fit="slide",
    stain_target=None,
    precision="fp32",
    batch_size=8,
    device="cpu",
    require_gpu=False,
    dtype="float16",
    compile_model=False,
    random_weights=True,
    seed=0,
    verify=True,
)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Return a folder with a slide of one square of tissue, an empty one, one without mpp, and a broken one."""
    folder = tmp_path / "slides"
    folder.mkdir()
    white = np.full((1024, 1280, 3), 255, np.uint8)
    tissue = white.copy()
    tissue[256:768, 256:768] = (180, 80, 160)
    write_pyramid(folder / "tissue.tif", tissue, 0.5, downsamples=(1, 4))
    write_pyramid(folder / "white.tif", white, 0.5, downsamples=(1, 4))
    write_pyramid(folder / "sizeless.tif", white, None, downsamples=(1,))
    (folder / "zero.svs").touch()
    return folder


def config(folder: Path, **changes: Any) -> RunConfig:
    store = str(folder.parent / "s.zarr")
    settings = RunConfig("run", (str(folder),), store, GRID, ENCODE, run_dir=str(folder / "runs"))
    return replace(settings, **changes)


def described(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_counts_and_reasons(slides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(slides.parent.rglob("*"))
    assert dry_run(config(slides), as_json=True) == 1
    found = described(capsys)
    by_id = {slide["slide_id"]: slide for slide in found["slides"]}
    assert set(by_id) == {"tissue", "white"}
    assert by_id["tissue"]["tiles"] == 64  # 512 px of tissue on both sides, tiles of 64 px
    assert by_id["tissue"]["blocks"] == 7
    assert by_id["white"]["tiles"] == 0
    assert by_id["white"]["notes"] == ["no tissue: the grid is empty"]
    reasons = {failure["slide_id"]: failure["reason"] for failure in found["failures"]}
    assert reasons == {"sizeless": "no-mpp", "zero": "unreadable"}
    assert found["totals"]["tiles"] == 64
    assert sorted(slides.parent.rglob("*")) == before  # nothing was written


def test_bytes_are_those_of_a_run(slides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config(slides, slides=(str(slides / "tissue.tif"),))
    assert dry_run(settings, as_json=True) == 0
    planned = described(capsys)["slides"][0]
    dim = _write(settings, str(slides / "tissue.tif"))
    features = 7 * (10 * dim * 2 + 4)  # blocks of 10 tiles, float16, crc32c
    root = Path(settings.store)
    stored = sum(f.stat().st_size for f in root.rglob("c/**/*") if f.is_file())
    assert sum(f.stat().st_size for f in root.rglob("features/c/*/0")) == features
    assert features < stored <= planned["bytes_at_most"]


def _write(settings: RunConfig, path: str) -> int:
    """Write what a run would write, with zeros for features; return their length."""
    from dataflow.block_task import output_arrays

    assert settings.encode is not None
    factory = settings.encode.factory()
    spec = stream_spec(settings, factory)
    assert spec.index is not None
    assert spec.encode is not None
    index = replace(spec.index, qc_dir=None)
    slide, _ = index_slide(create_store(settings.store), index, SlideSource("tissue", path))
    arrays = output_arrays(spec.encode)
    group = slide.create_tile_group(spec.grid_name, names.FEATURES, "zeros", arrays, {})
    for block in range(group.n_blocks):
        n_tiles = len(range(group.n_tiles)[group.block_slice(block)])
        group.write_block(
            block,
            {name: np.zeros((n_tiles, *a.shape), a.dtype) for name, a in arrays.items()},
        )
    return factory.outputs["features"].shape[0]


def test_text(slides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64)).save(slides / "ignored.png")
    assert dry_run(config(slides, encode=None, command="index"), as_json=False) == 1
    text = capsys.readouterr().out
    assert "2 in all" in text
    assert "zero [unreadable]:" in text
    assert "Nothing was written" in text
