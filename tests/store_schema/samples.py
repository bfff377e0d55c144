"""Small stores, made up but complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from store_schema import names
from store_schema.blocks import BlockGroup
from store_schema.objects import Objects
from store_schema.specs import ArraySpec, GridGeometry, GridSpec, RasterSpec, SlideRecord, TileTable
from store_schema.store import SlideView, Store

N_COLS = 7
SPEC = GridSpec(tile_px=32, mpp=0.5, stride_px=32, tissue={"method": "otsu"})
GRID = SPEC.name
PROVENANCE: dict[str, Any] = {"slide": "c0ffee", "grid": {"tile_px": 32, "mpp": 0.5}}
MODEL: dict[str, Any] = {"weights": "0123", "stain": {"method": "none"}, "precision": "fp32"}
DIM = 5
ARRAYS = {
    "features": ArraySpec(("tile", "feature"), (DIM,), "float16", {"long_name": "features"}),
    "stain_method": ArraySpec(
        ("tile",), (), "uint8", {"flag_values": [0, 1], "flag_meanings": "none macenko"}
    ),
}
MASK = np.zeros((40, 30), np.uint8)
MASK[5:20, 3:9] = 1


def record(slide_id: str = "s1", **changes: Any) -> SlideRecord:
    return SlideRecord(
        **{
            "slide_id": slide_id,
            "source": f"/slides/{slide_id}.svs",
            "fingerprint": f"digest of {slide_id}",
            "vendor": "aperio",
            "width": 64 * N_COLS,
            "height": 6400,
            "mpp": 0.25,
            "mpp_source": "properties",
            "objective_power": 40.0,
            **changes,
        }
    )


def table(n_tiles: int) -> TileTable:
    """Return tiles of 64 px of level 0, row by row."""
    index = np.arange(n_tiles, dtype=np.int32)
    row, col = index // N_COLS, index % N_COLS
    tissue = np.linspace(0, 1, n_tiles, dtype=np.float32)
    return TileTable(x=col * 64, y=row * 64, row=row, col=col, tissue=tissue)


def add_slide(
    store: Store, slide_id: str = "s1", n_tiles: int = 20, block_tiles: int = 8, **changes: Any
) -> SlideView:
    slide = store.add_slide(record(slide_id, **changes))
    geometry = GridGeometry(64, 64.0, max(1, -(-n_tiles // N_COLS)), N_COLS)
    mask = RasterSpec(("y", "x"), MASK.shape, "uint8", 16.0, attrs={"long_name": "tissue"})
    slide.create_grid(
        SPEC,
        geometry,
        table(n_tiles),
        PROVENANCE,
        counts={"kept": n_tiles},
        rasters={"tissue": (mask, MASK)},
        block_tiles=block_tiles,
    )
    return slide


def values(n_tiles: int, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_tiles, DIM)).astype(np.float16)
    return {"features": features, "stain_method": rng.integers(0, 2, n_tiles).astype(np.uint8)}


def claim_features(slide: SlideView, name: str = "enc", **changes: Any) -> BlockGroup:
    return slide.create_tile_group(GRID, names.FEATURES, name, ARRAYS, {**MODEL, **changes})


def write(
    group: BlockGroup, data: Mapping[str, npt.NDArray[Any]], blocks: Iterable[int] | None = None
) -> None:
    for block in range(group.n_blocks) if blocks is None else blocks:
        span = group.block_slice(block)
        group.write_block(block, {name: array[span] for name, array in data.items()})


def add_features(slide: SlideView, name: str = "enc", seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    group = claim_features(slide, name)
    data = values(group.n_tiles, seed)
    write(group, data)
    return data


def flip_byte(objects: Objects, key: str, at: int = 0) -> None:
    data = bytearray(objects.get(key) or b"")
    data[at] ^= 0xFF
    objects.put(key, bytes(data))


@dataclass
class CountingObjects:
    """Counts requests by kind; hands everything on."""

    inner: Objects
    calls: dict[str, int]

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not callable(method):
            return method

        def counted(*args: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            return method(*args)

        return counted
