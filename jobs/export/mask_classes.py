"""What the values of a mask are called in QuPath, and their colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from jobs.export.qupath import PathClass

POSITIVE: Final = PathClass("Positive", (200, 0, 0))
NEGATIVE: Final = PathClass("Negative", (112, 112, 225))
_PALETTE: Final = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (188, 189, 34), (23, 190, 207),
)  # fmt: skip


def class_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a class by its position, of masks whose values are 1 + class."""
    return _PALETTE[(number + 1) % len(_PALETTE)]


def mask_classes(attrs: Mapping[str, Any], class_name: str) -> Callable[[int], PathClass | None]:
    """Return what the values of a mask are called.

    By its CF flags, where it has more than two, and then 0 has no class. Else 0 is negative, all others positive.

    Parameters
    ----------
    attrs
        Of the mask's array: ``flag_values`` and ``flag_meanings`` (a list, or words with blanks between).
    class_name
        What positive is called.
    """
    meanings = attrs.get("flag_meanings", [])
    words = meanings.split() if isinstance(meanings, str) else [str(word) for word in meanings]
    values = [int(value) for value in attrs.get("flag_values", range(len(words)))]
    known = dict(zip(values, words, strict=False))
    if len(known) <= 2:
        positive = PathClass(class_name, POSITIVE.colour)
        return lambda value: positive if value else NEGATIVE
    classes = {
        value: PathClass(known.get(value, str(value)), _PALETTE[value % len(_PALETTE)])
        for value in range(1, 256)
    }
    return classes.get
