"""Writing slide-sized maps as pyramidal OME-TIFF: tiled, with the smaller levels as SubIFDs of each plane.

That is the layout of OME-TIFF 6 (https://docs.openmicroscopy.org/ome-model/6.0.0/ome-tiff/specification.html), which
Bio-Formats, and so QuPath, reads.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import tifffile

from dataflow.raster_pooling import pooled

TILE_PX: Final = 256
_SMALLEST_PX: Final = 512  # a level with a longer side gets a smaller one below it
_UM_PER_CM: Final = 10_000
_CLASSIC_BYTES: Final = 2**31  # more than this, uncompressed, is written as BigTIFF
_NAMESPACE: Final = uuid.UUID("6f0f3a1c-3d59-5d6e-9c55-6a4be1c4f0a7")  # drawn once

Bands = Callable[[], Iterator[npt.NDArray[Any]]]


@dataclass(frozen=True)
class OmeImage:
    """One image of one or more channels.

    Attributes
    ----------
    name, description
        As viewers show them.
    channels
        Names of the channels.
    bands
        Of each channel a function that yields it from top to bottom in bands of full width, (y, x), of an even number
        of rows but for the last.
    shape
        (y, x).
    dtype
        ``uint8`` or ``float32``, with NaN where there is nothing.
    px_um
        Side of a pixel [µm]; None writes none.
    origin_um
        (x, y) of the top-left corner on the slide [µm].
    pool
        What a pixel of a smaller level is of those below it: their mean, or their maximum.
    """

    name: str
    description: str
    channels: Sequence[str]
    bands: Sequence[Bands]
    shape: tuple[int, int]
    dtype: str
    px_um: float | None
    origin_um: tuple[float, float] = (0.0, 0.0)
    pool: Literal["mean", "max"] = "mean"


def write_ome_pyramid(path: Path, image: OmeImage) -> None:
    """Write an OME-TIFF; the same image gives the same bytes.

    The largest level is written band by band; a quarter of it, the next level, is held in memory.

    Parameters
    ----------
    path
        Where to.
    image
        What.

    Raises
    ------
    OSError
        The file can't be written.
    """
    n_levels = 1
    while max(image.shape) / 2 ** (n_levels - 1) > _SMALLEST_PX:
        n_levels += 1
    shape = (len(image.channels), *image.shape)
    halves: list[list[npt.NDArray[Any]]] = [[] for _ in image.channels]

    def largest() -> Iterator[npt.NDArray[Any]]:
        for bands, half in zip(image.bands, halves, strict=True):
            for band in _whole_tile_rows(bands()):
                if n_levels > 1:
                    half.append(pooled(band, 2, image.pool))
                yield from _tiles(band)

    n_bytes = np.dtype(image.dtype).itemsize * int(np.prod(shape))
    how: dict[str, Any] = {
        "tile": (TILE_PX, TILE_PX),
        "compression": "zlib",
        "photometric": "minisblack",
        "dtype": image.dtype,
    }
    with tifffile.TiffWriter(path, ome=True, bigtiff=n_bytes > _CLASSIC_BYTES) as file:
        file.write(
            largest(),
            shape=shape,
            subifds=n_levels - 1,
            metadata=_metadata(image),
            **_resolution(image.px_um),
            **how,
        )
        level = [np.concatenate(half) for half in halves] if n_levels > 1 else []
        for i in range(1, n_levels):
            if i > 1:
                level = [pooled(channel, 2, image.pool) for channel in level]
            px_um = None if image.px_um is None else image.px_um * 2**i
            file.write(
                (tile for channel in level for tile in _tiles(channel)),
                shape=(len(level), *level[0].shape),
                subfiletype=1,  # a smaller version of another image
                metadata=None,
                **_resolution(px_um),
                **how,
            )


def _whole_tile_rows(bands: Iterator[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
    """Yield the same rows in bands of whole rows of tiles, but for the last."""
    held: npt.NDArray[Any] | None = None
    for band in bands:
        held = band if held is None else np.concatenate([held, band])
        whole = held.shape[0] // TILE_PX * TILE_PX
        if whole:
            yield held[:whole]
            held = held[whole:]
    if held is not None and held.shape[0]:
        yield held


def _tiles(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    rows, columns = values.shape
    for y in range(0, rows, TILE_PX):
        for x in range(0, columns, TILE_PX):
            yield np.ascontiguousarray(values[y : y + TILE_PX, x : x + TILE_PX])


def _resolution(px_um: float | None) -> dict[str, Any]:
    if px_um is None:
        return {}
    per_cm = _UM_PER_CM / px_um
    return {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}


def _metadata(image: OmeImage) -> dict[str, Any]:
    n = len(image.channels)
    said: dict[str, Any] = {
        "axes": "CYX",
        "Name": image.name,
        "Description": image.description,
        "Channel": {"Name": list(image.channels)},
        "UUID": str(uuid.uuid5(_NAMESPACE, f"{image.name}\n{image.description}")),
    }
    if image.px_um is not None:
        x, y = image.origin_um
        said |= {
            "PhysicalSizeX": image.px_um,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": image.px_um,
            "PhysicalSizeYUnit": "µm",
            "Plane": {
                "PositionX": [x] * n,
                "PositionXUnit": ["µm"] * n,
                "PositionY": [y] * n,
                "PositionYUnit": ["µm"] * n,
            },
        }
    return said
