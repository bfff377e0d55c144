"""Small stores with features, as slide models take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from store_schema import names
from store_schema.specs import ArraySpec, GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import create_store

FeatureStore = Callable[..., str]


@pytest.fixture
def feature_store(tmp_path: Path) -> FeatureStore:
    """Return a function: slide id → features (tile, feature) → path of a store; blocks have 4 tiles."""

    def make(
        features: Mapping[str, npt.NDArray[np.floating]],
        *,
        name: str = "enc",
        blocks: Mapping[str, Sequence[int]] | None = None,
    ) -> str:
        url = str(tmp_path / "cohort.zarr")
        store = create_store(url)
        spec = GridSpec(tile_px=32, mpp=0.5, stride_px=32)
        for slide_id, values in features.items():
            n_tiles = len(values)
            record = SlideRecord(
                slide_id, f"{slide_id}.svs", f"of {slide_id}", "test", 512, 512, 0.5, "user"
            )
            slide = store.add_slide(record)
            index = np.arange(n_tiles, dtype=np.int32)
            table = TileTable(
                index % 8 * 32, index // 8 * 32, index // 8, index % 8, np.ones(n_tiles, np.float32)
            )
            geometry = GridGeometry(32, 32.0, 16, 16)
            slide.create_grid(spec, geometry, table, {"slide": slide_id}, block_tiles=4)
            array = ArraySpec((names.TILE, names.FEATURE), values.shape[1:], values.dtype.name)
            provenance = {
                "slide": slide_id,
                "grid": slide.grid_attrs(spec.name)[names.FINGERPRINT],
                "model": name,
            }
            group = slide.create_tile_group(
                spec.name, names.FEATURES, name, {"features": array}, provenance
            )
            for block in (blocks or {}).get(slide_id, range(group.n_blocks)):
                group.write_block(block, {"features": values[group.block_slice(block)]})
        return url

    return make
