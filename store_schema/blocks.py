"""Block groups: per-tile arrays that are written, verified and read one block of tiles at a time.

A block is done when each array of the group has its object, with the right length and checksum.
Nothing else records progress, so nothing can disagree.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from store_schema import names
from store_schema.chunks import CRC_BYTES, Array, encode, problem_of, read_blocks
from store_schema.claims import claim, ensure_array, ensure_container, group_attrs
from store_schema.errors import IncompleteError, NotInStoreError
from store_schema.ids import check_name
from store_schema.layout import ArrayLayout, tile_array
from store_schema.objects import Objects, open_objects
from store_schema.specs import ArraySpec, fingerprint

BLOCK_KINDS = (names.FEATURES, names.SCORES)


@dataclass(frozen=True)
class BlockGroup:
    """The arrays of one run over a grid. Thread-safe and picklable.

    Attributes
    ----------
    objects, path
        Where it is.
    n_tiles, block_tiles
        Tiles of the grid, and of a block (the last one may have fewer).
    arrays
        What was declared, in order.
    attrs
        All that the store says of the group: fingerprint, provenance, extra …
    """

    objects: Objects
    path: str
    n_tiles: int
    block_tiles: int
    arrays: Mapping[str, ArraySpec]
    attrs: Mapping[str, Any]

    def __repr__(self) -> str:
        done, total = self.done()
        return f"<BlockGroup {self.path}: {done}/{total} blocks, {', '.join(self.arrays)}>"

    @property
    def url(self) -> str:
        """The store's path or URL; with ``path`` it is what :func:`open_block_group` takes."""
        return self.objects.url

    @property
    def n_blocks(self) -> int:
        """Number of blocks; 0 for a grid without tiles."""
        return -(-self.n_tiles // self.block_tiles)

    @cached_property
    def layouts(self) -> dict[str, ArrayLayout]:
        """How each array is stored."""
        return {
            name: tile_array(spec, self.n_tiles, self.block_tiles)
            for name, spec in self.arrays.items()
        }

    def block_slice(self, block: int) -> slice:
        """Return the tiles of a block."""
        if not 0 <= block < self.n_blocks:
            raise IndexError(f"{self.path} has blocks 0 to {self.n_blocks - 1}, not {block}")
        start = block * self.block_tiles
        return slice(start, min(start + self.block_tiles, self.n_tiles))

    def object_key(self, name: str, block: int) -> str:
        """Return the key of the object that holds a block of an array."""
        layout = self.layouts[name]
        return f"{self.path}/{name}/{layout.key((block, *(0 for _ in layout.chunks[1:])))}"

    def write_block(self, block: int, values: Mapping[str, Array]) -> int:
        """Write a block; each object appears whole or not at all.

        Parameters
        ----------
        block
            Number of the block.
        values
            For each declared array, (tile of the block, …) of the declared dtype.

        Returns
        -------
        int
            Bytes written.

        Raises
        ------
        ValueError
            If arrays are missing or not declared, or shape or dtype aren't the declared ones.
        StorageError
            If the disk is full, or may not be written to.
        """
        span = self.block_slice(block)
        if set(values) != set(self.arrays):
            raise ValueError(f"{self.path} holds {sorted(self.arrays)}, not {sorted(values)}")
        for name, spec in self.arrays.items():
            expected = (span.stop - span.start, *spec.shape)
            if values[name].shape != expected or values[name].dtype != np.dtype(spec.dtype):
                raise ValueError(
                    f"{self.path}/{name} takes {spec.dtype} {expected} for block {block}, "
                    f"not {values[name].dtype} {values[name].shape}"
                )
        written = 0
        # the first declared last: it is the one that readers look for
        for name in reversed(list(self.arrays)):
            data = encode(values[name], self.layouts[name])
            self.objects.put(self.object_key(name, block), data)
            written += len(data)
        return written

    def read_block(self, block: int) -> dict[str, Array]:
        """Read a block: for each array (tile of the block, …).

        Raises
        ------
        IncompleteError
            If it isn't written yet.
        DamagedBlockError
            If an object has a wrong length or checksum.
        """
        self.block_slice(block)
        return {name: self.read_array(name, block) for name in self.arrays}

    def read_array(self, name: str, block: int, *, allow_missing: bool = False) -> Array:
        """Read one array's block; a missing one raises, or is fill values where that is allowed."""
        return read_blocks(
            self.objects,
            f"{self.path}/{name}",
            self.layouts[name],
            [block],
            allow_missing=allow_missing,
        )

    def missing_blocks(self, verify: bool = True) -> list[int]:
        """Return the blocks that are still to do, ascending.

        Parameters
        ----------
        verify
            Read every object and check its checksum too; otherwise objects are only listed.
        """
        sizes = self._sizes()
        missing = {
            block
            for block in range(self.n_blocks)
            for name in self.arrays
            if not self._has_right_size(name, sizes.get(self.object_key(name, block)))
        }
        if verify:
            there = [block for block in range(self.n_blocks) if block not in missing]
            with ThreadPoolExecutor(self.objects.read_threads) as pool:
                sound = list(pool.map(self.is_stored, there))
            missing.update(block for block, ok in zip(there, sound, strict=True) if not ok)
        return sorted(missing)

    def problem_of_block(self, name: str, block: int) -> str | None:
        """Return what is wrong with a stored object, None if it is sound."""
        data = self.objects.get(self.object_key(name, block))
        return "is missing" if data is None else problem_of(data, self.layouts[name])

    def done(self) -> tuple[int, int]:
        """Return (done, total) blocks by listing, without reading them."""
        return self.n_blocks - len(self.missing_blocks(verify=False)), self.n_blocks

    def require_complete(self) -> None:
        """Raise IncompleteError unless all blocks are there."""
        done, total = self.done()
        if done < total:
            raise IncompleteError(
                f"{self.path} has {done}/{total} blocks: run the same command again to complete "
                "it, or pass allow_incomplete=True"
            )

    def _sizes(self) -> dict[str, int]:
        return self.objects.sizes(self.path) if self.n_blocks else {}

    def _has_right_size(self, name: str, size: int | None) -> bool:
        layout = self.layouts[name]
        if size is None:
            return False
        return size > CRC_BYTES if layout.compressed else size == layout.raw_bytes + CRC_BYTES

    def is_stored(self, block: int) -> bool:
        """Tell whether a block's objects are all there and pass their checksums."""
        return all(self.problem_of_block(name, block) is None for name in self.arrays)


def open_block_group(url: str | os.PathLike[str], path: str) -> BlockGroup:
    """Open a block group of a store by its address: what a worker process does.

    Parameters
    ----------
    url
        The store.
    path
        The group's place in it, ``<slide>/<grid>/features/<name>`` or ``…/scores/<name>``.

    Raises
    ------
    NotInStoreError
        If there is no such group.
    """
    return block_group(open_objects(url), path)


def block_group(objects: Objects, path: str) -> BlockGroup:
    """Return the block group at ``path``; as of :func:`open_block_group`."""
    kind = path.rsplit("/", 2)[-2]
    attrs = group_attrs(objects, path, kind) if kind in BLOCK_KINDS else None
    if attrs is None:
        raise NotInStoreError(f"{objects.url} has no {path}: run the command that makes it first")
    return from_attrs(objects, path, attrs)


def create_block_group(
    objects: Objects,
    grid_path: str,
    kind: str,
    name: str,
    arrays: Mapping[str, ArraySpec],
    *,
    provenance: Mapping[str, Any],
    n_tiles: int,
    block_tiles: int,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> BlockGroup:
    """Claim a group of per-tile arrays and write their metadata; idempotent.

    Parameters
    ----------
    objects, grid_path
        The grid it belongs to.
    kind
        ``features`` or ``scores``.
    name
        Of the encoder or run.
    arrays
        What it will hold; the first declared is the main one.
    provenance
        What decides the numbers; JSON-able.
    n_tiles, block_tiles
        Of the grid.
    extra
        Kept beside the provenance, but not part of the fingerprint.
    overwrite
        Replace a group of other settings.

    Raises
    ------
    SettingsConflictError
        If the group exists with other provenance or arrays; names what differs.
    """
    if kind not in BLOCK_KINDS:
        raise ValueError(f"per-tile runs go to {' or '.join(BLOCK_KINDS)}, not {kind!r}")
    check_name(name, f"{kind} name")
    declared = {
        check_name(array, "array name"): {
            "dims": list(spec.dims),
            "shape": list(spec.shape),
            "dtype": np.dtype(spec.dtype).name,
            "attrs": dict(spec.attrs),
        }
        for array, spec in arrays.items()
    }
    ensure_container(objects, f"{grid_path}/{kind}")
    path = f"{grid_path}/{kind}/{name}"
    attrs = claim(
        objects,
        path,
        {
            names.KIND: kind,
            names.FINGERPRINT: fingerprint(provenance),
            names.PROVENANCE: provenance,
            names.EXTRA: dict(extra or {}),
            names.N_TILES: n_tiles,
            names.BLOCK_TILES: block_tiles,
            names.ARRAYS: declared,
            names.ARRAY_ORDER: list(arrays),
        },
        compare=(names.PROVENANCE, names.ARRAYS, names.N_TILES, names.BLOCK_TILES),
        overwrite=overwrite,
    )
    group = from_attrs(objects, path, attrs)
    for array, layout in group.layouts.items():
        ensure_array(objects, f"{path}/{array}", layout)
    return group


def from_attrs(objects: Objects, path: str, attrs: Mapping[str, Any]) -> BlockGroup:
    """Return the block group that a group's attributes describe."""
    declared = attrs[names.ARRAYS]
    specs = {
        name: ArraySpec(
            dims=tuple(declared[name]["dims"]),
            shape=tuple(declared[name]["shape"]),
            dtype=declared[name]["dtype"],
            attrs=declared[name]["attrs"],
        )
        for name in attrs[names.ARRAY_ORDER]
    }
    return BlockGroup(objects, path, attrs[names.N_TILES], attrs[names.BLOCK_TILES], specs, attrs)
