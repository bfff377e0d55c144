"""Chunks as bytes: encode, check and decode them as their layout says.

This is the subset of Zarr v3's codecs that the schema uses (``bytes``, ``zstd``, ``crc32c``); doing
it here gives exact byte counts, reads straight into place, and no shared event loop between
threads. Tests hold it against zarr itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

from store_schema.errors import DamagedBlockError, IncompleteError
from store_schema.layout import ZSTD_LEVEL, ArrayLayout
from store_schema.objects import Bytes, Objects

Array = npt.NDArray[np.generic]

CRC_BYTES = 4


def crc32c(data: Bytes) -> int:
    """Return the crc32c of contiguous uint8 data."""
    return int(google_crc32c.value(data))


def encode(values: Array, layout: ArrayLayout) -> bytes:
    """Return the stored bytes of one chunk, padded to the chunk shape."""
    stored = np.dtype(layout.dtype).newbyteorder("<")
    if values.shape != layout.chunks:
        padded = np.full(layout.chunks, layout.fill, dtype=stored)
        padded[tuple(slice(size) for size in values.shape)] = values
        values = padded
    raw = np.ascontiguousarray(values, dtype=stored).tobytes()
    payload = bytes(Zstd(level=ZSTD_LEVEL).encode(raw)) if layout.compressed else raw
    return payload + struct.pack("<I", google_crc32c.value(payload))


def problem_of(data: bytes, layout: ArrayLayout) -> str | None:
    """Return what is wrong with the stored bytes of a chunk, None if they are sound."""
    if not layout.compressed and len(data) != layout.raw_bytes + CRC_BYTES:
        return f"is {len(data):,} bytes long instead of {layout.raw_bytes + CRC_BYTES:,}"
    if not checksum_holds(data):
        return "fails its checksum"
    if layout.compressed:
        size = len(Zstd().decode(data[:-CRC_BYTES]))
        if size != layout.raw_bytes:
            return f"holds {size:,} bytes instead of {layout.raw_bytes:,}"
    return None


def checksum_holds(data: bytes) -> bool:
    """Tell whether stored bytes end with the crc32c of what is before."""
    if len(data) <= CRC_BYTES:
        return False
    everything = np.frombuffer(data, dtype=np.uint8)
    return bool(crc32c(everything[:-CRC_BYTES]) == struct.unpack("<I", data[-CRC_BYTES:])[0])


def decode(data: bytes, layout: ArrayLayout, where: str) -> Array:
    """Return the values of a chunk, shape ``layout.chunks``.

    Raises
    ------
    DamagedBlockError
        If length or checksum are wrong; names the object.
    """
    problem = problem_of(data, layout)
    if problem is not None:
        raise damaged(where, problem)
    payload = data[:-CRC_BYTES]
    raw = bytes(Zstd().decode(payload)) if layout.compressed else payload
    stored = np.dtype(layout.dtype).newbyteorder("<")
    return np.frombuffer(raw, dtype=stored).reshape(layout.chunks).astype(layout.dtype, copy=False)


def damaged(where: str, problem: str) -> DamagedBlockError:
    """Return the error for a damaged object."""
    return DamagedBlockError(
        f"{where} {problem}: run the same command again, it makes damaged blocks anew"
    )


def missing(path: str, index: int) -> IncompleteError:
    """Return the error for a block that is not there."""
    return IncompleteError(
        f"block {index} of {path} is not written yet: run the same command again to complete it, "
        "or pass allow_incomplete=True to read it as missing values"
    )


def chunk_indices(layout: ArrayLayout) -> Iterator[tuple[int, ...]]:
    """Iterate over the indices of all chunks, last dimension fastest."""
    return product(*(range(count) for count in layout.grid))


def chunk_slices(layout: ArrayLayout, index: Sequence[int]) -> tuple[slice, ...]:
    """Return the part of the array that a chunk holds."""
    triples = zip(index, layout.chunks, layout.shape, strict=True)
    return tuple(slice(i * size, min((i + 1) * size, total)) for i, size, total in triples)


def is_empty(values: Array, layout: ArrayLayout) -> bool:
    """Tell whether values are nothing but the layout's fill value."""
    nothing = (
        np.isnan(values)
        if values.dtype.kind == "f" and not layout.zero_fill
        else values == layout.fill
    )
    return bool(np.all(nothing))


