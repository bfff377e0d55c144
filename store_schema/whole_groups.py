"""Groups that are written whole by one process: selections, prototypes. ``complete`` is set last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from store_schema import names
from store_schema.chunks import Array, write_array
from store_schema.claims import claim, ensure_array, ensure_container, group_document, node_key
from store_schema.ids import check_name
from store_schema.layout import ArrayLayout
from store_schema.objects import Objects
from store_schema.soundness import array_is_sound
from store_schema.specs import fingerprint


def write_whole_group(
    objects: Objects,
    parent: str,
    kind: str,
    name: str,
    arrays: Mapping[str, tuple[ArrayLayout, Array]],
    *,
    provenance: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a group of arrays whole; the same again is a no-op, what was interrupted or got damaged is completed.

    Parameters
    ----------
    objects, parent
        Path of what it belongs to: a grid, or the root, which is empty.
    kind
        E.g. ``selections``.
    name
        Of the run.
    arrays
        Layout and values of each array.
    provenance
        What decides the values; JSON-able.
    facts
        Further keys under our attribute key, e.g. how many tiles are selected; not part of the fingerprint.
    extra
        What else is to be known of the group; JSON-able, decides nothing.
    overwrite
        Replace a group of other settings, or whose document is damaged.

    Raises
    ------
    SettingsConflictError
        If the group exists with other provenance or facts.
    """
    check_name(name, f"{kind} name")
    container = f"{parent}/{kind}" if parent else kind
    ensure_container(objects, container)
    path = f"{container}/{name}"
    ours = {
        names.KIND: kind,
        names.FINGERPRINT: fingerprint(provenance),
        names.PROVENANCE: provenance,
        **(facts or {}),
        **({} if extra is None else {names.EXTRA: dict(extra)}),
        names.COMPLETE: False,
    }
    compare = (names.PROVENANCE, *(facts or {}))
    stored = claim(objects, path, ours, compare=compare, overwrite=overwrite)
    if stored[names.COMPLETE] and all(
        array_is_sound(objects, f"{path}/{array}", layout) for array, (layout, _) in arrays.items()
    ):
        return
    for array, (layout, values) in arrays.items():
        check_name(array, "array name")
        ensure_array(objects, f"{path}/{array}", layout)
        write_array(objects, f"{path}/{array}", layout, values)
    objects.put(node_key(path), group_document({**ours, names.COMPLETE: True}))
