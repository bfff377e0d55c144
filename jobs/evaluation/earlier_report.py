"""The report of an earlier call, out of the way of the next one: of two, tables and pictures would pass for one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from jobs.evaluation.pictures import FOLDER
from store_schema.errors import StorageError

EVALUATION: Final = "evaluation.json"
FILES: Final = "files"
"""Key of :data:`EVALUATION`: the tables and pictures that were written with it."""

SLIDE_METRICS: Final = "slide_metrics.csv"
HEATMAP_SUMMARY: Final = "heatmap_summary.csv"
BURDEN_SUMMARY: Final = "burden_summary.csv"
FROC: Final = "froc.csv"
FROC_SCORE: Final = "froc_score.csv"
LADDER: Final = "ladder.csv"
_TABLES: Final = (SLIDE_METRICS, HEATMAP_SUMMARY, BURDEN_SUMMARY, FROC, FROC_SCORE, LADDER)


def remove_earlier(out: Path) -> None:
    """Remove the tables and pictures that an evaluation in this folder says it wrote; nothing else that is there.

    Raises
    ------
    StorageError
        A file can't be removed.
    """
    pictures = out / FOLDER
    try:
        for name in _files_of(out / EVALUATION):
            if _is_ours(name):
                (out / name).unlink(missing_ok=True)
        if pictures.is_dir() and not any(pictures.iterdir()):
            pictures.rmdir()
    except OSError as error:
        raise StorageError(
            f"the earlier report in {out} can't be removed ({error.strerror}): choose another --out"
        ) from error


def _files_of(path: Path) -> Sequence[str]:
    """Return what an evaluation lists; nothing where there is none, or it is of another program."""
    if not path.is_file():
        return ()
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # no JSON, no text: nothing is known of what was written with it
        return ()
    listed = said.get(FILES) if isinstance(said, dict) else None
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else ()


def _is_ours(name: str) -> bool:
    """Tell whether a listed name can be of a table or picture of ours, whoever edited the list."""
    path = PurePosixPath(name)
    return name in _TABLES or (path.parent == PurePosixPath(FOLDER) and path.suffix == ".png")
