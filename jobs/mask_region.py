"""The region that a mask means: of a mask of classes, where one of them is."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from jobs.mil.labels import negative_class
from jobs.raster_reader import SlideRaster
from store_schema.errors import InputError

_NOTHING: Final = "nothing"


def mask_class_names(mask: SlideRaster) -> tuple[str, ...]:
    """Return the classes of a mask that is 0 where there is nothing, else 1 + class; none of any other mask."""
    meanings = mask.attrs.get("flag_meanings", "")
    nothing, *classes = meanings.split() if isinstance(meanings, str) and meanings else [""]
    return tuple(classes) if nothing == _NOTHING and len(classes) > 1 else ()


def region_of(mask: SlideRaster, class_name: str | None) -> SlideRaster:
    """Return a mask that is above 0 inside a region.

    Parameters
    ----------
    mask
        Its pixels are read if it is one of classes; any other is returned as it is.
    class_name
        Whose region is meant, of a mask of classes. Where that isn't one of them, of two it is the positive one.

    Raises
    ------
    InputError
        A class must be named.
    """
    classes = mask_class_names(mask)
    if not classes:
        return mask
    if class_name in classes:
        wanted = classes.index(str(class_name))
    elif len(classes) == 2:
        wanted = 1 - negative_class(classes)
    else:
        raise InputError(
            f"masks/{mask.name} of slide {mask.slide.slide_id} has the classes {', '.join(classes)}: name one with "
            "--class"
        )
    inside = (mask.values == 1 + wanted).astype(np.uint8)
    return replace(mask, values=inside, class_name=classes[wanted], attrs={})
