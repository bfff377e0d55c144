"""What the attributes of a group of ours must hold. Documents get damaged: they are checked here, and nowhere else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from store_schema import names
from store_schema.errors import DamagedMetadataError
from store_schema.objects import METADATA
from store_schema.specs import GridGeometry, GridSpec, SlideRecord, fingerprint

_Check = Callable[[Any], bool]

_MAKE_ANEW = "run the command that made it again, it writes the document anew"
_OVERWRITE = "run the command that made it again with --overwrite"
_ROOT = "put it back from a backup, or copy it from another store of the same schema version"


def parsed(text: bytes | None) -> dict[str, Any] | None:
    """Return a metadata document, or None if it is no JSON object or fails the digest in it."""
    try:
        node = json.loads(text or b"")
    except ValueError:
        return None
    if not isinstance(node, dict):
        return None
    ours = said(node) or {}
    return node if ours.get(names.DIGEST) in (None, _digest(ours)) else None


def unreadable(
    url: str, path: str, problem: str = "it is no JSON object, or fails its digest"
) -> DamagedMetadataError:
    """Return the error for a document that counts as not there when it is written again."""
    remedy = _MAKE_ANEW if path else _ROOT
    return DamagedMetadataError(f"{_key(path)} in {url} is damaged ({problem}): {remedy}")


def altered(url: str, path: str, problem: str) -> DamagedMetadataError:
    """Return the error for a document that says what it can't; ``problem`` as of :func:`problem_of_group`."""
    remedy = _OVERWRITE if path else _ROOT
    return DamagedMetadataError(f"{_key(path)} in {url} is damaged ({problem}): {remedy}")


