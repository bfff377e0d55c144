"""Tiles of a folder: one image file each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from dataflow.stain import StainBasis, StainSpec
from jobs.vae.tile_origin import RawTiles
from store_schema.errors import InputError, UnreadableSlideError

_SUFFIXES: Final = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
_BATCH: Final = 1024


@dataclass(frozen=True)
class ImageTiles:
    """The images of a folder and its subfolders.

    Attributes
    ----------
    folder
        Where they are.
    files
        Of the images, relative to the folder, sorted. Those of one subfolder are taken to be of one slide, and stay
        on one side of a split; in the folder itself each is by itself.
    tile_px
        Their side [px].
    mpp
        Their pixel size [µm/px]; None where nobody said.
    """

    folder: Path
    files: tuple[Path, ...]
    tile_px: int
    mpp: float | None

    @classmethod
    def of(cls, folder: Path, mpp: float | None) -> ImageTiles:
        """List a folder, and look at the size of every image.

        Raises
        ------
        InputError
            There are no images, one can't be read, or they are not squares of one size.
        """
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}.")
        files = tuple(
            sorted(
                path.relative_to(folder)
                for path in folder.rglob("*")
                if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
            )
        )
        if not files:
            raise InputError(f"{folder} has no images ({', '.join(sorted(_SUFFIXES))}).")
        sizes = {path: _size(folder / path) for path in files}
        tile_px = sizes[files[0]][0]
        for path, (width, height) in sizes.items():
            if (width, height) != (tile_px, tile_px):
                raise InputError(
                    f"The images of {folder} are not squares of one size: {files[0]} is "
                    f"{' x '.join(map(str, sizes[files[0]]))} px and {path} {width} x {height}; cut them to one size."
                )
        return cls(folder, files, tile_px, mpp)

    @property
    def n_tiles(self) -> int:
        """How many images there are."""
        return len(self.files)

    @property
    def parts(self) -> tuple[str, ...]:
        """Subfolders, as they are written in paths; ``.`` is the folder itself."""
        return tuple(sorted({path.parent.as_posix() for path in self.files}))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not known."""
        if self.mpp is None:
            return ("the images' pixel size is not known (--mpp): grids can't be checked by it",)
        return ()

    def describe(self) -> Mapping[str, Any]:
        """Return a digest of names and sizes; what is in the files is digested as they are read."""
        listed = "\n".join(f"{path} {(self.folder / path).stat().st_size}" for path in self.files)
        digest = hashlib.blake2b(listed.encode("utf-8", "surrogateescape"), digest_size=16)
        return {"kind": "images", "files": len(self.files), "digest": digest.hexdigest()}

    def basis(self, part: str, stain: StainSpec) -> StainBasis | None:
        """Return None: each tile is fitted by itself."""
        return None

    def read(self, part: str) -> Iterator[RawTiles]:
        """Yield the images of a subfolder, sorted by name."""
        files = [path for path in self.files if path.parent.as_posix() == part]
        group = "" if part == "." else part
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            n = len(batch)
            yield RawTiles(
                np.stack([_pixels(self.folder / path) for path in batch]),
                np.arange(start, start + n, dtype=np.int64),
                np.zeros(n, np.int8),
                [group] * n,
            )


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:  # reads the header alone
            size = image.size
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} can't be read as an image: take it out of the folder.") from error
    return size


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise UnreadableSlideError(
            f"{path} is damaged ({error}): take it out of the folder."
        ) from error
    return pixels
