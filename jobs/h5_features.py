"""Feature files of CLAM and TRIDENT: HDF5 with ``features`` and ``coords``, and what they say of their making.

CLAM writes both without attributes; TRIDENT gives ``coords`` the attributes ``patch_size``, ``patch_size_level0``,
``overlap`` [px at the target magnification], ``level0_magnification``, ``target_magnification``, ``level0_width``,
``level0_height`` and ``name``, and ``features`` an ``encoder``. Our exports have these and ``level0_mpp``,
``target_mpp``, ``stride_level0`` and ``grid``. CLAM's files of coordinates alone, and what others make of them, have
``patch_size``, ``patch_level``, ``level_dim`` and ``downsample`` instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from jobs.mil.finite import first_not_finite
from store_schema.errors import InputError, InvalidNameError, UnreadableSlideError
from store_schema.ids import check_name
from store_schema.labels import some

_FEATURES, _COORDS = "features", "coords"
_PLACES = frozenset(("savetodir", "save_path"))  # of another machine; decide nothing
_MAX_LEVEL0 = 2**31 - 1


@dataclass(frozen=True)
class H5Features:
    """One file, read.

    Attributes
    ----------
    path
        The file.
    features
        float16 or float32 (tile, feature), in the file's order.
    coords
        int64 (tile, 2), x and y of the tiles' top-left corners [px, level 0].
    coords_attrs, features_attrs
        What the file says of them; JSON-able.
    """

    path: Path
    features: npt.NDArray[np.floating]
    coords: npt.NDArray[np.int64]
    coords_attrs: Mapping[str, Any]
    features_attrs: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Digest of coordinates and features, wherever the file lies and whatever else is in it."""
        digest = hashlib.blake2b(
            f"{self.features.dtype}{self.features.shape}".encode(), digest_size=16
        )
        digest.update(np.ascontiguousarray(self.coords).data)
        digest.update(np.ascontiguousarray(self.features).data)
        return digest.hexdigest()

    def number(self, name: str) -> float | None:
        """Return an attribute of the coordinates that is a positive number, or None."""
        return _positive(self.coords_attrs.get(name))

    @property
    def tile_px(self) -> int | None:
        """Side of a tile, as it was encoded [px]."""
        return _whole(self.number("patch_size"))

    @property
    def tile_level0(self) -> int | None:
        """Side of the square that a tile covers [px, level 0]."""
        if (side := self.number("patch_size_level0")) is not None:
            return _whole(side)
        side, downsample = self.number("patch_size"), self._downsample()
        return None if side is None or downsample is None else _whole(side * downsample)

    @property
    def level0_mpp(self) -> float | None:
        """Pixel size of the slide [µm/px], where the file has it exactly: ours do."""
        return self.number("level0_mpp")

    @property
    def grid(self) -> str | None:
        """Name of the grid that the file was exported from."""
        said = self.coords_attrs.get("grid")
        return said if isinstance(said, str) and _is_name(said) else None

    @property
    def size_level0(self) -> tuple[int, int] | None:
        """Width and height of the slide [px, level 0]."""
        width, height = (_whole(self.number(name)) for name in ("level0_width", "level0_height"))
        if width is not None and height is not None:
            return width, height
        level, downsample = self.coords_attrs.get("level_dim"), self._downsample()
        if isinstance(level, list) and len(level) == 2 and downsample is not None:
            sides = [_positive(side) for side in level]
            width, height = (_whole(None if s is None else s * downsample) for s in sides)
            if width is not None and height is not None:
                return width, height
        return None

    def _downsample(self) -> float | None:
        said = self.coords_attrs.get("downsample")
        if said is None and self.coords_attrs.get("patch_level") == 0:
            return 1.0
        return _positive(said[0] if isinstance(said, list) and said else said)


def find_h5(folder: Path) -> list[Path]:
    """List the feature files of a folder (CLAM's ``h5_files`` within it counts), sorted; or one file by itself.

    Raises
    ------
    InputError
        If there are none.
    """
    if folder.is_file():
        return [folder]
    for place in (folder, folder / "h5_files"):
        if place.is_dir():
            found = sorted(
                path
                for path in place.iterdir()
                if path.suffix.lower() in (".h5", ".hdf5") and not path.name.startswith(".")
            )
            if found:
                return found
    raise InputError(f"{folder} holds no .h5 files: {_elsewhere(folder)}")


