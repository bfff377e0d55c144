"""From what is named on the command line to the slides that it means."""

from __future__ import annotations

import glob
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import openslide

from dataflow.companions import companion_files
from dataflow.dicom_series import series_files
from dataflow.physical_size import check_given_mpp
from dataflow.slide_csv import NamedSlide, read_slide_csv
from store_schema.errors import DuplicateIdError, InputError, SlidestreamError, StoreError
from store_schema.ids import check_slide_id, folded

SLIDE_SUFFIXES = frozenset((
    ".svs", ".tif", ".tiff", ".btf", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".bif", ".svslide",
    ".czi", ".dcm",
))  # fmt: skip
IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg"))

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlideSource:
    """A slide of a run.

    Attributes
    ----------
    slide_id
        Its name in the store.
    path
        Absolute path of its file.
    mpp
        Size of a level-0 pixel [µm/px] when given explicitly.
    """

    slide_id: str
    path: str
    mpp: float | None = None


@dataclass(frozen=True)
class SlideProblem:
    """A slide that can't take part, and why; the run goes on with the others."""

    slide_id: str
    path: str
    error: SlidestreamError


class Discovery(NamedTuple):
    """What was found."""

    sources: list[SlideSource]
    problems: list[SlideProblem]


def discover_slides(args: Sequence[str], mpp: float | None = None) -> Discovery:
    """Find the slides that arguments mean.

    An argument is a file, a folder (searched with its subfolders), a glob (for when the shell
    did not expand it), or a CSV with columns ``slide[,slide_id,mpp]`` and paths relative to it.

    Folders and globs are searched for slides, by suffix or as OpenSlide recognises them. Hidden
    files, Zarr stores and files that belong to another slide (of ``.mrxs``, ``.vms``, a DICOM
    series) are left out; so are PNG and JPEG beside slides, which are pictures of them. What is
    named explicitly is always kept: what is wrong with it shows, and is reported, when it is
    opened.

    Parameters
    ----------
    args
        What was given.
    mpp
        Size of a level-0 pixel [µm/px] of all slides whose CSV row doesn't say.

    Returns
    -------
    Discovery
        Slides in the order of the arguments, and of names within a folder, each file once, with
        unique ids; and those whose id can't be used, or is that of another: also ids that differ
        only in case or in Unicode normalization, which file systems may not tell apart. The id is
        the file's name without suffix, or, for a DICOM series of several files that has its folder
        to itself, the folder's name.

    Raises
    ------
    InputError
        Nothing is found, a glob matches nothing, or a CSV makes no sense.
    """
    if mpp is not None:
        check_given_mpp(mpp)
    named = _merged([found for arg in args for found in _expanded(arg)])
    if not named:
        raise InputError(
            f"no slide in {', '.join(args) or 'an empty list'}; give files, folders, globs or a CSV"
        )
    sources = [
        SlideSource(
            given_id if given_id is not None else _default_id(path),
            str(path),
            given_mpp if given_mpp is not None else mpp,
        )
        for path, given_id, given_mpp in named
    ]
    return _checked(sources)


def _checked(sources: Sequence[SlideSource]) -> Discovery:
    """Set those aside whose id can't be used, and all of those that share one."""
    namesakes: dict[str, list[SlideSource]] = defaultdict(list)
    for source in sources:
        namesakes[folded(source.slide_id)].append(source)
    good, problems = [], []
    for source in sources:
        try:
            check_slide_id(source.slide_id)
            _check_alone(source, namesakes[folded(source.slide_id)])
        except (StoreError, DuplicateIdError) as error:
            problems.append(SlideProblem(source.slide_id, source.path, error))
        else:
            good.append(source)
    return Discovery(good, problems)


def _check_alone(source: SlideSource, namesakes: Sequence[SlideSource]) -> None:
    other = next((each for each in namesakes if each is not source), None)
    if other is None:
        return
    same = other.slide_id == source.slide_id
    called = repr(source.slide_id) if same else f"{source.slide_id!r} and {other.slide_id!r}"
    why = "" if same else ", which file systems may not tell apart"
    raise DuplicateIdError(
        f"{source.path} and {other.path} would be called {called}{why}; list them in a CSV with columns "
        "slide,slide_id and give each an id"
    )


