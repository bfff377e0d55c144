"""Slide-sized arrays (``masks/<name>``), written chunk by chunk: empty ground costs no object, ``complete`` is last.

What is absent is empty once a group is complete; so that a lost chunk is told from empty ground all the same,
the group's document says how many chunks each array had when it was finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from store_schema import names
from store_schema.chunks import Array, chunk_indices, chunk_slices, encode, is_empty, problem_of
from store_schema.claims import (
    claim,
    ensure_array,
    ensure_container,
    group_document,
    node_key,
)
from store_schema.ids import check_name
from store_schema.layout import ArrayLayout, raster_array
from store_schema.objects import Objects
from store_schema.soundness import array_is_sound
from store_schema.specs import RasterSpec, fingerprint

ChunkIndex = tuple[int, ...]


@dataclass(frozen=True)
class RasterGroup:
    """The arrays of one ``masks/<name>``. Thread-safe and picklable.

    Attributes
    ----------
    objects, path
        Where it is.
    layouts
        Name of each array → how it is stored.
    attrs
        What the group's document said when it was claimed.
    """

    objects: Objects
    path: str
    layouts: Mapping[str, ArrayLayout]
    attrs: Mapping[str, Any]

    @property
    def complete(self) -> bool:
        """Whether it was written to its end when it was claimed, with these arrays."""
        said = self.attrs.get(names.LAYOUTS, self.layouts)
        return bool(self.attrs[names.COMPLETE]) and set(self.layouts) <= set(said)

    def chunk_indices(self, array: str) -> list[ChunkIndex]:
        """Return the indices of an array's chunks, last dimension fastest."""
        return list(chunk_indices(self.layouts[array]))

    def chunk_slices(self, array: str, index: ChunkIndex) -> tuple[slice, ...]:
        """Return the part of an array that a chunk holds."""
        return chunk_slices(self.layouts[array], index)

    def write(self, array: str, index: ChunkIndex, values: Array) -> int:
        """Write one chunk; it appears whole or not at all. One of nothing but fill values (NaN, 0) costs no object.

        Parameters
        ----------
        array, index
            Which chunk of which array.
        values
            What :meth:`chunk_slices` says of it, of the declared dtype.

        Returns
        -------
        int
            Bytes written, 0 for an empty chunk.

        Raises
        ------
        ValueError
            If shape or dtype aren't the declared ones.
        StorageError
            If the disk is full, or may not be written to.
        """
        layout = self.layouts[array]
        expected = tuple(part.stop - part.start for part in self.chunk_slices(array, index))
        if values.shape != expected or values.dtype != np.dtype(layout.dtype):
            raise ValueError(
                f"{self.path}/{array} takes {layout.dtype} {expected} for chunk {index}, "
                f"not {values.dtype} {values.shape}"
            )
        if is_empty(values, layout):
            self.objects.delete(self._key(array, index))
            return 0
        data = encode(values, layout)
        self.objects.put(self._key(array, index), data)
        return len(data)

    def write_array(self, array: str, values: Array) -> int:
        """Write all chunks of an array that is in memory; return the bytes written."""
        if values.shape != self.layouts[array].shape:
            raise ValueError(
                f"{self.path}/{array} has shape {self.layouts[array].shape}, not {values.shape}"
            )
        return sum(
            self.write(array, index, values[self.chunk_slices(array, index)])
            for index in self.chunk_indices(array)
        )

    def to_do(
        self, array: str, wanted: Iterable[ChunkIndex], *, verify: bool = True
    ) -> list[ChunkIndex]:
        """Return which of the chunks that hold something are still to be written, in the given order.

        Parameters
        ----------
        array
            Name of the array.
        wanted
            Chunks that may hold something: all others are empty ground.
        verify
            Read the chunks that are there and check them too.

        Returns
        -------
        list of tuple
            Damaged chunks; and absent ones, unless the group is complete and has lost none: then they are empty.
        """
        stored = self._stored(array)
        lost = not self.complete or lost_chunks(self.attrs, array, len(stored)) != 0
        return [
            index
            for index in wanted
            if (lost if index not in stored else verify and not self._is_sound(array, index))
        ]

    def is_sound(self) -> bool:
        """Tell by reading it whether the group is complete, has lost no chunk, and all chunks pass their checksums."""
        return self.complete and all(
            array_is_sound(self.objects, f"{self.path}/{array}", layout)
            and lost_chunks(self.attrs, array, len(self._stored(array))) == 0
            for array, layout in self.layouts.items()
        )

    def finish(self) -> None:
        """Say that all is written; until then readers are told that it isn't."""
        counts = {array: len(self._stored(array)) for array in self.layouts}
        layouts = {
            array: {
                "dims": list(layout.dims),
                "shape": list(layout.shape),
                "dtype": layout.dtype,
                "attrs": dict(layout.attrs),
            }
            for array, layout in self.layouts.items()
        }
        done = {
            **self.attrs,
            names.COMPLETE: True,
            names.CHUNKS: {**self.attrs.get(names.CHUNKS, {}), **counts},
            names.LAYOUTS: {**self.attrs.get(names.LAYOUTS, {}), **layouts},
        }
        self.objects.put(node_key(self.path), group_document(done))

    def _key(self, array: str, index: ChunkIndex) -> str:
        return f"{self.path}/{array}/{self.layouts[array].key(index)}"

    def _stored(self, array: str) -> set[ChunkIndex]:
        return stored_chunks(self.objects, f"{self.path}/{array}", self.layouts[array])

    def _is_sound(self, array: str, index: ChunkIndex) -> bool:
        data = self.objects.get(self._key(array, index))
        return data is not None and problem_of(data, self.layouts[array]) is None


