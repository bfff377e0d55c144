"""Files of coordinates: what slide2vec, hs2p and others say of where a slide's tiles are.

slide2vec and hs2p (https://github.com/clemsgrs/hs2p) write structured arrays, one file a slide: ``x``, ``y`` [px,
level 0], ``tile_level`` and ``tile_size_resized`` (the level that is read, and a tile's side on it), ``tile_size``
(``target_tile_size`` in later releases; the side after resizing), ``resize_factor`` (their ratio), ``tile_size_lv0``
(the side on level 0), ``target_spacing`` [µm/px]. Files with ``wsi_name`` may hold several slides. Plain arrays have
two columns, x and y.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dataflow.discover import IMAGE_SUFFIXES, SLIDE_SUFFIXES
from dataflow.receipts import Failure
from jobs.coordinates.npy import read_npy
from store_schema.errors import InputError
from store_schema.labels import some

WSI_NAME: Final = "wsi_name"
LEVEL: Final = "tile_level"
RESIZED: Final = "tile_size_resized"
SIZE: Final = "tile_size"
LEVEL0: Final = "tile_size_lv0"
FACTOR: Final = "resize_factor"
SPACING: Final = "target_spacing"
_TARGET_SIZE: Final = "target_tile_size"
_SUFFIXES: Final = (".npy", ".txt")
_MOST: Final = 2**31 - 1


@dataclass(frozen=True, eq=False)
class SlideCoordinates:
    """The tiles of one slide.

    Attributes
    ----------
    path
        The file.
    corners
        int64 (tile, 2), x and y of the top-left corners [px, level 0], each once.
    tile_px
        Side of a tile [px]; None where the file doesn't say.
    tile_level0
        Side of the square that it covers [px, level 0]; None where the file doesn't say.
    read_at
        (level, side on it [px]); None where the file doesn't say.
    mpp
        Pixel size that was asked for [µm/px]; None where the file doesn't say.
    repeated
        How many rows repeated another.
    """

    path: Path
    corners: npt.NDArray[np.int64] = field(repr=False)
    tile_px: int | None = None
    tile_level0: int | None = None
    read_at: tuple[int, int] | None = None
    mpp: float | None = None
    repeated: int = 0


@dataclass(frozen=True)
class CoordinateFolder:
    """The files of a folder.

    Attributes
    ----------
    path
        The folder.
    slides
        Name of a slide → its tiles.
    failures
        Files that make no sense, and why.
    """

    path: Path
    slides: Mapping[str, SlideCoordinates]
    failures: tuple[Failure, ...] = ()

    def name_of(self, slide_id: str) -> str | None:
        """Return the name that a slide goes by here: slide2vec writes blanks as underscores."""
        return next((n for n in (slide_id, slide_id.replace(" ", "_")) if n in self.slides), None)


def read_folder(path: Path) -> CoordinateFolder:
    """Read a folder of coordinate files, or a single one.

    Raises
    ------
    InputError
        There is no such folder, it has no such files, or two of them are of one slide.
    """
    try:
        listed = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    except OSError as error:
        raise InputError(
            f"the coordinates {path} can't be read ({error.strerror}): check the path"
        ) from error
    files = [file for file in listed if file.suffix.lower() in _SUFFIXES]
    if not files:
        raise InputError(
            f"{path} has no coordinates: they are files {' or '.join(_SUFFIXES)}, one a slide, named by its id"
        )
    slides: dict[str, SlideCoordinates] = {}
    failures = []
    for file in files:
        try:
            found = dict(read_file(file))
        except InputError as error:
            failures.append(Failure.of(file.stem, error))
            continue
        for name, coordinates in found.items():
            if name in slides:
                raise InputError(
                    f"{slides[name].path} and {file} both have coordinates of slide {name}: keep one of them"
                )
            slides[name] = coordinates
    return CoordinateFolder(path, slides, tuple(failures))


def read_file(path: Path) -> Iterator[tuple[str, SlideCoordinates]]:
    """Yield the slides of a file, by name, and their tiles.

    Raises
    ------
    InputError
        The file can't be read, or holds no coordinates, or tiles of several sizes.
    """
    if path.suffix.lower() == ".txt":
        yield path.stem, _plain(path, _read_text(path))
        return
    values = read_npy(path)
    if values.dtype.names is None:
        yield path.stem, _plain(path, values)
        return
    lacking = [name for name in ("x", "y") if name not in values.dtype.names]
    if lacking or values.ndim != 1:
        raise InputError(
            f"{path} has the fields {some(values.dtype.names, 8)}: coordinates need x and y, a row a tile"
        )
    if WSI_NAME not in values.dtype.names:
        yield path.stem, _structured(path, values)
        return
    said = np.array([_text(path, name) for name in values[WSI_NAME]])
    for name in sorted(set(said.tolist())):
        yield _slide_name(name), _structured(path, values[said == name])


def _structured(path: Path, rows: npt.NDArray[Any]) -> SlideCoordinates:
    corners, repeated = _corners(path, rows["x"], rows["y"])
    resized, factor = _one(path, rows, RESIZED), _one(path, rows, FACTOR)
    side = _one(path, rows, SIZE) or _one(path, rows, _TARGET_SIZE)
    if side is None and resized and factor:
        side = resized / factor
    level, level0 = _one(path, rows, LEVEL), _one(path, rows, LEVEL0)
    return SlideCoordinates(
        path,
        corners,
        tile_px=_whole(side),
        tile_level0=_whole(level0),
        read_at=None if level is None or not resized else (int(level), round(resized)),
        mpp=_one(path, rows, SPACING) or None,
        repeated=repeated,
    )


def _plain(path: Path, values: npt.NDArray[Any]) -> SlideCoordinates:
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "iuf":
        raise InputError(
            f"{path} holds {values.dtype} {values.shape}: coordinates without names are (tile, 2), x and y"
        )
    corners, repeated = _corners(path, values[:, 0], values[:, 1])
    return SlideCoordinates(path, corners, repeated=repeated)


def _corners(
    path: Path, x: npt.NDArray[Any], y: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], int]:
    """Return corners as whole pixels, each once, in the order of the file, and how many were repeated."""
    if not len(x):
        raise InputError(f"{path} holds no coordinates: leave the file out")
    if x.ndim != 1 or y.ndim != 1:  # a field may be an array of its own
        raise InputError(f"{path}: x and y must be one number each, a row a tile")
    if x.dtype.kind not in "iuf" or y.dtype.kind not in "iuf":
        raise InputError(f"{path}: x and y are {x.dtype} and {y.dtype}, not numbers of pixels")
    values = np.stack([x, y], axis=1).astype(np.float64)
    whole = np.rint(values)
    if (
        not np.isfinite(values).all()
        or np.abs(values - whole).max() > 0
        or np.abs(whole).max() > _MOST
    ):
        raise InputError(f"{path}: x and y must be whole level-0 pixels")
    corners = whole.astype(np.int64)
    _, first = np.unique(corners, axis=0, return_index=True)
    return corners[np.sort(first)], len(corners) - len(first)


def _one(path: Path, rows: npt.NDArray[Any], name: str) -> float | None:
    """Return what all tiles of a slide have in common, None where the file doesn't say."""
    if name not in (rows.dtype.names or ()):
        return None
    values = rows[name]
    if (
        values.ndim != 1
        or values.dtype.kind not in "iuf"
        or not np.isfinite(values.astype(np.float64)).all()
    ):
        raise InputError(f"{path}: {name} is {values.dtype}, and must be a number of every tile")
    found = sorted(set(values.tolist()))
    if len(found) > 1:
        raise InputError(
            f"{path}: {name} is {found[0]:g} to {found[-1]:g}, and the tiles of a grid are all alike: keep one size "
            "a file"
        )
    if found[0] < 0:
        raise InputError(f"{path}: {name} is {found[0]:g}, and can't be negative: correct the file")
    return float(found[0])


def _whole(pixels: float | None) -> int | None:
    return round(pixels) if pixels is not None and 0.5 < pixels <= _MOST else None


def _read_text(path: Path) -> npt.NDArray[np.float64]:
    """Read rows of two numbers, with blanks or a comma between; a header line of names may come first."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as text ({error}): check it") from error
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(lines, 1):
        parts = line.split("#")[0].replace(",", " ").replace(";", " ").split()
        if not parts or (not rows and [part.lower() for part in parts] == ["x", "y"]):
            continue
        try:
            x, y = (float(part) for part in parts)
        except ValueError as error:
            raise InputError(
                f"line {number} of {path} isn't x and y: {line.strip()[:40]!r}"
            ) from error
        rows.append((x, y))
    return np.array(rows, np.float64).reshape(-1, 2)


def _text(path: Path, name: object) -> str:
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    if not isinstance(name, str):
        raise InputError(f"{path}: {WSI_NAME} is {name!r}, and must be the name of a slide")
    return name


def _slide_name(name: str) -> str:
    """Return a slide's name without folder and suffix; ids may have dots in them."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = last.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SLIDE_SUFFIXES | IMAGE_SUFFIXES else last