def _expanded(arg: str) -> Iterator[NamedSlide]:
    if "\0" in arg:
        raise InputError(f"{arg!r} has a NUL in it, which no path can have")
    try:
        yield from _meant(arg)
    except OSError as error:  # a name that is too long, a folder that may not be searched
        raise InputError(
            f"{error.filename or arg}: can't be looked at ({error.strerror}); check the path"
        ) from error


def _meant(arg: str) -> Iterator[NamedSlide]:
    path = Path(arg)
    if path.is_dir():
        yield from map(NamedSlide, _slides_among(_files_below(path)))
    elif path.suffix.lower() == ".csv":
        yield from read_slide_csv(path)
    elif not path.exists() and glob.has_magic(arg):
        matches = [Path(match) for match in sorted(glob.glob(arg, recursive=True))]  # noqa: PTH207
        if not matches:
            raise InputError(f"{arg}: no file matches; check the pattern")
        folders = [match for match in matches if match.is_dir() and not _is_inner_folder(match)]
        files = [match for match in matches if not match.is_dir()]
        files += [file for folder in folders for file in _files_below(folder)]
        yield from map(NamedSlide, _slides_among(files))
    else:
        yield NamedSlide(path)


def _files_below(folder: Path) -> list[Path]:
    """Files of a folder and its subfolders, sorted; each real folder once, links followed."""
    files: list[Path] = []
    seen: set[str] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [
            name
            for name in sorted(subfolders)
            if not name.startswith(".") and not _is_inner_folder(Path(parent, name))
        ]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _is_inner_folder(folder: Path) -> bool:
    """Whether a folder's files aren't slides: that of an .mrxs, or a store."""
    return folder.with_name(folder.name + ".mrxs").exists() or (folder / "zarr.json").exists()


def _slides_among(files: Sequence[Path]) -> list[Path]:
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    slides = [file for file in files if file not in set(images) and _looks_like_slide(file)]
    if not slides:
        return images
    if images:
        _log.info("left out %d PNG or JPEG images found beside slides", len(images))
    return slides


def _looks_like_slide(path: Path) -> bool:
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return True
    return path.is_file() and openslide.OpenSlide.detect_format(path) is not None


def _merged(named: Sequence[NamedSlide]) -> list[NamedSlide]:
    """Count a file that is named twice, or a series of which several files are named, once."""
    merged: dict[str, NamedSlide] = {}
    of_another: set[str] = set()
    for path, slide_id, mpp in named:
        real = os.path.realpath(path)
        if real in of_another:
            continue
        known = merged.get(real)
        if known is None:
            merged[real] = NamedSlide(path.absolute(), slide_id, mpp)
            of_another.update(os.path.realpath(file) for file in _companions(path))
            continue
        merged[real] = NamedSlide(
            known.path,
            _agreed(path, "slide_id", known.slide_id, slide_id),
            _agreed(path, "mpp", known.mpp, mpp),
        )
    return list(merged.values())


def _companions(path: Path) -> list[Path]:
    try:
        return companion_files(path) if path.is_file() else []  # a pipe would be waited for
    except OSError:  # missing or unreadable: that is reported when the slide is opened
        return []


def _agreed(path: Path, what: str, first: T | None, second: T | None) -> T | None:
    if first is not None and second is not None and first != second:
        raise InputError(
            f"{path}: given twice, with {what} {first} and {second}; keep one of the two"
        )
    return first if first is not None else second


def _default_id(path: Path) -> str:
    if _is_series_with_own_folder(path):
        return path.absolute().parent.name
    known = path.suffix.lower() in SLIDE_SUFFIXES | IMAGE_SUFFIXES
    return path.stem if known else path.name  # 1.2.840.113619 has no suffix


def _is_series_with_own_folder(path: Path) -> bool:
    try:
        series = series_files(path) if path.is_file() else []
        beside = [file for file in path.parent.iterdir() if not file.name.startswith(".")]
    except OSError:  # as above
        return False
    return 1 < len(series) == len(beside)
