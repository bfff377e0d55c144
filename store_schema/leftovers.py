"""Garbage: what interrupted runs left behind. Only what is surely ours and surely of no use is ever deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from store_schema.hierarchy import (
    CHUNK_KEY,
    Hierarchy,
    chunk_counts,
    chunk_index,
    is_array,
    is_temporary,
    parent,
    scan,
)
from store_schema.objects import METADATA

if TYPE_CHECKING:
    from store_schema.store import Store

MIN_AGE_S = 3600.0  # a temporary file may be that of a run that is writing right now

Reason = Literal["temporary", "beyond", "unclaimed"]


@dataclass(frozen=True)
class Leftover:
    """An object of no use.

    Attributes
    ----------
    key
        Its key in the store.
    reason
        ``temporary``: of a write or a deletion that was killed; ``beyond``: a chunk outside of its array;
        ``unclaimed``: an array, or a chunk, of a group that nothing says the origin of.
    size
        Bytes.
    """

    key: str
    reason: Reason
    size: int


def leftovers(store: Store, min_age_s: float = MIN_AGE_S) -> list[Leftover]:
    """Return what may be deleted, without deleting it.

    Parameters
    ----------
    store
        The store.
    min_age_s
        Temporary files younger than this are left alone.
    """
    hierarchy = scan(store.objects)
    return [
        item
        for item in find_leftovers(hierarchy)
        if item.reason != "temporary" or store.objects.age_s(item.key) >= min_age_s
    ]


def remove_leftovers(
    store: Store, min_age_s: float = MIN_AGE_S, *, dry_run: bool = False
) -> list[Leftover]:
    """Delete what is of no use and return it; with ``dry_run`` only return it."""
    found = leftovers(store, min_age_s)
    if not dry_run:
        for item in found:
            store.objects.delete(item.key)
        store.objects.remove_empty_folders(min_age_s)
    return found


def find_leftovers(hierarchy: Hierarchy) -> Iterator[Leftover]:
    """Yield the leftovers in a listing, whatever their age."""
    for key, size in hierarchy.sizes.items():
        reason = _reason(hierarchy, key)
        if reason is not None:
            yield Leftover(key, reason, size)


def _reason(hierarchy: Hierarchy, key: str) -> Reason | None:
    if is_temporary(key):
        return "temporary"
    chunk = CHUNK_KEY.fullmatch(key)
    array = chunk["array"] if chunk else key.removesuffix(f"/{METADATA}")
    group, node = parent(array), hierarchy.nodes.get(array)
    if not (chunk or is_array(node)) or not _is_below_slide(hierarchy, group):
        return None  # a group's document, or a file that isn't ours
    if group not in hierarchy.nodes or array not in hierarchy.nodes:
        return "unclaimed"
    if chunk is None or node is None:
        return None
    index, counts = chunk_index(chunk["index"]), chunk_counts(node)
    if counts is None:
        return None  # a damaged document says nothing of its chunks
    inside = len(index) == len(counts) and all(
        i < count for i, count in zip(index, counts, strict=True)
    )
    return None if inside else "beyond"


def _is_below_slide(hierarchy: Hierarchy, path: str) -> bool:
    """Tell whether the nearest group that is there is ours, and not the root: other people's folders are left alone."""
    while path and path not in hierarchy.nodes:
        path = parent(path)
    return path != "" and path in hierarchy.ours
