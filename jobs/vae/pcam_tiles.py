"""Tiles of PatchCamelyon: two HDF5 files, ``x`` uint8 (tile, y, x, rgb) and ``y`` with a label a tile."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from dataflow.slide_digest import slide_digest
from dataflow.stain import StainBasis, StainSpec
from jobs.training.tile_scale import PCAM
from jobs.vae.tile_origin import RawTiles
from store_schema.errors import InputError, UnreadableSlideError
from store_schema.labels import some

_BATCH: Final = 1024
_SLIDE: Final = "wsi"  # column of PatchCamelyon's meta tables


@dataclass(frozen=True)
class PcamTiles:
    """The tiles of a pair of files.

    Attributes
    ----------
    images, labels_file
        The two files.
    meta
        CSV with the column ``wsi``, one line a tile: from which slide it is. None knows no slides.
    only_normal
        Leave out what is not labelled 0.
    tile_px
        Side of a tile [px].
    labels
        int8 (tile,), of all tiles of the file.
    slides
        One a tile of the file; empty strings without ``meta``.
    mpp
        Pixel size [µm/px].
    """

    images: Path
    labels_file: Path
    meta: Path | None
    only_normal: bool
    tile_px: int
    labels: npt.NDArray[np.int8] = field(repr=False, compare=False)
    slides: tuple[str, ...] = field(repr=False, compare=False)
    mpp: float | None = PCAM.mpp

    @classmethod
    def of(
        cls, images: Path, labels_file: Path, meta: Path | None, *, only_normal: bool
    ) -> PcamTiles:
        """Open a pair of files.

        Raises
        ------
        InputError
            A file can't be read, lacks its dataset, or is not of the other's length, or no tile is normal.
        """
        tile_px, n_tiles = _image_shape(images)
        labels = _labels(labels_file)
        if len(labels) != n_tiles:
            raise InputError(
                f"{images} has {n_tiles} tiles and {labels_file} {len(labels)} labels: give the two files of one split."
            )
        if only_normal and not (labels == 0).any():
            raise InputError(
                f"{labels_file} labels no tile 0, which is normal: there is nothing to learn from."
            )
        slides = ("",) * n_tiles if meta is None else _slides(meta, n_tiles)
        return cls(images, labels_file, meta, only_normal, tile_px, labels, slides)

    @property
    def n_tiles(self) -> int:
        """How many tiles will be read."""
        return int(np.count_nonzero(self.labels == 0)) if self.only_normal else len(self.labels)

    @property
    def parts(self) -> tuple[str, ...]:
        """The one file."""
        return (self.images.name,)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out."""
        left_out = len(self.labels) - self.n_tiles
        return (f"{left_out} tiles that are not labelled 0 were left out",) if left_out else ()

    def describe(self) -> Mapping[str, Any]:
        """Return files and their digests (of samples, see ``slide_digest``)."""
        files = [self.images, self.labels_file, *([] if self.meta is None else [self.meta])]
        return {
            "kind": "pcam",
            "files": {file.name: slide_digest(file) for file in files},
            "only_normal": self.only_normal,
        }

    def basis(self, part: str, stain: StainSpec) -> StainBasis | None:
        """Return None: each tile is fitted by itself, since those of one slide lie scattered over the file."""
        return None

    def read(self, part: str) -> Iterator[RawTiles]:
        """Yield the tiles in the file's order."""
        del part
        wanted = (
            np.flatnonzero(self.labels == 0) if self.only_normal else np.arange(len(self.labels))
        )
        with h5py.File(self.images) as file:
            for start in range(0, len(self.labels), _BATCH):
                index = wanted[(wanted >= start) & (wanted < start + _BATCH)].astype(np.int64)
                if not index.size:
                    continue
                try:
                    pixels = file["x"][start : start + _BATCH]  # whole chunks are what HDF5 reads
                except OSError as error:
                    raise UnreadableSlideError(
                        f"{self.images} is damaged near tile {start} ({error}): get the file anew."
                    ) from error
                yield RawTiles(
                    pixels[index - start],
                    index,
                    self.labels[index],
                    [self.slides[i] for i in index],
                )


def _image_shape(path: Path) -> tuple[int, int]:
    """Return side and number of the tiles."""
    file = _open(path)
    with file:
        images = _dataset(file, path, "x", "tiles")
        shape, dtype = images.shape, images.dtype
    if dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise InputError(
            f"x of {path} is {dtype} {shape}, and PatchCamelyon's is uint8 (tile, 96, 96, 3)."
        )
    return int(shape[1]), int(shape[0])


def _labels(path: Path) -> npt.NDArray[np.int8]:
    file = _open(path)
    with file:
        labels = _dataset(file, path, "y", "labels")
        n_labels, values = labels.shape[0] if labels.shape else 0, np.ravel(labels[()])
    if values.size != n_labels or not np.isin(values, (0, 1)).all():
        raise InputError(f"y of {path} is not one label, 0 or 1, a tile.")
    return values.astype(np.int8)


def _dataset(file: Any, path: Path, name: str, what: str) -> Any:
    if not isinstance(file.get(name), h5py.Dataset):
        has = some(sorted(file)) or "nothing"
        raise InputError(
            f"{path} has no dataset {name}, which holds PatchCamelyon's {what} (it has {has}): give the file of images "
            "first, that of labels second."
        )
    return file[name]


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path)
    except OSError as error:
        hint = " (unpack it first)" if path.suffix == ".gz" else ""
        raise InputError(f"{path} can't be read as HDF5{hint}: {error}.") from error


def _slides(path: Path, n_tiles: int) -> tuple[str, ...]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if _SLIDE not in (reader.fieldnames or []):
                raise InputError(
                    f"{path} has no column {_SLIDE}, which names each tile's slide: give PatchCamelyon's meta table."
                )
            slides = tuple((row[_SLIDE] or "").strip() for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as CSV ({error}).") from error
    if len(slides) != n_tiles or not all(slides):
        raise InputError(
            f"{path} names the slides of {sum(map(bool, slides))} tiles, and there are {n_tiles}: give the table of "
            "the same split."
        )
    return slides
