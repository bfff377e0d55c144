"""Idempotent creation: the first to claim a group settles what it is made with.

Others go on if they want the same, and get the difference named if not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from store_schema import names
from store_schema.errors import SettingsConflictError, StoreError
from store_schema.layout import ArrayLayout, document
from store_schema.objects import METADATA, PARTIAL, Objects

CONSOLIDATED = "consolidated_metadata"


def node_key(path: str) -> str:
    """Return the key of a node's metadata document."""
    return f"{path}/{METADATA}" if path else METADATA


def read_node(objects: Objects, path: str) -> dict[str, Any] | None:
    """Return the ``zarr.json`` of a group or array, or None if there is none.

    Raises
    ------
    StoreError
        If the document is no JSON object.
    """
    text = objects.get(node_key(path))
    if text is None:
        return None
    try:
        node = json.loads(text)
    except ValueError as error:
        raise StoreError(f"{node_key(path)} in {objects.url} is damaged: {error}") from error
    if not isinstance(node, dict):
        raise StoreError(f"{node_key(path)} in {objects.url} is damaged: it is no JSON object")
    return node


def our_attrs(node: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what slidestream says of a group, or None if the group isn't ours."""
    if node is None or node.get("node_type") != "group":
        return None
    attributes = node.get("attributes")
    ours = attributes.get(names.ATTR) if isinstance(attributes, dict) else None
    return ours if isinstance(ours, dict) and names.KIND in ours else None


def group_attrs(objects: Objects, path: str, kind: str) -> dict[str, Any] | None:
    """Return what slidestream says of a group of this kind, or None if there is no such group."""
    ours = our_attrs(read_node(objects, path))
    return ours if ours is not None and ours[names.KIND] == kind else None


def group_document(ours: Mapping[str, Any], foreign: Mapping[str, Any] | None = None) -> bytes:
    """Return the ``zarr.json`` of a group of ours, with attributes for other readers besides."""
    attributes = {**(foreign or {}), names.ATTR: ours}
    return document({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def ensure_container(objects: Objects, path: str) -> None:
    """Make the group that holds a grid's runs (``<grid>/features`` …) unless it is there."""
    objects.put_new(node_key(path), group_document({names.KIND: names.KIND_CONTAINER}))


def ensure_array(objects: Objects, path: str, layout: ArrayLayout) -> None:
    """Write an array's metadata unless it is there."""
    objects.put_new(node_key(path), document(layout.metadata()))


def claim(
    objects: Objects,
    path: str,
    ours: Mapping[str, Any],
    *,
    compare: tuple[str, ...] = (names.PROVENANCE,),
    foreign: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Make a group, or find that it is there and made the same way.

    Parameters
    ----------
    objects, path
        Where the group is.
    ours
        What goes under our attribute key.
    compare
        Keys of ``ours`` that must be equal in a group that exists.
    foreign
        Further attributes of the group, e.g. CF ``coordinates``.
    overwrite
        Replace a group that was made otherwise, with all that it holds; one that was made the same way is kept, so
        that an interrupted ``--overwrite`` goes on where it was.

    Returns
    -------
    dict
        What the group in the store says: that of whoever came first.

    Raises
    ------
    SettingsConflictError
        Names every setting that differs, with both values.
    """
    stored = our_attrs(read_node(objects, path))
    if overwrite and stored is not None and any(_conflicts(stored, ours, compare)):
        objects.delete_group(path)
    elif objects.get(node_key(path)) is None:
        _clear_unclaimed(objects, path)
    if objects.put_new(node_key(path), group_document(ours, foreign)):
        drop_consolidated(objects)
    stored = our_attrs(read_node(objects, path))
    if stored is None:
        raise StoreError(
            f"{path} in {objects.url} is there but not made by slidestream: choose another name"
        )
    found = list(_conflicts(stored, ours, compare))
    if found:
        raise SettingsConflictError(
            f"{path} was made with other settings ({'; '.join(found)}): "
            "pass --overwrite to replace it, or choose another name"
        )
    return stored


def drop_consolidated(objects: Objects) -> None:
    """Drop consolidated metadata, which would hide what was added from plain zarr and xarray."""
    root = read_node(objects, "")
    if root is not None and CONSOLIDATED in root:
        kept = {key: value for key, value in root.items() if key != CONSOLIDATED}
        objects.put(node_key(""), document(kept))


def _conflicts(
    stored: Mapping[str, Any], ours: Mapping[str, Any], compare: tuple[str, ...]
) -> Iterator[str]:
    asked = json.loads(json.dumps(ours))
    for key in compare:
        prefix = "" if key == names.PROVENANCE else key
        yield from differences(stored.get(key), asked.get(key), prefix)


def _clear_unclaimed(objects: Objects, path: str) -> None:
    """Delete objects of a group without a claim: nobody knows what made them."""
    # temporary files may be those of whoever is claiming it right now
    orphans = [key for key in objects.sizes(path) if not key.endswith(PARTIAL)]
    if (
        orphans and objects.get(node_key(path)) is None
    ):  # looked at again: it may just have been claimed
        for key in orphans:
            objects.delete(key)


def differences(stored: Any, asked: Any, key: str = "") -> Iterator[str]:
    """Yield one phrase for each setting that differs: ``stain.method: stored 'none', asked 'macenko'``."""
    if isinstance(stored, Mapping) and isinstance(asked, Mapping):
        for name in sorted({*stored, *asked}):
            yield from differences(
                stored.get(name), asked.get(name), f"{key}.{name}" if key else str(name)
            )
    elif stored != asked:
        yield f"{key}: stored {stored!r}, asked {asked!r}"
