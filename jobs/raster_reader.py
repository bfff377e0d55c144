"""One slide-sized array of a store (``masks/<name>``): what heatmaps draw and exports write."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from dataflow.raster_pooling import pooled
from jobs.run_places import grid_with, lacking
from jobs.score_reader import CLASS_NAMES
from store_schema import names
from store_schema.errors import InputError, NotInStoreError
from store_schema.near_names import near
from store_schema.slide_view import SlideView

BAND_PX: Final = 1024
"""Rows that are read at once; as many as a stored chunk has."""


@dataclass(frozen=True)
class RasterChoice:
    """Which array of which ``masks/<name>``.

    Attributes
    ----------
    name
        Of the group.
    array
        None takes the only one there is beside ``mask``, or ``mask`` where there is no other.
    class_name
        Of a (class, y, x) array; None takes the positive one of two, or the only one.
    grid
        None takes the only grid that has the group.
    """

    name: str
    array: str | None = None
    class_name: str | None = None
    grid: str | None = None

    @classmethod
    def parse(
        cls, text: str, class_name: str | None = None, grid: str | None = None
    ) -> RasterChoice:
        """Read ``NAME`` or ``NAME/ARRAY``."""
        name, _, array = text.partition("/")
        return cls(name, array or None, class_name, grid)


@dataclass(frozen=True)
class SlideRaster:
    """One number a pixel.

    Attributes
    ----------
    slide, grid, name, array, class_name
        What is read; ``class_name`` is None where the array has none.
    values
        Lazy (y, x).
    px_level0
        Side of a pixel [px, level 0].
    origin_level0
        (x, y) of the top-left corner [px, level 0].
    attrs
        CF attributes of the array.
    group_attrs
        What the store says of the group.
    """

    slide: SlideView
    grid: str
    name: str
    array: str
    class_name: str | None
    values: xr.DataArray
    px_level0: float
    origin_level0: tuple[float, float]
    attrs: Mapping[str, Any]
    group_attrs: Mapping[str, Any]

    @property
    def what(self) -> str:
        """How legends call the number."""
        name = str(self.attrs.get("long_name", self.array))
        units = str(self.attrs.get("units", "1"))
        of_class = "" if self.class_name is None else f" for {self.class_name}"
        return f"{name}{of_class}{'' if units == '1' else f' [{units}]'}"

    def bands(self, rows: int = BAND_PX) -> Iterator[npt.NDArray[Any]]:
        """Yield the raster in bands of full width, from top to bottom; float16 as float32."""
        for start in range(0, self.values.shape[0], rows):
            band = self.values[start : start + rows].values
            yield band.astype(np.float32) if band.dtype == np.float16 else band

    def read(
        self, coarsest_px_level0: float = 0.0, how: Literal["mean", "max"] = "mean"
    ) -> tuple[npt.NDArray[Any], float]:
        """Read the raster, pooled as far as its pixels stay no larger than is wanted.

        Parameters
        ----------
        coarsest_px_level0
            How large a pixel may be [px, level 0]; 0 reads the raster as it is.
        how
            Pool by the mean (NaN counts for nothing) or the maximum.

        Returns
        -------
        tuple
            (y, x), and the side of its pixels [px, level 0].
        """
        times = max(1, math.floor(coarsest_px_level0 / self.px_level0))
        # whole bands hold whole groups of pixels
        rows = math.ceil(BAND_PX / times) * times
        parts = [pooled(band, times, how) for band in self.bands(rows)]
        if not parts:
            return self.values.values, self.px_level0
        return np.concatenate(parts), self.px_level0 * times


def read_raster(slide: SlideView, choice: RasterChoice) -> SlideRaster:
    """Open one array of ``masks/<name>``; pixels are read when they are asked for.

    Raises
    ------
    NotInStoreError
        The slide has no such group or array.
    IncompleteError, DamagedBlockError
        The group isn't wholly written, or has lost chunks.
    InputError
        An array or class must be named, or the array isn't one number a pixel.
    """
    channels = raster_channels(slide, choice)
    if len(channels) > 2:
        classes = ", ".join(str(channel.class_name) for channel in channels)
        path = f"{slide.grid_path(channels[0].grid)}/{names.MASKS}/{choice.name}"
        raise InputError(
            f"{path}/{channels[0].array} has the classes {classes}: name one with --class"
        )
    return channels[-1]


def raster_channels(slide: SlideView, choice: RasterChoice) -> list[SlideRaster]:
    """Open one array of ``masks/<name>``, class by class unless one is named; see :func:`read_raster`."""
    grid = grid_with(slide, names.MASKS, choice.name, choice.grid)
    if grid is None:
        where = f"slide {slide.slide_id}"
        raise NotInStoreError(lacking(where, [slide], names.MASKS, choice.name, choice.grid))
    path = f"{slide.grid_path(grid)}/{names.MASKS}/{choice.name}"
    dataset = slide.raster(grid, choice.name)
    arrays = sorted(str(name) for name in dataset.data_vars)
    array = choice.array or _main(path, arrays)
    if array == names.MASK and array not in arrays:
        raise NotInStoreError(
            f"{names.MASKS}/{choice.name} is a map of {', '.join(arrays)} and no mask: name a mask, as "
            "`calibrate` makes one"
        )
    if array not in arrays:
        raise NotInStoreError(f"{path} has no array {array!r}: {near(array, arrays)}")
    values = dataset[array]
    found: dict[str | None, xr.DataArray] = {None: values}
    if values.dims == (names.CLASS, names.Y, names.X):
        classes = [str(name) for name in values.attrs.get(CLASS_NAMES, range(values.shape[0]))]
        found = {name: values[i] for i, name in enumerate(classes)}
        if choice.class_name is not None:
            if choice.class_name not in classes:
                raise InputError(
                    f"{path}/{array} has no class {choice.class_name!r}: {near(choice.class_name, classes)}"
                )
            found = {choice.class_name: found[choice.class_name]}
    elif values.dims != (names.Y, names.X):
        raise InputError(f"{path}/{array} has more than one number a pixel: {values.dims}")
    elif choice.class_name is not None:
        raise InputError(
            f"{path}/{array} is the same for all classes: leave --class away, or name another array"
        )
    attrs = slide.run_attrs(grid, names.MASKS, choice.name)
    x, y = (float(at) for at in attrs[names.ORIGIN_LEVEL0])
    return [
        SlideRaster(
            slide,
            grid,
            choice.name,
            array,
            class_name,
            one,
            float(attrs[names.PX_LEVEL0]),
            (x, y),
            dict(values.attrs),
            attrs,
        )
        for class_name, one in found.items()
    ]


def _main(path: str, arrays: list[str]) -> str:
    others = [array for array in arrays if array != names.MASK]
    if len(others) > 1:
        raise InputError(f"{path} has the arrays {', '.join(arrays)}: name one, as NAME/ARRAY")
    return others[0] if others else names.MASK