def _elsewhere(folder: Path) -> str:
    """Say where feature files may be instead: in folders within, or not there at all."""
    within = sorted(
        {path.parent for path in folder.glob("*/*.h5")}
        | {path.parent for path in folder.glob("*/*/*.h5")}
    )
    if within:
        return f"name one of the folders in it that do ({some([str(path) for path in within])})"
    if next(folder.glob("**/*.pt"), None) is not None:
        return (
            "it has .pt files, which lack the coordinates of the tiles; name the folder of the .h5 files that were "
            "written beside them (h5_files of CLAM)"
        )
    return "name the folder that has one a slide"


def read_h5(path: Path) -> H5Features:
    """Read a feature file.

    Parameters
    ----------
    path
        HDF5 with ``features`` (tile, feature) or (1, tile, feature) and ``coords`` (tile, 2), level-0 x and y.

    Raises
    ------
    UnreadableSlideError
        If it is no HDF5, lacks either, or they don't fit each other, or hold what can't be.
    """
    if not path.is_file():  # opening a pipe would wait forever
        raise UnreadableSlideError(f"{path}: is no file, or a link to none; remove it")
    try:
        with h5py.File(path, "r") as file:
            values = {name: _dataset(path, file, name) for name in (_FEATURES, _COORDS)}
            attrs = {name: _plain_attrs(file[name].attrs) for name in values}
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises for damaged files
        raise UnreadableSlideError(
            f"{path}: can't be read as HDF5 ({error}); is it complete? Export it again"
        ) from error
    except MemoryError as error:
        raise UnreadableSlideError(
            f"{path}: says that it holds more than fits into memory ({error}); look at its datasets"
        ) from error
    return H5Features(
        path,
        _checked_features(path, values[_FEATURES], len(values[_COORDS])),
        _checked_coords(path, values[_COORDS]),
        attrs[_COORDS],
        attrs[_FEATURES],
    )


def _dataset(path: Path, file: h5py.File, name: str) -> npt.NDArray[Any]:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        there = ", ".join(sorted(file)) or "nothing"
        raise UnreadableSlideError(
            f"{path}: holds no dataset {name!r} (it has {there}); feature files have features and coords"
        )
    values: npt.NDArray[Any] = found[()]
    # features of one slide may have a batch dimension
    return values[0] if values.ndim == 3 and len(values) == 1 else values


def _checked_features(
    path: Path, values: npt.NDArray[Any], n_tiles: int
) -> npt.NDArray[np.floating]:
    if values.ndim != 2 or values.dtype.kind != "f" or not values.shape[1]:
        raise UnreadableSlideError(
            f"{path}: features are {values.dtype} {values.shape}; they must be floats (tile, feature)"
        )
    if len(values) != n_tiles:
        raise UnreadableSlideError(
            f"{path}: {len(values)} features and {n_tiles} coords; export the file again"
        )
    if not len(values):
        raise UnreadableSlideError(f"{path}: holds no tiles; leave it out")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
        features = values if values.dtype in (np.float16, np.float32) else values.astype(np.float32)
    features = np.ascontiguousarray(features, dtype=features.dtype.newbyteorder("="))
    row = first_not_finite(features)
    if row is not None:
        raise UnreadableSlideError(
            f"{path}: features are not finite at row {row}; encode the slide again"
        )
    return features


def _checked_coords(path: Path, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "iuf":
        raise UnreadableSlideError(
            f"{path}: coords are {values.dtype} {values.shape}; they must be numbers (tile, 2)"
        )
    if (
        not np.isfinite(values).all()
        or (values < 0).any()
        or (values > _MAX_LEVEL0).any()
        or (values != np.rint(values)).any()
    ):
        raise UnreadableSlideError(
            f"{path}: coords are not whole numbers from 0 on; they must be level-0 pixels"
        )
    return values.astype(np.int64)


def _plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(name): _plain(value) for name, value in sorted(attrs.items()) if name not in _PLACES
    }


def _plain(value: Any) -> Any:
    """Return an attribute as JSON has it; what JSON can't say becomes text."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()] if value.ndim else _plain(value.item())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except InvalidNameError:
        return False
    return True


def _positive(value: Any) -> float | None:
    """Return a positive number, None of anything else: these attributes are free text to many tools."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number <= _MAX_LEVEL0 else None


def _whole(pixels: float | None) -> int | None:
    """Return pixels as a count, None where that is no size of a tile or slide."""
    return round(pixels) if pixels is not None and 0.5 < pixels <= _MAX_LEVEL0 else None
