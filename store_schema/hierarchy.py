"""All nodes and objects of a store at one look: what validation, garbage collection and finalizing work on."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from store_schema.claims import our_attrs
from store_schema.group_attributes import parsed
from store_schema.inventory import LIST_THREADS
from store_schema.objects import METADATA, PARTIAL, Objects

CHUNK_KEY = re.compile(r"(?P<array>.+)/c/(?P<index>\d+(/\d+)*)")


@dataclass(frozen=True)
class Hierarchy:
    """A listing.

    Attributes
    ----------
    sizes
        Key → bytes of every object.
    nodes
        Path → metadata document of every group and array; None where it can't be parsed. The root is ``""``.
    """

    sizes: dict[str, int]
    nodes: dict[str, dict[str, Any] | None]

    @cached_property
    def ours(self) -> dict[str, dict[str, Any]]:
        """Path → what slidestream says, of the groups of ours whose parents are ours too."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(self.nodes, key=lambda p: (p.count("/"), p)):
            attrs = our_attrs(self.nodes[path])
            if attrs is not None and (path == "" or parent(path) in found):
                found[path] = attrs
        return found

    def children(self, path: str) -> list[str]:
        """Return the paths of the nodes right below a node."""
        return self._children.get(path, [])

    @cached_property
    def _children(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in sorted(self.nodes):
            if path:
                found.setdefault(parent(path), []).append(path)
        return found


def scan(objects: Objects) -> Hierarchy:
    """List a store and read its metadata documents, several at a time."""
    sizes = dict(sorted(objects.sizes("").items()))
    keys = [key for key in sizes if key.rsplit("/", 1)[-1] == METADATA and not is_temporary(key)]
    with ThreadPoolExecutor(LIST_THREADS) as pool:
        texts = list(pool.map(objects.get, keys))
    nodes = {
        key[: -len(METADATA)].rstrip("/"): parsed(text)
        for key, text in zip(keys, texts, strict=True)
    }
    return Hierarchy(sizes, nodes)


def is_temporary(key: str) -> bool:
    """Tell whether an object is, or lies in, something temporary."""
    return any(part.endswith(PARTIAL) for part in key.split("/"))


def parent(path: str) -> str:
    """Return the path of the node above."""
    return path.rpartition("/")[0]


def is_array(node: dict[str, Any] | None) -> bool:
    """Tell whether a metadata document is that of an array."""
    return node is not None and node.get("node_type") == "array"


def chunk_index(text: str) -> tuple[int, ...]:
    """Return the index of a chunk from what ``CHUNK_KEY`` found of it."""
    return tuple(map(int, text.split("/")))


def chunk_counts(node: dict[str, Any]) -> tuple[int, ...] | None:
    """Return the number of chunks along each dimension of an array, None if its document doesn't say."""
    try:
        chunks = node["chunk_grid"]["configuration"]["chunk_shape"]
        return tuple(-(-size // chunk) for size, chunk in zip(node["shape"], chunks, strict=True))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
