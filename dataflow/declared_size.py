"""Can a file hold what its header says? A few bytes can declare more pixels than anybody lives to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dataflow.companions import companion_files
from dataflow.slide import SlideInfo
from store_schema.errors import UnreadableSlideError

# A blank tile of 256 x 256 px takes some 1,000 bytes as JPEG (70 px a byte) and 100 as JPEG 2000; a slide of which most
# was never scanned, whose missing tiles take no bytes, some tens of times less than one that was.
_MOST_PX_A_BYTE: Final = 2_000
_ALWAYS_PX: Final = 2**28  # read in seconds, whatever it is


def check_declared_size(info: SlideInfo) -> None:
    """Raise UnreadableSlideError if a slide's files are far too small for its size.

    Surveying a slide without a pyramid reads every pixel of level 0; where nothing is stored, all of it is white.
    """
    size_px = info.width * info.height
    if size_px <= _ALWAYS_PX:
        return
    path = Path(info.path)
    try:
        n_bytes = sum(file.stat().st_size for file in (path, *companion_files(path)))
    except OSError as error:
        raise UnreadableSlideError(
            f"{error.filename or path}: can't be read ({error.strerror}); check the file"
        ) from error
    if size_px > _MOST_PX_A_BYTE * n_bytes:
        raise UnreadableSlideError(
            f"{path}: its header declares {info.width:,} x {info.height:,} px, and the file has {n_bytes:,} bytes; "
            "it is damaged or was not copied whole"
        )
