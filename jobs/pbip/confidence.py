"""Stored confidence of classes, read box by box; and the declarations of what is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dataflow.padded_window import Box
from jobs.raster_reader import RasterChoice, SlideRaster, raster_channels
from store_schema import names
from store_schema.slide_view import SlideView
from store_schema.specs import RasterSpec


@dataclass(frozen=True)
class Confidence:
    """``masks/<name>/confidence`` (class, y, x) of a slide. Picklable: only the address travels.

    Attributes
    ----------
    slide, grid, name
        Where it is.
    """

    slide: SlideView
    grid: str
    name: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self._channels[0].values.shape
        return rows, columns

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in their order."""
        return tuple(str(channel.class_name) for channel in self._channels)

    @property
    def px_level0(self) -> float:
        """Side of a pixel [px, level 0]; the first one begins at the slide's corner."""
        return self._channels[0].px_level0

    @property
    def fingerprint(self) -> str:
        """What made it."""
        return str(self._channels[0].group_attrs[names.FINGERPRINT])

    def read(self, box: Box) -> npt.NDArray[np.float32]:
        """Return float32 (class, y, x) of a box; NaN where nothing is known."""
        return np.stack([self.read_class(box, n) for n in range(len(self._channels))])

    def read_class(self, box: Box, number: int) -> npt.NDArray[np.float32]:
        """Return float32 (y, x) of a box and one class, by its position."""
        values: npt.NDArray[np.float32] = (
            self._channels[number].values[box].values.astype(np.float32)
        )
        return values

    def arrays(self) -> dict[str, RasterSpec]:
        """Return what a refined confidence and its mask are declared as: as stitched ones are."""
        attrs = dict(self._channels[0].attrs)
        place = self._channels[0].px_level0, self._channels[0].origin_level0
        shape = (len(self.class_names), *self.shape)
        dims = (names.CLASS, names.Y, names.X)
        return {
            names.CONFIDENCE: RasterSpec(dims, shape, "float16", *place, attrs),
            names.MASK: self.mask_spec(),
        }

    def mask_spec(self) -> RasterSpec:
        """Return the declaration of a mask of these classes: 0 where there is nothing, else 1 + class."""
        first = self._channels[0]
        meanings = ["nothing", *("_".join(name.split()) for name in self.class_names)]
        attrs: dict[str, Any] = {
            "long_name": "class",
            "flag_values": list(range(len(meanings))),
            "flag_meanings": " ".join(meanings),
        }
        dims = (names.Y, names.X)
        return RasterSpec(dims, self.shape, "uint8", first.px_level0, first.origin_level0, attrs)

    @cached_property
    def _channels(self) -> list[SlideRaster]:
        choice = RasterChoice(self.name, names.CONFIDENCE, grid=self.grid)
        return raster_channels(self.slide, choice)

    def __getstate__(self) -> dict[str, object]:
        return {"slide": self.slide, "grid": self.grid, "name": self.name}


def provenance(of: Confidence, **made: Any) -> dict[str, Any]:
    """Return what decides something that is made of a confidence.

    Parameters
    ----------
    of
        The confidence.
    **made
        How, JSON-able.
    """
    grid = of.slide.grid_attrs(of.grid)[names.FINGERPRINT]
    return {
        "slide": of.slide.record.fingerprint,
        names.GRID_MADE_BY: grid,
        "confidence": of.fingerprint,
        **made,
    }
