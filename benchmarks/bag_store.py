"""A store with one large bag of random features, for reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from store_schema.specs import ArraySpec, GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import Store, create_store


def bag_store(path: Path, n_tiles: int, n_features: int) -> tuple[Store, npt.NDArray[np.float16]]:
    """Write a store of one slide whose tiles lie in a row, with float16 features.

    Parameters
    ----------
    path
        Of the new store.
    n_tiles, n_features
        Size of the bag.

    Returns
    -------
    Store, ndarray
        The store, and float16 (tile, feature), what is in it.
    """
    store = create_store(path)
    slide = store.add_slide(SlideRecord("bag", "none", "c0ffee", "none", n_tiles, 1, 0.5, "user"))
    spec = GridSpec(1, 0.5, 1)
    corners = np.arange(n_tiles, dtype=np.int32)
    zeros = np.zeros(n_tiles, np.int32)
    table = TileTable(corners, zeros, zeros, corners, np.ones(n_tiles, np.float32))
    slide.create_grid(spec, GridGeometry(1, 1.0, 1, n_tiles), table, {})
    arrays = {"features": ArraySpec(("tile", "feature"), (n_features,), "float16")}
    group = slide.create_tile_group(spec.name, "features", "random", arrays, {})
    generator = np.random.default_rng(0)
    values = generator.standard_normal((n_tiles, n_features), dtype=np.float32).astype(np.float16)
    for block in range(group.n_blocks):
        group.write_block(block, {"features": values[group.block_slice(block)]})
    return store, values
