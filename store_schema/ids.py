"""Slide ids and names are checked at the door: they become group names, folders and object keys."""

from __future__ import annotations

import unicodedata

from store_schema.errors import InvalidNameError

MAX_NAME_BYTES = 200  # below the 255 of common file systems, with room for temporary names

_PORTS = tuple("123456789¹²³")
_DEVICES = frozenset(
    ("con", "prn", "aux", "nul", *(f"com{n}" for n in _PORTS), *(f"lpt{n}" for n in _PORTS))
)


def folded(name: str) -> str:
    """Return the one form of all names that some file system takes for the same: case and normalization don't count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_slide_id(slide_id: str) -> str:
    """Return ``slide_id`` if it can be a group of the store.

    Parameters
    ----------
    slide_id
        The id, usually a file name without its suffix.

    Returns
    -------
    str
        The same id.

    Raises
    ------
    InvalidNameError
        If it is empty, too long, has separators, control or unpaired surrogate characters, starts
        or ends with a dot or a blank, or is a name that Zarr or Windows keeps for itself.
    """
    return _check(slide_id, "slide id", "give another id in the slide_id column of a CSV")


def check_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it can name a grid, an encoder, a run or an array.

    Parameters
    ----------
    name
        The name.
    what
        What it names, for the message.

    Returns
    -------
    str
        The same name.

    Raises
    ------
    InvalidNameError
        As of :func:`check_slide_id`.
    """
    return _check(name, what, "choose another name")


def _check(name: str, what: str, advice: str) -> str:
    problem = _problem(name)
    if problem is not None:
        raise InvalidNameError(f"{what} {name!r} {problem}: {advice}")
    return name


def _problem(name: str) -> str | None:
    if not name or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        return f"is empty or longer than {MAX_NAME_BYTES} bytes"
    if any(char in "/\\" for char in name):
        return "has a path separator in it"
    # Cc: control, Cs: unpaired surrogates, as file names that aren't UTF-8 come with, Zl, Zp: ends of lines
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name):
        return "has control characters or undecodable bytes in it"
    if name != name.strip() or name.startswith(".") or name.endswith("."):
        return "starts or ends with a dot or a blank"
    if (
        name.startswith("__")
        or name == "zarr.json"
        or name.endswith(".partial")
        or name.partition(".")[0].rstrip().casefold() in _DEVICES
    ):
        return "is reserved by the store, or by Windows, where the store may be copied to"
    return None
