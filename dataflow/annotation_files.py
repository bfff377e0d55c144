"""Annotations as QuPath and others (GeoJSON) and ASAP (XML, as of CAMELYON) write them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np

from dataflow.annotations import Annotation, Ring
from store_schema.errors import InputError

ANNOTATION_SUFFIXES: Final = (".geojson", ".json", ".xml")

EXCLUDED: Final = ("exclusion", "ignore*")
"""Groups (ASAP) and classes (GeoJSON) that are taken away from others, in any case; ``Ignore*`` is QuPath's."""

NOT_TUMOUR: Final = (*EXCLUDED, "_2", "normal")
"""Those that are taken away from tumour.

``_2`` is CAMELYON16's (its groups ``_0``, ``_1`` and ``Tumor`` are tumour), ``normal`` CAMELYON17's.
"""

_WITH_AREA: Final = ("Polygon", "Spline", "Rectangle")
_WITHOUT_AREA: Final = ("Dot", "PointSet", "Measurement", "None")


def read_annotations(path: Path, cut_outs: Collection[str]) -> tuple[Annotation, ...]:
    """Read annotations in level-0 pixels.

    Parameters
    ----------
    path
        GeoJSON (any object, or QuPath's bare list of features), or ASAP's XML. Of the latter, a spline is taken as the
        polygon of its points; dots and measurements, which have no area, are left out. All outlines count, whatever
        their class.
    cut_outs
        Classes and groups, in lower case, whose area is taken away from that of the others.

    Raises
    ------
    InputError
        The file can't be read, or holds what isn't an outline.
    """
    read = _asap if path.suffix.lower() == ".xml" else _geojson
    return tuple(read(path, cut_outs))


def _geojson(path: Path, cut_outs: Collection[str]) -> Iterator[Annotation]:
    try:
        data = json.loads(path.read_bytes())  # with or without a mark, UTF-8 or UTF-16
        found = list(_features(data, path, {}))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the annotations {path} can't be read as GeoJSON: {error}") from error
    for number, (properties, polygons) in enumerate(found, 1):
        kind = properties.get("classification")
        of_class = kind.get("name") if isinstance(kind, dict) else kind
        label = properties.get("name") or of_class
        name = f"annotation {number}" + (f" ({label})" if label else "")
        rings = tuple(tuple(_ring(ring, name, path) for ring in each) for each in polygons)
        cut_out = isinstance(of_class, str) and of_class.lower() in cut_outs
        yield Annotation(name, tuple(each for each in rings if each), cut_out)


def _features(
    node: Any, path: Path, properties: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], list[Any]]]:
    """Yield properties and polygons of all outlines of any GeoJSON object."""
    kind = node.get("type") if isinstance(node, dict) else None
    try:
        if isinstance(node, list):  # QuPath writes a bare list of features
            for each in node:
                yield from _features(each, path, properties)
        elif kind in ("FeatureCollection", "GeometryCollection"):
            member = "features" if kind == "FeatureCollection" else "geometries"
            if not isinstance(node[member], list):
                raise InputError(
                    f"the annotations {path} aren't valid GeoJSON: {member} of a {kind} isn't a list"
                )
            for each in node[member]:
                yield from _features(each, path, properties)
        elif kind == "Feature":
            if node["geometry"] is not None:
                of_this = node.get("properties")
                yield from _features(
                    node["geometry"], path, of_this if isinstance(of_this, dict) else {}
                )
        elif kind in ("Polygon", "MultiPolygon"):
            coordinates = node["coordinates"]
            polygons = [coordinates] if kind == "Polygon" else coordinates
            if not (
                isinstance(polygons, list) and all(isinstance(each, list) for each in polygons)
            ):
                raise InputError(f"the annotations {path} hold a {kind} that can't be drawn")
            yield properties, polygons
        else:
            raise InputError(
                f"the annotations {path} hold a {kind or 'value'} where only polygons can be drawn; export them as "
                "Polygon or MultiPolygon"
            )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"the annotations {path} aren't valid GeoJSON: a {kind} lacks {error}"
        ) from error


class _NoDoctype(ElementTree.TreeBuilder):
    """Builds a tree, but stops at a document type: entities of it could expand without end, or name other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse."""
        raise ValueError(f"it declares a document type {name!r}, which ASAP doesn't")


def _asap(path: Path, cut_outs: Collection[str]) -> Iterator[Annotation]:
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        root = ElementTree.parse(path, parser).getroot()
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise InputError(f"the annotations {path} can't be read as XML: {error}") from error
    if root is None or root.tag != "ASAP_Annotations":
        found = "nothing" if root is None else f"<{root.tag}>"
        raise InputError(
            f"the annotations {path} aren't ASAP's: they begin with {found}, not <ASAP_Annotations>; export them as "
            "GeoJSON"
        )
    parents = {
        group.get("Name", ""): group.get("PartOfGroup", "")
        for group in root.iterfind("AnnotationGroups/Group")
    }
    for number, element in enumerate(root.iterfind("Annotations/Annotation"), 1):
        kind, group = element.get("Type", "Polygon"), element.get("PartOfGroup", "None")
        name = f"annotation {number} ({element.get('Name') or group})"
        if kind in _WITHOUT_AREA:
            continue
        if kind not in _WITH_AREA:
            raise InputError(
                f"{name} of {path} is a {kind!r}, which isn't known: draw it as a polygon"
            )
        corners = sorted(element.iterfind("Coordinates/Coordinate"), key=_order)
        ring = _ring([(each.get("X"), each.get("Y")) for each in corners], name, path)
        cut_out = any(each.lower() in cut_outs for each in _lineage(group, parents))
        yield Annotation(name, ((ring,),), cut_out)


def _order(element: ElementTree.Element) -> float:
    """Return the place of a point in its outline; files without numbers are in order as they are."""
    try:
        return float(element.get("Order", "0"))
    except ValueError:
        return 0.0


def _lineage(group: str, parents: Mapping[str, str]) -> list[str]:
    """Return a group and all that it is part of."""
    found: list[str] = []
    while group and group not in found:
        found.append(group)
        group = parents.get(group, "")
    return found


def _ring(points: Any, name: str, path: Path) -> Ring:
    try:
        ring = np.array([point[:2] for point in points], dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise InputError(f"{name} of {path} can't be drawn: {error}") from error
    if len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise InputError(
            f"{name} of {path} can't be drawn: an outline needs at least three points, all of them finite"
        )
    return ring
