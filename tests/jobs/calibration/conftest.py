"""A small cohort with scores of tiles, their truth and a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from store_schema import names
from store_schema.specs import ArraySpec, GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import Store, create_store

N = 12  # tiles along a side
TILE = 32
SPEC = GridSpec(tile_px=32, mpp=0.5, stride_px=32)
MODEL: dict[str, Any] = {"weights": "c0ffee", "precision": "fp32"}


@dataclass(frozen=True)
class Cohort:
    """Slides ``a b n`` of val, ``t u`` of test; all but ``n`` and ``u`` have a truth mask; ``b`` trained the model.

    Attributes
    ----------
    store, masks, splits
        Where they are.
    raw, truth
        Slide id → (tile,); tiles are in row order.
    """

    store: Store
    masks: Path
    splits: Path
    raw: dict[str, npt.NDArray[np.float32]]
    truth: dict[str, npt.NDArray[np.bool_]]


def blob(seed: int, share: float) -> npt.NDArray[np.bool_]:
    """Draw a disk within the lattice, bool (row, col)."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((N, N)) - rng.integers(3, N - 3, (2, 1, 1))
    disk: npt.NDArray[np.bool_] = x**2 + y**2 < share * N * N / np.pi
    return disk


def add_scored_slide(
    store: Store,
    slide_id: str,
    raw: npt.NDArray[np.float32],
    *,
    model: dict[str, Any] | None = None,
    has_tile: npt.NDArray[np.bool_] | None = None,
    model_split: str = "",
) -> None:
    """Add a slide with ``scores/vae``: arrays l1 and ssim, which is -l1; blocks of 50 tiles."""
    side = N * TILE
    record = SlideRecord(
        slide_id, f"{slide_id}.tif", f"of {slide_id}", "t", side, side, 0.5, "user"
    )
    slide = store.add_slide(record)
    places = np.ones((N, N), bool) if has_tile is None else has_tile
    row, col = (index.astype(np.int32) for index in np.nonzero(places))
    table = TileTable(col * TILE, row * TILE, row, col, np.ones(len(row), np.float32))
    geometry = GridGeometry(TILE, float(TILE), N, N)
    slide.create_grid(SPEC, geometry, table, {"slide": slide_id}, block_tiles=50)
    arrays = {
        "l1": ArraySpec(("tile",), (), "float32", {"long_name": "L1 error", "units": "1"}),
        "ssim": ArraySpec(("tile",), (), "float32", {}),
    }
    made_by = {
        "slide": slide_id,
        "grid": slide.grid_attrs(SPEC.name)[names.FINGERPRINT],
        "stain": {"method": "none"},
        "model": model or MODEL,
    }
    group = slide.create_tile_group(
        SPEC.name, "scores", "vae", arrays, made_by, extra={"model_split": model_split}
    )
    for block in range(group.n_blocks):
        span = group.block_slice(block)
        group.write_block(block, {"l1": raw[span], "ssim": -raw[span]})


AddScoredSlide = Callable[..., None]


@pytest.fixture
def add_slide() -> AddScoredSlide:
    """Return :func:`add_scored_slide`."""
    return add_scored_slide


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    store = create_store(tmp_path / "cohort.zarr")
    (tmp_path / "masks").mkdir()
    raw, truth = {}, {}
    for seed, slide_id in enumerate("abntu"):
        rng = np.random.default_rng(seed + 7)
        tumour = blob(seed, 0.0 if slide_id == "n" else 0.1)
        # every slide has its own baseline and contrast
        score = 0.02 * (seed + 1) + 0.004 * (seed + 1) * (rng.normal(size=(N, N)) + 2.5 * tumour)
        raw[slide_id] = score.ravel().astype(np.float32)
        truth[slide_id] = tumour.ravel()
        part = "train" if slide_id == "b" else ""
        add_scored_slide(store, slide_id, raw[slide_id], model_split=part)
        if slide_id not in "nu":
            image = Image.fromarray((tumour * 255).astype(np.uint8))
            image.save(tmp_path / "masks" / f"{slide_id}.png")
    splits = tmp_path / "splits.csv"
    splits.write_text("train,val,test\n,a,t\n,b,u\n,n,\n,gone,\n")
    return Cohort(store, tmp_path / "masks", splits, raw, truth)
