"""Is a store what the schema says? Every departure is listed; nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from store_schema import names
from store_schema.blocks import from_attrs
from store_schema.chunks import chunk_indices, problem_of
from store_schema.claims import CONSOLIDATED, our_attrs
from store_schema.errors import DamagedMetadataError, NotAStoreError
from store_schema.finalize import inline
from store_schema.grids import FOREIGN, raster_layout
from store_schema.group_attributes import problem_of_group
from store_schema.hierarchy import CHUNK_KEY, Hierarchy, is_array, is_temporary, parent, scan
from store_schema.layout import (
    GRID_ARRAYS,
    SELECTION_ARRAYS,
    ArrayLayout,
    grid_array,
    selection_array,
)
from store_schema.leftovers import find_leftovers
from store_schema.objects import METADATA, Objects, open_objects
from store_schema.prototypes import prototype_layouts
from store_schema.store import Store

# part of an array's metadata document → code of a departure from it
ARRAY_CODES = {
    "data_type": "wrong-dtype",
    "shape": "wrong-dims",
    "dimension_names": "wrong-dims",
    "chunk_grid": "wrong-chunks",
    "chunk_key_encoding": "wrong-chunks",
    "codecs": "wrong-encoding",
    "fill_value": "wrong-encoding",
    "attributes": "foreign-attribute",
}
CHILD_KIND = {
    names.KIND_STORE: names.KIND_SLIDE,
    names.KIND_SLIDE: names.KIND_GRID,
    names.KIND_GRID: names.KIND_CONTAINER,
}


@dataclass(frozen=True)
class Violation:
    """One departure from the schema.

    Attributes
    ----------
    path
        Of the node or object in the store.
    problem
        What is wrong, in words.
    code
        Stable and machine-readable: ``missing-block``, ``damaged-block``, ``wrong-dtype``, ``wrong-dims``,
        ``wrong-chunks``, ``wrong-encoding``, ``foreign-attribute``, ``wrong-attribute``, ``missing-array``,
        ``unknown-node``, ``foreign-object``, ``damaged-metadata``, ``missing-metadata``, ``incomplete``, ``leftover``,
        ``stale-metadata`` or ``schema-version``. What to do about each: :func:`store_schema.remedies.remedies`.
    """

    path: str
    problem: str
    code: str

    def __str__(self) -> str:
        return f"{self.path or '/'}: {self.problem} [{self.code}]"


def validate(store: Store | str | os.PathLike[str]) -> list[Violation]:
    """Check a whole store: structure, metadata, completeness, and the checksum of every object.

    Parameters
    ----------
    store
        A store, or its path or URL; that also works where :func:`open_store` refuses the schema version.

    Returns
    -------
    list of Violation
        Empty for a store that is complete and sound.

    Raises
    ------
    NotAStoreError
        If there is no store at all.
    """
    objects = store.objects if isinstance(store, Store) else open_objects(store)
    hierarchy = scan(objects)
    if "" in hierarchy.nodes and hierarchy.nodes[""] is None:
        return list(_metadata(hierarchy))
    root = hierarchy.ours.get("")
    if root is None or root[names.KIND] != names.KIND_STORE:
        raise NotAStoreError(f"{objects.url} is no slidestream store: give the path of one")
    version = root.get(names.VERSION)
    if version != names.SCHEMA_VERSION:
        problem = (
            f"schema version {version} is not {names.SCHEMA_VERSION}, which this slidestream knows"
        )
        return [Violation("", problem, "schema-version")]
    return sorted(
        {
            *_metadata(hierarchy),
            *_consolidated(hierarchy),
            *_foreign_objects(hierarchy),
            *_groups(objects, hierarchy),
            *(
                Violation(item.key, f"is of no use: {item.reason}", "leftover")
                for item in find_leftovers(hierarchy)
            ),
        },
        key=lambda violation: (violation.path, violation.code, violation.problem),
    )


def _metadata(hierarchy: Hierarchy) -> Iterator[Violation]:
    for path, node in hierarchy.nodes.items():
        if node is None:
            yield Violation(path, "the metadata document can't be read", "damaged-metadata")
        elif path and our_attrs(node) is not None and parent(path) not in hierarchy.nodes:
            problem = "the metadata document is missing, and there are groups below"
            yield Violation(parent(path), problem, "missing-metadata")


def _consolidated(hierarchy: Hierarchy) -> Iterator[Violation]:
    root = hierarchy.nodes[""] or {}
    others = {path: node for path, node in hierarchy.nodes.items() if path}
    if CONSOLIDATED in root and root[CONSOLIDATED] != inline(others):
        yield Violation("", "its consolidated metadata is not that of the store", "stale-metadata")


def _foreign_objects(hierarchy: Hierarchy) -> Iterator[Violation]:
    for key in hierarchy.sizes:
        is_zarr = key.rpartition("/")[2] == METADATA or CHUNK_KEY.fullmatch(key) is not None
        if not is_zarr and not is_temporary(key):
            yield Violation(key, "the schema has no such file", "foreign-object")


def _groups(objects: Objects, hierarchy: Hierarchy) -> Iterator[Violation]:
    checks: list[tuple[str, ArrayLayout]] = []
    for path, ours in hierarchy.ours.items():
        problem = problem_of_group(hierarchy.nodes[path] or {})
        if problem is not None:
            yield Violation(path, problem, "wrong-attribute")
            continue
        yield from _attributes(hierarchy, path, ours)
        try:
            layouts = _layouts(objects, hierarchy, path, ours)
        except DamagedMetadataError as error:
            yield Violation(path, str(error), "wrong-attribute")
            continue
        yield from _children(hierarchy, path, ours, set(layouts))
        if ours.get(names.COMPLETE) is False:
            yield Violation(path, "was not written to its end", "incomplete")
        yield from _lost(hierarchy, path, ours, layouts)
        for name, layout in layouts.items():
            departures = list(_array(hierarchy, f"{path}/{name}", layout))
            yield from departures
            if all(violation.code == "foreign-attribute" for violation in departures):
                checks.append((f"{path}/{name}", layout))
    with ThreadPoolExecutor(objects.read_threads) as pool:
        for found in pool.map(lambda item: _blocks(objects, hierarchy, *item), checks):
            yield from found


def _attributes(hierarchy: Hierarchy, path: str, ours: Mapping[str, Any]) -> Iterator[Violation]:
    attributes = (hierarchy.nodes[path] or {})["attributes"]
    kind, of_grid = ours[names.KIND], hierarchy.ours.get(parent(parent(path)), {})
    needed = FOREIGN if kind == names.KIND_GRID else {}
    for name in sorted(set(attributes) - {names.ATTR, *needed}):
        yield Violation(path, f"attribute {name!r} is not of the schema", "foreign-attribute")
    for name, value in needed.items():
        if attributes.get(name) != value:
            yield Violation(path, f"attribute {name!r} is not {value!r}", "wrong-attribute")
    if kind == names.KIND_SLIDE and ours["slide_id"] != path:
        yield Violation(path, f"slide_id is {ours['slide_id']!r}", "wrong-attribute")
    if kind in (names.FEATURES, names.SCORES):
        for key in (names.N_TILES, names.BLOCK_TILES):
            if ours[key] != of_grid.get(key):
                problem = f"{key} is {ours[key]}, of its grid {of_grid.get(key)}"
                yield Violation(path, problem, "wrong-attribute")
    if kind == names.KIND_GRID:
        for raster in ours[names.RASTERS]:
            mask = f"{path}/{names.MASKS}/{raster}"
            for lost in {mask, f"{mask}/{names.MASK}"} - set(hierarchy.nodes):
                yield Violation(lost, "this mask of the grid is missing", "missing-array")


def _children(
    hierarchy: Hierarchy, path: str, ours: Mapping[str, Any], arrays: set[str]
) -> Iterator[Violation]:
    kind = ours[names.KIND]
    expected = path.rpartition("/")[2] if kind == names.KIND_CONTAINER else CHILD_KIND.get(kind)
    for child in hierarchy.children(path):
        name = child.rpartition("/")[2]
        if is_array(hierarchy.nodes[child]) and name in arrays:
            continue
        found = hierarchy.ours.get(child, {}).get(names.KIND)
        fits = found == expected and (found != names.KIND_CONTAINER or name in names.CONTAINERS)
        fits |= (found, name, path) == (names.KIND_CONTAINER, names.PROTOTYPES, "")
        if hierarchy.nodes[child] is not None and (found is None or not fits):
            yield Violation(child, f"the schema has no such thing in a {kind}", "unknown-node")


def _layouts(
    objects: Objects, hierarchy: Hierarchy, path: str, ours: Mapping[str, Any]
) -> dict[str, ArrayLayout]:
    """Return the arrays that a group must have, as they must be."""
    kind = ours[names.KIND]
    if kind == names.KIND_GRID:
        return {name: grid_array(name, ours[names.N_TILES]) for name in GRID_ARRAYS}
    if kind == names.SELECTIONS:
        return {name: selection_array(name, ours[names.SELECTED]) for name in SELECTION_ARRAYS}
    if kind == names.PROTOTYPES:
        return prototype_layouts(ours)
    if kind in (names.FEATURES, names.SCORES):
        return from_attrs(objects, path, ours).layouts
    if kind == names.MASKS:
        return dict(_rasters(objects.url, hierarchy, path, ours))
    return {}


def _lost(
    hierarchy: Hierarchy, path: str, ours: Mapping[str, Any], layouts: Mapping[str, ArrayLayout]
) -> Iterator[Violation]:
    """Yield what a mask group has lost since it was finished; nothing else tells it from empty ground."""
    for array, count in ours.get(names.CHUNKS, {}).items():
        if f"{path}/{array}" not in hierarchy.nodes:
            yield Violation(f"{path}/{array}", "this array is missing", "missing-array")
        elif array in layouts:
            keys = (
                f"{path}/{array}/{layouts[array].key(i)}" for i in chunk_indices(layouts[array])
            )
            stored = sum(key in hierarchy.sizes for key in keys)
            if stored < count:
                problem = f"{count - stored} of its {count} chunks are missing"
                yield Violation(f"{path}/{array}", problem, "missing-block")


def _rasters(
    url: str, hierarchy: Hierarchy, path: str, ours: Mapping[str, Any]
) -> Iterator[tuple[str, ArrayLayout]]:
    """Yield a mask group's arrays: those it speaks of, and until it is finished those that are there."""
    known = {f"{path}/{name}" for name in ours.get(names.LAYOUTS, {})}
    for child in sorted({*hierarchy.children(path), *known}):
        node = hierarchy.nodes.get(child)
        if child in known or (not known and node is not None and is_array(node)):
            yield child.rpartition("/")[2], raster_layout(url, child, node or {}, ours)


