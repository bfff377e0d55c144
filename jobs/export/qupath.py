"""Objects as QuPath reads and writes them in GeoJSON: features whose properties say type, class and measurements.

What QuPath 0.4 to 0.6 make of a feature (``qupath.lib.io.QuPathTypeAdapters`` and ``GsonTools`` of its source):
``objectType`` is ``annotation``, ``detection``, ``tile`` …; a tile is a detection, so that measurement maps and tables
have it, and is drawn without its border below a map. A ``classification`` must have a colour beside its name, or the
file is refused; ``color`` of an object goes before that of its class; ``measurements`` map names to numbers;
coordinates are pixels of the full resolution, two decimals in what QuPath writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from jobs.export.whole_file import whole_file

Colour = Sequence[int]


@dataclass(frozen=True)
class PathClass:
    """A classification.

    Attributes
    ----------
    name
        QuPath takes a colon in it for the border between a class and its subclass.
    colour
        RGB, 0 to 255; a class that QuPath's list has already keeps the colour it has there.
    """

    name: str
    colour: tuple[int, int, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as a feature holds it."""
        return {"name": self.name, "color": list(self.colour)}


def write_features(path: Path, features: Iterable[Mapping[str, Any]], *, overwrite: bool) -> None:
    """Write features as one GeoJSON file.

    Raises
    ------
    InputError
        The file is there already, or can't be written.
    """
    with (
        whole_file(path, overwrite=overwrite) as part,
        part.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.write('{"type": "FeatureCollection", "features": [\n')
        for i, feature in enumerate(features):
            file.write(",\n" * bool(i) + json.dumps(feature, allow_nan=False, ensure_ascii=False))
        file.write("\n]}\n")


def region_feature(
    shape: shapely.Polygon | shapely.MultiPolygon,
    name: str,
    path_class: PathClass,
    measurements: Mapping[str, float],
) -> dict[str, Any]:
    """Return a region as an annotation; it is locked, so that no drag moves it (right click unlocks it).

    Parameters
    ----------
    shape
        With holes [px, level 0].
    name
        What QuPath's list calls it.
    path_class
        Its classification.
    measurements
        Name → value; what isn't finite is left out, JSON has no word for it.
    """
    polygons = [
        [_ring(np.asarray(ring.coords)) for ring in (polygon.exterior, *polygon.interiors)]
        for polygon in shapely.get_parts(shape)
    ]
    return _feature(
        polygons,
        {
            "objectType": "annotation",
            "name": name,
            "classification": path_class.to_json(),
            "isLocked": True,
        },
        measurements,
    )


def tile_feature(
    x: float,
    y: float,
    tile_level0: int,
    look: PathClass | Colour | None,
    measurements: Mapping[str, float],
) -> dict[str, Any]:
    """Return a tile.

    Parameters
    ----------
    x, y, tile_level0
        Top-left corner and side [px, level 0].
    look
        Its classification, or a colour of its own, or neither.
    measurements
        As of :func:`region_feature`.
    """
    properties: dict[str, Any] = {"objectType": "tile"}
    if isinstance(look, PathClass):
        properties["classification"] = look.to_json()
    elif look is not None:
        properties["color"] = [int(part) for part in look]
    right, below = x + tile_level0, y + tile_level0
    corners = np.array([(x, y), (right, y), (right, below), (x, below), (x, y)], float)
    return _feature([[_ring(corners)]], properties, measurements)


def _feature(
    polygons: list[list[list[list[float]]]],
    properties: dict[str, Any],
    measurements: Mapping[str, float],
) -> dict[str, Any]:
    known = {name: value for name, value in measurements.items() if np.isfinite(value)}
    if known:
        properties["measurements"] = known
    return {
        "type": "Feature",
        "geometry": (
            {"type": "Polygon", "coordinates": polygons[0]}
            if len(polygons) == 1
            else {"type": "MultiPolygon", "coordinates": polygons}
        ),
        "properties": properties,
    }


def _ring(corners: npt.NDArray[np.floating]) -> list[list[float]]:
    return [[_shortest(x), _shortest(y)] for x, y in corners.tolist()]


def _shortest(value: float) -> float:
    rounded = round(value, 2)
    return int(rounded) if rounded.is_integer() else rounded
