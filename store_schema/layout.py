"""Metadata-only templates: how each array of the schema is cut, encoded and described.

An :class:`ArrayLayout` is all that is needed to write an array's ``zarr.json`` and its chunks;
chunk sizes come from here and never from a library's defaults. Zarr v3 core specification: https://zarr-specs.readthedocs.io/en/latest/v3/core/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from store_schema import names
from store_schema.specs import ArraySpec, RasterSpec

GRID_CHUNK_TILES = 2**18  # coordinates are read whole: one object up to here (1 MiB an array)
RASTER_CHUNK_PX = 1024
ZSTD_LEVEL = 1  # flags and masks: nearly all of the gain at the least cost

GRID_ARRAYS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    names.X: (
        "int32",
        {"long_name": "left edge of the tile, level 0", "units": "px", "standard_frame": "level 0"},
    ),
    names.Y: (
        "int32",
        {"long_name": "top edge of the tile, level 0", "units": "px", "standard_frame": "level 0"},
    ),
    names.ROW: ("int32", {"long_name": "row of the tile lattice", "units": "1"}),
    names.COL: ("int32", {"long_name": "column of the tile lattice", "units": "1"}),
    names.TISSUE: (
        "float32",
        {"long_name": "tissue fraction of the tile", "units": "1", "valid_range": [0.0, 1.0]},
    ),
}

SELECTION_ARRAYS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    names.TILE_INDEX: ("int32", {"long_name": "position of the tile in the grid", "units": "1"}),
    names.RANK_SCORE: ("float32", {"long_name": "score that the tile was ranked by", "units": "1"}),
}


@dataclass(frozen=True)
class ArrayLayout:
    """How one array is stored.

    Attributes
    ----------
    dims, shape, dtype, attrs
        Of the whole array; dtype is a numpy name, bytes are little-endian.
    chunks
        Shape of a chunk; every chunk is one stored object, edge chunks are padded to this shape
        with ``fill``.
    compressed
        zstd before the crc32c. Floats are kept raw, since features don't compress and raw chunks
        are read straight into place.
    keep_empty
        Store chunks that hold nothing but ``fill`` too, so that a block that is not there is a
        block that is missing.
    zero_fill
        Missing values are 0 (masks) instead of NaN, the least signed or the greatest unsigned
        integer. Floats of masks are NaN where there is nothing, for 0 is a value of theirs.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    compressed: bool = True
    keep_empty: bool = True
    zero_fill: bool = False

    @property
    def fill(self) -> float | int | bool:
        """The value of what isn't there."""
        dtype = np.dtype(self.dtype)
        if self.zero_fill:
            return False if dtype.kind == "b" else 0
        if dtype.kind == "f":
            return float("nan")
        if dtype.kind == "b":
            return False
        return int(np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max)

    @property
    def raw_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return int(np.prod(self.chunks, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

    def key(self, index: Sequence[int]) -> str:
        """Return the key of a chunk, relative to the array."""
        return "/".join(("c", *map(str, index)))

    def metadata(self) -> dict[str, Any]:
        """Return the array's ``zarr.json``."""
        dtype = np.dtype(self.dtype)
        codecs: list[dict[str, Any]] = [
            {"name": "bytes", "configuration": {"endian": "little"}}
            if dtype.itemsize > 1
            else {"name": "bytes"}
        ]
        if self.compressed:
            settings = {"level": ZSTD_LEVEL, "checksum": False}
            codecs.append({"name": "zstd", "configuration": settings})
        codecs.append({"name": "crc32c"})
        fill: Any = "NaN" if dtype.kind == "f" and not self.zero_fill else self.fill
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunks)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": fill,
            "codecs": codecs,
            "attributes": dict(self.attrs),
            "dimension_names": list(self.dims),
            "storage_transformers": [],
        }


def tile_array(spec: ArraySpec, n_tiles: int, block_tiles: int) -> ArrayLayout:
    """Return the layout of a per-tile array: one block of tiles is one chunk.

    Parameters
    ----------
    spec
        Dimensions after ``tile``, dtype and attributes.
    n_tiles
        Tiles of the grid.
    block_tiles
        Tiles of a block. A grid with fewer has one chunk of just its tiles.
    """
    chunk_tiles = min(block_tiles, n_tiles) if n_tiles else block_tiles
    return ArrayLayout(
        dims=spec.dims,
        shape=(n_tiles, *spec.shape),
        chunks=(chunk_tiles, *(max(size, 1) for size in spec.shape)),
        dtype=np.dtype(spec.dtype).name,
        attrs=spec.attrs,
        compressed=np.dtype(spec.dtype).kind != "f",
    )


def grid_array(name: str, n_tiles: int) -> ArrayLayout:
    """Return the layout of one of the grid's own arrays (x, y, row, col, tissue)."""
    dtype, attrs = GRID_ARRAYS[name]
    chunks = (min(n_tiles, GRID_CHUNK_TILES) or 1,)
    return ArrayLayout((names.TILE,), (n_tiles,), chunks, dtype, attrs)


def raster_array(spec: RasterSpec) -> ArrayLayout:
    """Return the layout of a slide-sized array; its last two dimensions are y and x."""
    if spec.dims[-2:] != (names.Y, names.X) or len(spec.dims) != len(spec.shape):
        raise ValueError(f"a raster has dims (…, y, x) and one size per dim, not {spec}")
    leading = (1,) * (len(spec.shape) - 2)
    tail = tuple(min(size, RASTER_CHUNK_PX) or 1 for size in spec.shape[-2:])
    return ArrayLayout(
        dims=spec.dims,
        shape=spec.shape,
        chunks=(*leading, *tail),
        dtype=np.dtype(spec.dtype).name,
        attrs=spec.attrs,
        keep_empty=False,
        zero_fill=np.dtype(spec.dtype).kind != "f",
    )


def selection_array(name: str, k: int) -> ArrayLayout:
    """Return the layout of an array of a selection of ``k`` tiles; one chunk."""
    dtype, attrs = SELECTION_ARRAYS[name]
    return ArrayLayout((names.K,), (k,), (k or 1,), dtype, attrs)


def document(metadata: Mapping[str, Any]) -> bytes:
    """Return the text of a ``zarr.json``; the same metadata gives the same bytes."""
    return json.dumps(
        metadata, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
    ).encode()