def _array(hierarchy: Hierarchy, path: str, layout: ArrayLayout) -> Iterator[Violation]:
    if path not in hierarchy.nodes:
        yield Violation(path, "this array is missing", "missing-array")
        return
    node = hierarchy.nodes[path]
    if node is None:
        return  # already said
    expected = _plain(layout.metadata())
    for part, value in expected.items():
        found = node.get(part, [])  # what is empty may be left out
        if found == value:
            continue
        code = ARRAY_CODES.get(part, "wrong-encoding")
        if part == "attributes" and not (
            isinstance(found, dict) and found.items() >= value.items()
        ):
            code = "wrong-attribute"  # not one more, but one less
        yield Violation(path, f"{part} is {found!r} instead of {value!r}", code)
    for part in sorted(set(node) - set(expected)):
        yield Violation(path, f"an array's document has no part {part!r}", "wrong-encoding")


def _plain(value: Any) -> Any:
    """Return what a value is after a turn through JSON."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _blocks(
    objects: Objects, hierarchy: Hierarchy, path: str, layout: ArrayLayout
) -> list[Violation]:
    found = []
    for index in chunk_indices(layout):
        key = f"{path}/{layout.key(index)}"
        data = objects.get(key) if key in hierarchy.sizes else None
        if data is None and layout.keep_empty:
            found.append(Violation(key, "this block is missing", "missing-block"))
            folder, _, name = key.rpartition("/")
            if name in objects.children(folder):
                problem = "a folder lies where a block belongs"
                found.append(Violation(key, problem, "foreign-object"))
        damage = None if data is None else problem_of(data, layout)
        if damage is not None:
            found.append(Violation(key, f"this block {damage}", "damaged-block"))
    return found
