"""Is an array what its layout says? Its document, and every chunk with its checksum."""

from __future__ import annotations

from store_schema.chunks import chunk_indices, problem_of
from store_schema.claims import node_key, says
from store_schema.group_attributes import parsed
from store_schema.layout import ArrayLayout
from store_schema.objects import Objects


def array_is_sound(objects: Objects, path: str, layout: ArrayLayout) -> bool:
    """Tell by reading it whether an array is all there; a chunk of a mask may be missing, which is empty ground."""
    if not says(parsed(objects.get(node_key(path))), layout.metadata()):
        return False
    for index in chunk_indices(layout):
        data = objects.get(f"{path}/{layout.key(index)}")
        if layout.keep_empty if data is None else problem_of(data, layout) is not None:
            return False
    return True