def said(node: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what slidestream says in a document, sound or not; None if it says nothing."""
    attributes = None if node is None else node.get("attributes")
    ours = attributes.get(names.ATTR) if isinstance(attributes, dict) else None
    return ours if isinstance(ours, dict) else None


def problem_of_group(node: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the document of a group of ours, None if nothing is missing or garbled."""
    if node.get("zarr_format") != 3 or node.get("node_type") != "group":
        return "it is not that of a Zarr v3 group"
    ours = said(node) or {}
    kind = ours.get(names.KIND)
    needed = _NEEDED.get(kind) if isinstance(kind, str) else None
    if needed is None:
        return f"{names.KIND} is {kind!r}"
    return next(_problems(ours, needed), None)


def with_digest(ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a document is to say with its digest: a flipped bit in a text or a number would be plausible."""
    return {**ours, names.DIGEST: _digest(ours)}


def _digest(ours: Mapping[str, Any]) -> str:
    bare = {key: value for key, value in ours.items() if key != names.DIGEST}
    return fingerprint(json.loads(json.dumps(bare)))  # as it is stored: keys are all texts


def _problems(ours: Mapping[str, Any], needed: Mapping[str, _Check]) -> Iterator[str]:
    for key, fits in needed.items():
        if key not in ours:
            yield f"{key} is missing"
        elif not fits(ours[key]):
            yield f"{key} is {_short(ours[key])}"
    for key, fits in _OPTIONAL.items():
        if key in ours and not fits(ours[key]):
            yield f"{key} is {_short(ours[key])}"
    # reached only where the keys are sound, since the first problem is what is asked for
    if names.PROVENANCE in needed and ours[names.FINGERPRINT] != fingerprint(
        ours[names.PROVENANCE]
    ):
        yield "the fingerprint is not that of the provenance"
    if names.K_LIST in needed and len(ours[names.K_LIST]) != len(ours[names.CLASS_NAMES]):
        yield f"{names.K_LIST} has not one number a class"
    if names.ARRAYS in needed and sorted(ours[names.ARRAYS]) != sorted(ours[names.ARRAY_ORDER]):
        yield f"{names.ARRAY_ORDER} doesn't name the arrays"
    if names.DIGEST not in ours and set(ours) - {*needed, *_OPTIONAL, *_BEFORE_DIGESTS}:
        yield f"{names.DIGEST} is missing"


def _key(path: str) -> str:
    return f"{path}/{METADATA}" if path else METADATA


def _short(value: object, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _at_least(least: int) -> _Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _or_none(fits: _Check) -> _Check:
    return lambda value: value is None or fits(value)


def _list_of(fits: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(fits(item) for item in value)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(item) for item in value)


def _fields_of(spec: type, checks: Mapping[str, _Check]) -> _Check:
    """Check a mapping that a dataclass is made from: no field too many, none too few, the given ones sound."""
    known = {field.name for field in fields(spec)}
    required = {
        field.name
        for field in fields(spec)
        if field.default is MISSING and field.default_factory is MISSING
    }

    def fits(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and required <= set(value) <= known
            and all(check(value[name]) for name, check in checks.items() if name in value)
        )

    return fits


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(_at_least(0)(count) for count in value.values())


def _is_dtype(value: Any) -> bool:
    return isinstance(value, str) and value in np.sctypeDict


def _arrays_of(has_dims: _Check, dims_besides_shape: int) -> _Check:
    checks = {
        "dims": lambda dims: _list_of(_is_text)(dims) and has_dims(dims),
        "shape": _list_of(_at_least(0)),
        "dtype": _is_dtype,
        "attrs": _is_mapping,
    }
    return lambda value: (
        isinstance(value, dict)
        and all(
            isinstance(array, dict)
            and set(array) == set(checks)
            and all(fits(array[key]) for key, fits in checks.items())
            and len(array["dims"]) == len(array["shape"]) + dims_besides_shape
            for array in value.values()
        )
    )


_are_arrays = _arrays_of(lambda dims: dims[:1] == [names.TILE], 1)
_are_rasters = _arrays_of(lambda dims: dims[-2:] == [names.Y, names.X], 0)


_SLIDE: Mapping[str, _Check] = {
    "slide_id": _is_text,
    "source": _is_text,
    "fingerprint": _is_text,
    "vendor": _is_text,
    "width": _at_least(1),
    "height": _at_least(1),
    "mpp": _or_none(_is_positive),
    "mpp_source": _is_text,
    "objective_power": _or_none(_is_number),
}
if set(_SLIDE) != {field.name for field in fields(SlideRecord)}:
    raise AssertionError("every field of a slide's record is checked")
_MADE: Mapping[str, _Check] = {names.FINGERPRINT: _is_text, names.PROVENANCE: _is_mapping}
_BLOCKS: Mapping[str, _Check] = {
    names.N_TILES: _at_least(0),
    names.BLOCK_TILES: _at_least(1),
}
_RUN: Mapping[str, _Check] = {
    **_MADE,
    **_BLOCKS,
    names.EXTRA: _is_mapping,
    names.ARRAYS: _are_arrays,
    names.ARRAY_ORDER: _list_of(_is_text),
}
_SPEC = {
    "tile_px": _at_least(1),
    "mpp": _or_none(_is_positive),
    "stride_px": _at_least(1),
    "edge": lambda value: value in ("drop", "pad"),
    "min_tissue": _is_number,
    "tissue": _is_mapping,
    "label": _or_none(_is_text),
}
_GEOMETRY = {
    "tile_level0": _at_least(1),
    "stride_level0": _is_positive,
    "n_rows": _at_least(0),
    "n_cols": _at_least(0),
}

# what attributes of any kind may hold, and must hold soundly then
_OPTIONAL: Mapping[str, _Check] = {names.CHUNKS: _are_counts, names.LAYOUTS: _are_rasters}
# what else is in documents that were written before there were digests; nothing is missing from these
_BEFORE_DIGESTS = frozenset((names.KIND, names.VERSION, names.CREATED, names.EXTRA, names.OFFSETS))

# kind → what its attributes must hold; keys besides these are none of our business
_NEEDED: Mapping[str, Mapping[str, _Check]] = {
    names.KIND_STORE: {},  # the schema version is looked at first of all, and on its own
    names.KIND_SLIDE: _SLIDE,
    names.KIND_GRID: {
        **_MADE,
        **_BLOCKS,
        names.SPEC: _fields_of(GridSpec, _SPEC),
        names.GEOMETRY: _fields_of(GridGeometry, _GEOMETRY),
        names.COUNTS: _is_mapping,
        names.RASTERS: _list_of(_is_text),
    },
    names.KIND_CONTAINER: {},
    names.FEATURES: _RUN,
    names.SCORES: _RUN,
    names.SELECTIONS: {**_MADE, names.SELECTED: _at_least(0), names.COMPLETE: _is_bool},
    names.PROTOTYPES: {
        **_MADE,
        names.CLASS_NAMES: _list_of(_is_text),
        names.K_LIST: _list_of(_at_least(1)),
        names.FEATURE_DIM: _at_least(1),
        names.N_EXEMPLARS: _at_least(1),
        names.SLIDES: _list_of(_is_text),
        names.COMPLETE: _is_bool,
    },
    names.MASKS: {
        **_MADE,
        names.PX_LEVEL0: _is_positive,
        names.ORIGIN_LEVEL0: _is_point,
        names.COMPLETE: _is_bool,
    },
}
