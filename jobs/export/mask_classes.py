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


def mask_classes(attrs: Mapping[str, Any], class_name: str) -> Callable[[int], PathClass]:
    """Return what the values of a mask are called, by its CF flags; without them all but 0 is positive.

    Parameters
    ----------
    attrs
        Of the mask's array: ``flag_values`` and ``flag_meanings`` (a list, or words with blanks between).
    class_name
        What positive is called where there are no flags.
    """
    meanings = attrs.get("flag_meanings", [])
    words = meanings.split() if isinstance(meanings, str) else [str(word) for word in meanings]
    values = [int(value) for value in attrs.get("flag_values", range(len(words)))]
    known = dict(zip(values, words, strict=False))

    def path_class(value: int) -> PathClass:
        if len(known) > 2 and value in known:
            return PathClass(known[value], _PALETTE[value % len(_PALETTE)])
        return PathClass(class_name, POSITIVE.colour) if value else NEGATIVE

    return path_class
