"""A CSV that lists slides: columns ``slide[,slide_id,mpp]``."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dataflow.physical_size import MPP_RANGE, check_given_mpp
from store_schema.errors import InputError

_OTHER_SEPARATORS = ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"))


class NamedSlide(NamedTuple):
    """A slide's file, with what was said of it.

    Attributes
    ----------
    path
        The file; it may be missing.
    slide_id
        Its id when given explicitly.
    mpp
        Size of a level-0 pixel [µm/px] when given explicitly.
    """

    path: Path
    slide_id: str | None = None
    mpp: float | None = None


def read_slide_csv(path: Path) -> Iterator[NamedSlide]:
    """Read a list of slides.

    Parameters
    ----------
    path
        A CSV in UTF-8 with a header; columns other than ``slide``, ``slide_id`` and ``mpp`` are
        not looked at. Paths in it are relative to its folder.

    Yields
    ------
    NamedSlide
        One a line.

    Raises
    ------
    InputError
        The file can't be read, has no column ``slide``, or a line lacks a slide or holds an mpp
        that isn't a positive number.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path}: not a regular file; a CSV of slides must be one")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            _check_columns(path, rows.fieldnames or [])
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                slide = (row["slide"] or "").strip()
                if not slide:
                    raise InputError(f"{where}: no slide; give its path or remove the line")
                if "\0" in slide:
                    raise InputError(f"{where}: {slide!r} has a NUL in it, which no path can have")
                mpp = (row.get("mpp") or "").strip()
                yield NamedSlide(
                    path.parent / slide,
                    (row.get("slide_id") or "").strip() or None,
                    _csv_mpp(mpp, where) if mpp else None,
                )
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); check the file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read as CSV ({error}); save it as UTF-8") from error


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "slide" in columns:
        return
    others = [(char, name) for char, name in _OTHER_SEPARATORS if any(char in c for c in columns)]
    if len(columns) == 1 and others:
        raise InputError(
            f"{path}: its columns are separated by {others[0][1]} ({columns[0]!r}); save it with commas"
        )
    raise InputError(
        f"{path}: no column called slide (found: {', '.join(columns) or 'nothing'}); "
        "a CSV of slides has columns slide[,slide_id,mpp]"
    )


def _csv_mpp(text: str, where: str) -> float:
    try:
        return check_given_mpp(float(text))
    except ValueError as error:  # InputError is one
        raise InputError(
            f"{where}: {text!r} is no mpp; give {MPP_RANGE[0]:g} to {MPP_RANGE[1]:g} µm/px"
        ) from error
