"""The slide below a picture: a thumbnail, or blank ground where the slide can't be read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataflow.area_read import read_thumbnail
from dataflow.slide import open_slide
from dataflow.slide_digest import slide_digest
from store_schema.errors import SlideError
from store_schema.specs import SlideRecord


@dataclass(frozen=True)
class Ground:
    """The slide below.

    Attributes
    ----------
    width, height
        Size of the slide [px, level 0].
    mpp
        Size of a level-0 pixel [µm/px]; without it there is no scale bar.
    thumbnail
        uint8 (y, x, rgb), begins at the slide's origin; None where the slide can't be read.
    px_level0
        Side of a pixel of the thumbnail [px, level 0].
    note
        Why there is no thumbnail; a sentence.
    """

    width: int
    height: int
    mpp: float | None
    thumbnail: npt.NDArray[np.uint8] | None
    px_level0: float = 1.0
    note: str = ""


def read_ground(record: SlideRecord, long_side_px: int) -> Ground:
    """Read what a picture of a slide is drawn on.

    Parameters
    ----------
    record
        The slide as the store knows it.
    long_side_px
        Wanted size of the thumbnail; a smaller slide is not enlarged.

    Returns
    -------
    Ground
        Without a thumbnail, and with a note, where the file is gone, can't be read, or is another slide by now.
    """
    px_level0 = max(1.0, max(record.width, record.height) / long_side_px)
    size = record.width, record.height, record.mpp
    try:
        reader = open_slide(record.source, record.mpp)
        try:
            if slide_digest(record.source) != record.fingerprint:
                return Ground(*size, None, note=f"{record.source} is another slide by now")
            return Ground(*size, read_thumbnail(reader, px_level0), px_level0)
        finally:
            reader.close()
    except SlideError as error:
        return Ground(*size, None, note=f"the slide can't be read: {error}")
