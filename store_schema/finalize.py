"""Consolidated metadata: one document for other readers to open a finished store quickly. We never read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from store_schema.claims import CONSOLIDATED, node_key
from store_schema.group_attributes import unreadable
from store_schema.hierarchy import scan
from store_schema.layout import document

if TYPE_CHECKING:
    from store_schema.store import Store


def finalize(store: Store) -> int:
    """Write consolidated metadata into the root; adding anything to the store drops it again.

    Parameters
    ----------
    store
        The store.

    Returns
    -------
    int
        Number of groups and arrays in it.

    Raises
    ------
    DamagedMetadataError
        If a metadata document is no JSON object.
    """
    nodes = scan(store.objects).nodes
    broken = [path for path, node in nodes.items() if node is None]
    if broken:
        raise unreadable(store.url, broken[0])
    root = {key: value for key, value in (nodes.pop("") or {}).items() if key != CONSOLIDATED}
    store.objects.put(node_key(""), document({**root, CONSOLIDATED: inline(nodes)}))
    return len(nodes)


def inline(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Return documents in the form of zarr-python; it isn't part of the Zarr v3 specification (yet)."""
    return {"kind": "inline", "must_understand": False, "metadata": dict(nodes)}
