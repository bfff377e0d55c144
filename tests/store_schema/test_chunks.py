"""Our encoding is held against zarr's, in both directions."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pytest
import zarr
import zarr.codecs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.storage import MemoryStore

from store_schema.chunks import crc32c, decode, encode, read_blocks, write_array
from store_schema.claims import ensure_array
from store_schema.errors import DamagedBlockError, IncompleteError
from store_schema.layout import ArrayLayout, raster_array, tile_array
from store_schema.objects import open_objects
from store_schema.specs import ArraySpec, RasterSpec
from store_schema.storage import zarr_store

DTYPES = ["float16", "float32", "float64", "uint8", "int16", "int32", "bool"]


@st.composite
def tile_arrays(draw: st.DrawFn) -> tuple[ArrayLayout, npt.NDArray[Any]]:
    n_tiles, block = draw(st.integers(0, 40)), draw(st.integers(1, 16))
    tail = tuple(draw(st.lists(st.integers(1, 4), max_size=2)))
    dtype = draw(st.sampled_from(DTYPES))
    dims = ("tile", "feature", "class")[: len(tail) + 1]
    layout = tile_array(ArraySpec(dims, tail, dtype), n_tiles, block)
    return layout, draw(hnp.arrays(dtype, layout.shape))


def new_objects() -> Any:
    return open_objects(f"memory://{uuid.uuid4().hex}")


@settings(max_examples=60, deadline=None)
@given(tile_arrays())
def test_round_trip_through_us_and_through_zarr(
    array: tuple[ArrayLayout, npt.NDArray[Any]],
) -> None:
    layout, values = array
    objects = new_objects()
    ensure_array(objects, "a", layout)
    write_array(objects, "a", layout, values)
    np.testing.assert_array_equal(read_blocks(objects, "a", layout), values)
    read = zarr.open_array(zarr_store(objects), path="a", mode="r")
    assert (read.shape, read.chunks, read.dtype) == (layout.shape, layout.chunks, values.dtype)
    np.testing.assert_array_equal(np.asarray(read[...]), values)


@settings(max_examples=40, deadline=None)
@given(tile_arrays())
def test_same_bytes_as_zarr(array: tuple[ArrayLayout, npt.NDArray[Any]]) -> None:
    layout, values = array
    store = MemoryStore()
    theirs = zarr.create_array(
        store,
        shape=layout.shape,
        chunks=layout.chunks,
        dtype=layout.dtype,
        fill_value=layout.fill,
        serializer="auto",
        compressors=[
            *([zarr.codecs.ZstdCodec(level=1)] if layout.compressed else []),
            zarr.codecs.Crc32cCodec(),
        ],
        config={"write_empty_chunks": True},
    )
    theirs[...] = values
    objects = new_objects()
    write_array(objects, "a", layout, values)
    ours = {key.removeprefix("a/"): objects.get(key) for key in objects.sizes("a")}
    chunks = {key: value.to_bytes() for key, value in store._store_dict.items() if "/" in key}
    assert ours == chunks


def test_empty_ground_of_a_raster_costs_nothing(url: str) -> None:
    values = np.zeros((2100, 1030), np.uint8)
    values[2050, 1025] = 1
    layout = raster_array(RasterSpec(("y", "x"), values.shape, "uint8", 1.0))
    objects = open_objects(url)
    ensure_array(objects, "s/g/masks/m/mask", layout)
    write_array(objects, "s/g/masks/m/mask", layout, values)
    assert layout.chunks == (1024, 1024)
    assert set(objects.sizes("s/g/masks/m/mask")) == {
        "s/g/masks/m/mask/zarr.json",
        "s/g/masks/m/mask/c/2/1",
    }
    read = zarr.open_array(zarr_store(objects), path="s/g/masks/m/mask", mode="r")
    np.testing.assert_array_equal(np.asarray(read[...]), values)


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "empty"])
def test_damage_is_found(url: str, dtype: str, damage: str) -> None:
    layout = tile_array(ArraySpec(("tile",), (), dtype), 20, 8)
    objects = open_objects(url)
    write_array(objects, "a", layout, np.arange(20).astype(dtype))
    data = objects.get("a/c/1") or b""
    broken = {
        "flip": bytes([data[0] ^ 1]) + data[1:],
        "cut": data[:-3],
        "grow": data + b"\0",
        "empty": b"",
    }
    objects.put("a/c/1", broken[damage])
    with pytest.raises(DamagedBlockError, match=r"a/c/1 .* makes damaged blocks anew"):
        read_blocks(objects, "a", layout)
    read_blocks(objects, "a", layout, [0, 2])


def test_a_missing_block_raises_or_is_fill(url: str) -> None:
    layout = tile_array(ArraySpec(("tile", "feature"), (2,), "float32"), 20, 8)
    objects = open_objects(url)
    write_array(objects, "a", layout, np.ones((20, 2), np.float32))
    objects.delete("a/c/2/0")
    with pytest.raises(IncompleteError, match="block 2 of a"):
        read_blocks(objects, "a", layout)
    read = read_blocks(objects, "a", layout, allow_missing=True)
    assert np.isnan(read[16:]).all()
    assert (read[:16] == 1).all()


def test_encode_is_the_same_every_time() -> None:
    layout = tile_array(ArraySpec(("tile",), (), "int32"), 1000, 1000)
    values = np.arange(1000, dtype=np.int32)
    assert encode(values, layout) == encode(values.copy(), layout)
    np.testing.assert_array_equal(decode(encode(values, layout), layout, "x"), values)


def test_crc32c_is_the_published_one() -> None:
    # RFC 3720 B.4: 32 bytes of zeros
    assert crc32c(np.zeros(32, np.uint8)) == 0x8A9136AA == google_crc32c.value(bytes(32))


def test_fill_values() -> None:
    fills = {d: tile_array(ArraySpec(("tile",), (), d), 1, 1).fill for d in DTYPES}
    assert np.isnan(fills.pop("float16"))
    assert np.isnan(fills.pop("float32"))
    assert np.isnan(fills.pop("float64"))
    assert fills == {"uint8": 255, "int16": -(2**15), "int32": -(2**31), "bool": False}


def test_a_small_grid_has_a_chunk_of_just_its_tiles() -> None:
    layout = tile_array(ArraySpec(("tile", "feature"), (8,), "float16"), 78, 1024)
    assert layout.chunks == (78, 8)
    assert tile_array(ArraySpec(("tile",), (), "float16"), 0, 1024).grid == (0,)


def test_guard_lets_metadata_through() -> None:
    objects = new_objects()
    store = zarr_store(objects)
    prototype = zarr.core.buffer.default_buffer_prototype()
    assert asyncio.run(store.get("a/zarr.json", prototype)) is None
