"""Idempotent creation: the first to claim a group settles what it is made with.

Others go on if they want the same, and get the difference named if not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from store_schema import names
from store_schema.errors import SettingsConflictError, StoreError
from store_schema.group_attributes import (
    altered,
    parsed,
    problem_of_group,
    said,
    unreadable,
    with_digest,
)
from store_schema.layout import ArrayLayout, document
from store_schema.mend import put_over
from store_schema.objects import METADATA, PARTIAL, Objects

CONSOLIDATED = "consolidated_metadata"
_SHOWN = 8  # differences that a sentence can name


def node_key(path: str) -> str:
    """Return the key of a node's metadata document."""
    return f"{path}/{METADATA}" if path else METADATA


def read_node(objects: Objects, path: str) -> dict[str, Any] | None:
    """Return the ``zarr.json`` of a group or array, or None if there is none.

    Raises
    ------
    DamagedMetadataError
        If the document is no JSON object.
    """
    text = objects.get(node_key(path))
    if text is None:
        return None
    node = parsed(text)
    if node is None:
        raise unreadable(objects.url, path)
    return node


def our_attrs(node: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what slidestream says of a group, or None if the group isn't ours."""
    ours = said(node)
    return (
        ours
        if node is not None and node.get("node_type") == "group" and ours and names.KIND in ours
        else None
    )


def group_attrs(objects: Objects, path: str, kind: str) -> dict[str, Any] | None:
    """Return what slidestream says of a group of this kind, or None if there is no such group.

    Raises
    ------
    DamagedMetadataError
        If the document is no JSON object, or one of ours that lacks or garbles what it must say.
    """
    node = read_node(objects, path)
    ours = _sound(objects, path, node)
    return ours if ours is not None and ours[names.KIND] == kind else None


def _sound(objects: Objects, path: str, node: Mapping[str, Any] | None) -> dict[str, Any] | None:
    ours = said(node)
    if node is None or ours is None:
        return None
    problem = problem_of_group(node)
    if problem is not None:
        raise altered(objects.url, path, problem)
    return ours


def group_document(ours: Mapping[str, Any], foreign: Mapping[str, Any] | None = None) -> bytes:
    """Return the ``zarr.json`` of a group of ours, with attributes for other readers besides."""
    attributes = {**(foreign or {}), names.ATTR: with_digest(ours)}
    return document({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def ensure_container(objects: Objects, path: str) -> None:
    """Make the group that holds a grid's runs (``<grid>/features`` …), or mend its document."""
    _ensure(objects, path, group_document({names.KIND: names.KIND_CONTAINER}))


def ensure_array(objects: Objects, path: str, layout: ArrayLayout) -> None:
    """Write an array's metadata unless it is there and says the same; further attributes are left alone."""
    _ensure(objects, path, document(layout.metadata()))


def says(node: Mapping[str, Any] | None, expected: Mapping[str, Any]) -> bool:
    """Tell whether a document says all that is expected, and nothing else but further attributes."""
    if node is None or not {*expected, CONSOLIDATED} >= set(node):
        return False
    attributes = node.get("attributes")
    return isinstance(attributes, dict) and all(
        attributes.items() >= value.items()
        if part == "attributes"
        else node.get(part, []) == value  # what is empty may be left out
        for part, value in expected.items()
    )


def _ensure(objects: Objects, path: str, data: bytes) -> None:
    """Write a document that others of the same group would write just so: nobody has to be first."""
    text = objects.get(node_key(path))
    if text is None:
        objects.put_new(node_key(path), data)
    elif text != data and not says(parsed(text), json.loads(data)):
        objects.put(node_key(path), data)


def claim(
    objects: Objects,
    path: str,
    ours: Mapping[str, Any],
    *,
    compare: tuple[str, ...] = (names.PROVENANCE,),
    foreign: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    contents_stay: bool = False,
) -> dict[str, Any]:
    """Make a group, or find that it is there and made the same way.

    A document that is no JSON object counts as not there.

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
        Replace a group that was made otherwise, or whose document is damaged, with all that it holds; one that was
        made the same way is kept, so that an interrupted ``--overwrite`` goes on where it was.
    contents_stay
        The groups below have claims of their own (those of a slide): only the document is ever replaced.

    Returns
    -------
    dict
        What the group in the store says: that of whoever came first.

    Raises
    ------
    SettingsConflictError
        Names every setting that differs, with both values.
    DamagedMetadataError
        If the group's document lacks or garbles what it must say.
    """
    key, data = node_key(path), group_document(ours, foreign)
    compare = (names.KIND, *compare)
    text = objects.get(key)
    node = parsed(text)
    stored = said(node)
    if node is None:
        if not contents_stay:
            _clear_unclaimed(objects, path, text, str(ours.get(names.FINGERPRINT)))
        if put_over(objects, key, text, data):
            drop_consolidated(objects)
    elif (
        overwrite
        and stored is not None
        and (problem_of_group(node) is not None or any(_conflicts(stored, ours, compare)))
    ):
        if contents_stay:
            objects.put(key, data)
        else:
            objects.delete_group(path)
            objects.put_new(key, data)
        drop_consolidated(objects)
    node = read_node(objects, path)
    stored = _sound(objects, path, node)
    if stored is None:
        raise StoreError(
            f"{path} in {objects.url} is there but its {METADATA} doesn't say that slidestream made it: choose another "
            f"name, or if it was made by slidestream and got damaged, remove its {METADATA} and run the command again"
        )
    found = list(_conflicts(stored, ours, compare))
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise SettingsConflictError(
            f"{path} was made with other settings ({'; '.join(found[:_SHOWN])}{more}): "
            "pass --overwrite to replace it, or choose another name"
        )
    if not (foreign or {}).items() <= (node or {}).get("attributes", {}).items():
        objects.put(key, group_document(stored, foreign))
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


def _clear_unclaimed(objects: Objects, path: str, text: bytes | None, made_by: str) -> None:
    """Delete objects of a group without a claim: nobody knows what made them.

    A grid's runs have claims of their own, and those that were made on just the grid that is being claimed are kept:
    they may be the work of days.
    """
    # temporary files may be those of whoever is claiming it right now
    keys = [key for key in objects.sizes(path) if not key.endswith(PARTIAL)]
    kept = tuple(_runs_of(objects, path, keys, made_by))
    orphans = [key for key in keys if key != node_key(path) and not key.startswith(kept)]
    if orphans and objects.get(node_key(path)) == text:  # again: it may just have been claimed
        for key in orphans:
            objects.delete(key)


def _runs_of(objects: Objects, path: str, keys: list[str], made_by: str) -> Iterator[str]:
    """Yield the prefixes of the runs below a grid whose claims name the grid's fingerprint, and of their containers."""
    for key in keys:
        run = key.removeprefix(f"{path}/").split("/")
        if len(run) != 3 or run[0] not in names.CONTAINERS or run[2] != METADATA:
            continue
        node = parsed(objects.get(key))
        if node is None or said(node) is None or problem_of_group(node) is not None:
            continue
        attrs = said(node) or {}
        if made_by in (attrs[names.FINGERPRINT], attrs[names.PROVENANCE].get(names.GRID_MADE_BY)):
            yield f"{path}/{run[0]}/{run[1]}/"
            yield f"{path}/{run[0]}/{METADATA}"


def differences(stored: Any, asked: Any, key: str = "") -> Iterator[str]:
    """Yield one phrase for each setting that differs: ``stain.method: stored 'none', asked 'macenko'``."""
    if isinstance(stored, Mapping) and isinstance(asked, Mapping):
        for name in sorted({*stored, *asked}):
            yield from differences(
                stored.get(name), asked.get(name), f"{key}.{name}" if key else str(name)
            )
    elif stored != asked:
        yield f"{key}: stored {stored!r}, asked {asked!r}"
