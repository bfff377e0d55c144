"""Why a stitched array can't get a name that is taken, in the words of the options; the same for all slides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from store_schema import names

VERSION: Final = "stitch_version"
SOURCE: Final = "source"
PX_LEVEL0: Final = "px_level0"
_OPTIONS: Final = {"mode": "--mode", "dtype": "--dtype", "vote_from": "--vote-from"}
_SHOWN_DIGITS: Final = 6  # a size in µm is back from level-0 pixels


def conflict(
    name: str, stored: Mapping[str, Any], asked: Mapping[str, Any], mpp: float | None
) -> str:
    """Return one sentence that says what differs and what to do.

    Parameters
    ----------
    name
        Of the group, ``masks/<name>``.
    stored, asked
        The group's attributes, and those that it would get: provenance and extra.
    mpp
        Size of a level-0 pixel [µm], where sizes are to be said in µm; None says them in level-0 pixels.
    """
    there, wanted = stored[names.PROVENANCE], asked[names.PROVENANCE]
    ways_out = "pass --overwrite to replace it, or choose another --name"
    if VERSION not in there:
        return f"masks/{name} is there and not of stitch: {ways_out}"
    if there.get(VERSION) != wanted[VERSION]:
        return f"masks/{name} was stitched by another version: {ways_out}"
    sources = [attrs.get(names.EXTRA, {}).get(SOURCE) for attrs in (stored, asked)]
    if sources[0] != sources[1]:
        return f"masks/{name} was stitched from {sources[0]} and not from {sources[1]}: {ways_out}"
    said = [_said(there, mpp), _said(wanted, mpp)]
    differing = [key for key in {**said[0], **said[1]} if said[0].get(key) != said[1].get(key)]
    if differing:
        before, now = (", ".join(of[key] for key in differing if key in of) for of in said)
        return f"masks/{name} was stitched with {before} and not with {now}: {ways_out}"
    return (
        f"masks/{name} was stitched before {sources[0]}, the grid or the slide changed: {ways_out}"
    )


def _said(provenance: Mapping[str, Any], mpp: float | None) -> dict[str, str]:
    """Return the options that settings stand for."""
    px = float(provenance[PX_LEVEL0])
    said = {
        PX_LEVEL0: f"--px {px:.{_SHOWN_DIGITS}g}"
        if mpp is None
        else f"--mpp {px * mpp:.{_SHOWN_DIGITS}g}"
    }
    said |= {
        key: f"{option} {provenance[key]}"
        for key, option in _OPTIONS.items()
        if provenance.get(key) is not None
    }
    said["argmax"] = "--argmax" if provenance.get("argmax") else "no --argmax"
    return said