def stored_chunks(objects: Objects, path: str, layout: ArrayLayout) -> set[ChunkIndex]:
    """Return by listing which chunks of an array are there."""
    keys = objects.sizes(path)
    return {index for index in chunk_indices(layout) if f"{path}/{layout.key(index)}" in keys}


def lost_chunks(attrs: Mapping[str, Any], array: str, n_stored: int) -> int:
    """Return how many chunks an array has fewer than when its group was finished; 0 where the group doesn't say."""
    return max(0, int(attrs.get(names.CHUNKS, {}).get(array, 0)) - n_stored)


def create_raster_group(
    objects: Objects,
    grid_path: str,
    name: str,
    arrays: Mapping[str, RasterSpec],
    *,
    provenance: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> RasterGroup:
    """Claim ``masks/<name>`` and write its arrays' metadata; idempotent.

    Parameters
    ----------
    objects, grid_path
        The grid it belongs to.
    name
        Of the group.
    arrays
        What it will hold, e.g. ``mask`` (y, x) and ``confidence`` (class, y, x); all on one raster.
    provenance
        What decides the values; JSON-able.
    extra
        Kept beside the provenance, but not part of the fingerprint.
    overwrite
        Replace a group of other settings, or whose document is damaged.

    Returns
    -------
    RasterGroup
        New; begun, to be gone on with; or complete.

    Raises
    ------
    SettingsConflictError
        If the group exists with other provenance or on another raster; names what differs.
    """
    check_name(name, f"{names.MASKS} name")
    places = {(spec.px_level0, spec.origin_level0, spec.shape[-2:]) for spec in arrays.values()}
    if len(places) != 1:
        raise ValueError(f"the arrays of masks/{name} lie on one raster, not on {len(places)}")
    ((px_level0, origin_level0, _),) = places
    layouts = {
        check_name(array, "array name"): raster_array(spec) for array, spec in arrays.items()
    }
    ensure_container(objects, f"{grid_path}/{names.MASKS}")
    path = f"{grid_path}/{names.MASKS}/{name}"
    ours = {
        names.KIND: names.MASKS,
        names.FINGERPRINT: fingerprint(provenance),
        names.PROVENANCE: provenance,
        **({} if extra is None else {names.EXTRA: dict(extra)}),
        names.PX_LEVEL0: px_level0,
        names.ORIGIN_LEVEL0: list(origin_level0),
        names.COMPLETE: False,
    }
    compare = (names.PROVENANCE, names.PX_LEVEL0, names.ORIGIN_LEVEL0)
    attrs = claim(objects, path, ours, compare=compare, overwrite=overwrite)
    for array, layout in layouts.items():
        ensure_array(objects, f"{path}/{array}", layout)
    return RasterGroup(objects, path, layouts, attrs)


def write_raster(
    objects: Objects,
    grid_path: str,
    name: str,
    arrays: Mapping[str, tuple[RasterSpec, Array]],
    *,
    provenance: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write ``masks/<name>`` whole; the same again is a no-op, what was interrupted or got damaged is completed.

    Parameters
    ----------
    objects, grid_path, name, provenance, extra, overwrite
        As of :func:`create_raster_group`.
    arrays
        Each array's spec and values.

    Raises
    ------
    SettingsConflictError
        If the group exists with other provenance or on another raster; names what differs.
    """
    group = create_raster_group(
        objects,
        grid_path,
        name,
        {array: spec for array, (spec, _) in arrays.items()},
        provenance=provenance,
        extra=extra,
        overwrite=overwrite,
    )
    if group.is_sound():
        return
    for array, (_, values) in arrays.items():
        group.write_array(array, values)
    group.finish()
