"""The same export for slide after slide: one that can't be exported does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store_schema.errors import SlidestreamError
from store_schema.slide_view import SlideView

_MOST_THREADS: Final = 4


@dataclass(frozen=True)
class Exported:
    """What came of one slide.

    Attributes
    ----------
    slide_id
        The slide.
    paths
        The files, none where there is a problem.
    note
        What there is to know of them, or an empty string.
    problem
        Why there is no file, or an empty string.
    left_out
        Arrays of the run that such a file can't hold.
    """

    slide_id: str
    paths: tuple[Path, ...] = ()
    note: str = ""
    problem: str = ""
    left_out: tuple[str, ...] = ()


def export_slides(
    slides: Sequence[SlideView],
    export: Callable[[SlideView], Exported],
    done: Callable[[Exported], None] = lambda _: None,
) -> list[Exported]:
    """Export slides, a few at a time.

    Parameters
    ----------
    slides
        Which.
    export
        Writes the files of one.
    done
        Is told of each, in order.
    """

    def one(slide: SlideView) -> Exported:
        try:
            return export(slide)
        except SlidestreamError as error:
            return Exported(slide.slide_id, problem=str(error))

    found = []
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for exported in pool.map(one, slides):
            done(exported)
            found.append(exported)
    return found
