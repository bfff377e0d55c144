"""What to do about what validation found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from store_schema.validate import Violation

_AGAIN = "run the command that made it again: it makes what is missing or damaged anew"
_OVERWRITE = "run the command that made it again with --overwrite"
_GC = "`slidestream store gc` removes it"
_FINALIZE = "`slidestream store finalize` writes it anew"
_MOVE = (
    "not made by slidestream, or no longer known as such: move it out of the store, and if it was, run the command "
    "that made it again"
)
_HARMLESS = "nothing: readers pass over it"
_VERSION = "use the slidestream that wrote the store"
_ROOT = "put the root's zarr.json back from a backup, or copy it from another store of the same schema version"

_REMEDIES: Mapping[str, str] = {
    "missing-block": _AGAIN,
    "damaged-block": _AGAIN,
    "missing-array": _AGAIN,
    "wrong-dtype": _AGAIN,
    "wrong-dims": _AGAIN,
    "wrong-chunks": _AGAIN,
    "wrong-encoding": _AGAIN,
    "damaged-metadata": _AGAIN,
    "missing-metadata": _AGAIN,
    "incomplete": _AGAIN,
    "wrong-attribute": _OVERWRITE,
    "stale-metadata": _FINALIZE,
    "leftover": _GC,
    "unknown-node": _MOVE,
    "foreign-object": _MOVE,
    "foreign-attribute": _HARMLESS,
    "schema-version": _VERSION,
}


def remedies(violations: Iterable[Violation]) -> dict[str, str]:
    """Return code → what to do, for each code that occurs.

    Parameters
    ----------
    violations
        As of :func:`store_schema.validate.validate`.
    """
    found = {}
    for violation in violations:
        at_root = violation.path == "" and violation.code in ("damaged-metadata", "wrong-attribute")
        found[violation.code] = _ROOT if at_root else _REMEDIES[violation.code]
    return dict(sorted(found.items()))
