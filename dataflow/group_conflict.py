"""Why the stream can't get a name that is taken, in the words of the options; the same for all slides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from store_schema import names

VERSION: Final = "stream_version"
MODEL: Final = "model"
STAIN: Final = "stain"
_WEIGHTS: Final = "weights"
_OPTIONS: Final = {
    "map_px": "--map-px",
    "precision": "--precision",
    "resize_px": "--resize",
    "dtype": "--dtype",
    "merge": "--merge",
    "tta": "--tta",
    "seed": "--seed",
    "compile": "--compile",
}


def conflict(name: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Return one sentence that says what differs and what to do.

    Parameters
    ----------
    name
        Of the group, ``scores/<name>`` or ``features/<name>``.
    stored
        The group's attributes.
    asked
        The provenance that it would get.
    """
    there = stored[names.PROVENANCE]
    ways_out = "pass --overwrite to replace it, or choose another name"
    if VERSION not in there:
        return f"{name} is there and was made by another command: {ways_out}"
    if there[VERSION] != asked[VERSION]:
        return f"{name} was made by another version: {ways_out}"
    before, now = [], []
    for key, was, wanted in (*_of_model(there, asked), *_of_stain(there, asked)):
        if was == wanted:
            continue
        if key == _WEIGHTS or isinstance(
            was, list | dict
        ):  # digests and lists say nothing to a reader
            before.append(f"other {key}")
        else:
            before.append(_said(key, was))
            now.append(_said(key, wanted))
    if before:
        asks = f", and is asked for with {', '.join(now)}" if now else ""
        return f"{name} was made with {', '.join(before)}{asks}: {ways_out}"
    if any(there.get(key) != asked[key] for key in ("slide", "grid")):
        return f"{name} was made before the grid or the slide changed: {ways_out}"
    return f"{name} has arrays of another layout, as another version made them: {ways_out}"


def _of_model(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    was, wanted = there.get(MODEL, {}), asked[MODEL]
    return [(key, was.get(key), wanted.get(key)) for key in {**wanted, **was}]


def _of_stain(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    was, wanted = there.get(STAIN, {}), asked[STAIN]
    found: list[tuple[str, Any, Any]] = [("--stain", was.get("method"), wanted.get("method"))]
    if "fit" in was and "fit" in wanted:  # without a normalization there is neither
        found.append(("--stain-fit", was["fit"], wanted["fit"]))
        found.append(("--stain-target", was["target"]["name"], wanted["target"]["name"]))
        digests = was["target"]["digest"], wanted["target"]["digest"]
        if found[-1][1] == found[-1][2]:  # a file of the same name and other contents
            found.append(("contents of --stain-target", [digests[0]], [digests[1]]))
    return found


def _said(key: str, value: Any) -> str:
    option = _OPTIONS.get(key, key)
    if value is None or value is False:
        return f"no {option}"
    return option if value is True else f"{option} {value}"
