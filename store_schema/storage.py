"""The store as zarr sees it, guarded: where a block is missing zarr would read fill values, this raises."""

from __future__ import annotations

import re
from pathlib import Path

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from store_schema import names
from store_schema.chunks import checksum_holds, damaged, missing
from store_schema.hierarchy import CHUNK_KEY, chunk_index
from store_schema.objects import LocalObjects, Objects

# empty ground of a mask costs no object, so there a missing chunk says nothing
_MAY_BE_EMPTY = re.compile(rf"[^/]+/[^/]+/{names.MASKS}/.*")


class GuardedStore(WrapperStore[Store]):
    """A zarr store, read-only, whose chunks are there and sound, or reading them raises.

    Works wherever a zarr store does, e.g. ``xarray.open_zarr(guarded, group=…, consolidated=False)``.

    Parameters
    ----------
    store
        The store to guard.
    allow_missing
        Leave missing chunks to zarr, which reads them as fill values; checksums are still checked.
    """

    def __init__(self, store: Store, *, allow_missing: bool = False) -> None:
        super().__init__(store)
        self.allow_missing = allow_missing

    def _with_store(self, store: Store) -> GuardedStore:
        return type(self)(store, allow_missing=self.allow_missing)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object.

        Raises
        ------
        IncompleteError
            If it is a chunk that isn't there; names the array and the block.
        DamagedBlockError
            If it is a chunk that fails its checksum; names the object.
        """
        data = await super().get(key, prototype, byte_range)
        chunk = CHUNK_KEY.fullmatch(key)
        if chunk is None:
            return data
        if data is None:
            if self.allow_missing or _MAY_BE_EMPTY.fullmatch(key):
                return None
            raise missing(chunk["array"], chunk_index(chunk["index"])[0])
        if byte_range is None and not checksum_holds(data.to_bytes()):
            raise damaged(key, "fails its checksum")
        return data


def zarr_store(objects: Objects, *, allow_missing: bool = False) -> GuardedStore:
    """Return a store's objects as a guarded, read-only zarr store."""
    store: Store
    if isinstance(objects, LocalObjects):
        store = LocalStore(Path(objects.root), read_only=True)
    else:
        store = FsspecStore.from_url(objects.url, read_only=True)
    return GuardedStore(store, allow_missing=allow_missing)