def write_array(objects: Objects, path: str, layout: ArrayLayout, values: Array) -> int:
    """Write all chunks of an array; return the bytes written."""
    if values.shape != layout.shape or values.dtype != np.dtype(layout.dtype):
        raise ValueError(
            f"{path}: {values.dtype} {values.shape} is not {layout.dtype} {layout.shape}"
        )
    total = 0
    for index in chunk_indices(layout):
        part = values[chunk_slices(layout, index)]
        key = f"{path}/{layout.key(index)}"
        if not layout.keep_empty and is_empty(part, layout):
            objects.delete(key)
            continue
        data = encode(part, layout)
        objects.put(key, data)
        total += len(data)
    return total


def read_blocks(
    objects: Objects,
    path: str,
    layout: ArrayLayout,
    blocks: Sequence[int] | None = None,
    *,
    allow_missing: bool = False,
    out: Array | None = None,
) -> Array:
    """Read blocks of a per-tile array, several at a time, straight into one array.

    Parameters
    ----------
    objects, path, layout
        The array; it is cut along its first dimension only.
    blocks
        Ascending block numbers; None reads them all.
    allow_missing
        Fill missing blocks with the layout's fill value instead of raising.
    out
        Read into this contiguous array instead of a new one: fresh memory costs more than the reading itself.

    Returns
    -------
    ndarray
        (tile, …), the tiles of the blocks, one block after the other.

    Raises
    ------
    IncompleteError
        If a block isn't there, unless ``allow_missing``.
    DamagedBlockError
        If a stored object has a wrong length or checksum.
    """
    wanted = range(layout.grid[0]) if blocks is None else blocks
    spans = [chunk_slices(layout, _index(layout, block))[0] for block in wanted]
    counts = [span.stop - span.start for span in spans]
    shape = (sum(counts), *layout.shape[1:])
    if out is None:
        out = np.empty(shape, dtype=layout.dtype)
    elif out.shape != shape or out.dtype != layout.dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"{path} is read into contiguous {layout.dtype} {shape}, not {out.dtype} {out.shape}"
        )
    values = out
    starts = np.concatenate(([0], np.cumsum(counts))).astype(int)

    def read(place: int, block: int) -> None:
        target = values[starts[place] : starts[place + 1]]
        if not _read_block(objects, path, layout, block, target):
            if not allow_missing:
                raise missing(path, block)
            target[...] = layout.fill

    if len(spans) == 1:
        read(0, wanted[0])
    elif spans:
        with ThreadPoolExecutor(min(objects.read_threads, len(spans))) as pool:
            for _ in pool.map(read, range(len(spans)), wanted):
                pass
    return values


def _index(layout: ArrayLayout, block: int) -> tuple[int, ...]:
    return (block, *(0 for _ in layout.chunks[1:]))


def _read_block(
    objects: Objects, path: str, layout: ArrayLayout, block: int, target: Array
) -> bool:
    """Read one block into ``target``; return False if it isn't there."""
    key = f"{path}/{layout.key(_index(layout, block))}"
    if layout.compressed or not np.little_endian or not layout.raw_bytes:
        data = objects.get(key)
        if data is None:
            return False
        target[...] = decode(data, layout, key)[: target.shape[0]]
        return True
    # raw: file → place, no copy between; the padding of the last block and the checksum go to the
    # side
    body = target.reshape(-1).view(np.uint8)
    rest = np.zeros(layout.raw_bytes + CRC_BYTES - body.size, dtype=np.uint8)
    size = objects.read_into(key, [body, rest])
    if size is None:
        return False
    if size != layout.raw_bytes + CRC_BYTES:
        raise damaged(key, f"is {size:,} bytes long instead of {layout.raw_bytes + CRC_BYTES:,}")
    found = google_crc32c.extend(crc32c(body), rest[:-CRC_BYTES])
    if found != struct.unpack("<I", rest[-CRC_BYTES:].tobytes())[0]:
        raise damaged(key, "fails its checksum")
    return True
