"""Annotations: what is read of files, which outlines are refused, and what they are drawn to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflow.annotation_files import NOT_TUMOUR, read_annotations
from dataflow.annotations import Annotation, Ring, check_reach, checked_crossings, draw
from dataflow.mask_files import read_mask_file, read_mask_image
from store_schema.errors import InputError

Points = list[tuple[float, float]]


def ring(points: Points) -> Ring:
    return np.array(points, dtype=np.float64)


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def annotation(*rings: Points, cut_out: bool = False) -> Annotation:
    return Annotation("annotation 1", (tuple(ring(each) for each in rings),), cut_out)


def feature(points: Points, kind: str | None = None, name: str | None = None) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": "annotation"}
    if kind is not None:
        properties["classification"] = {"name": kind}
    if name is not None:
        properties["name"] = name
    geometry = {"type": "Polygon", "coordinates": [[*points, points[0]]]}
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def asap(*annotations: tuple[str, str, Points], groups: str = "") -> str:
    """Return ASAP's XML of annotations (group, type, points)."""
    elements = []
    for i, (group, kind, points) in enumerate(annotations):
        coordinates = "".join(
            f'<Coordinate Order="{k}" X="{x}" Y="{y}" />' for k, (x, y) in enumerate(points)
        )
        elements.append(
            f'<Annotation Name="Annotation {i}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
            f"<Coordinates>{coordinates}</Coordinates></Annotation>"
        )
    return (
        f'<?xml version="1.0"?>\n<ASAP_Annotations><Annotations>{"".join(elements)}</Annotations>'
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )


def area(path: Path, side: int = 100) -> npt.NDArray[np.bool_]:
    return draw(read_annotations(path, NOT_TUMOUR), side, side, 1.0)


@settings(deadline=None, max_examples=100)
@given(st.integers(3, 12), st.integers(0, 2**32 - 1), st.floats(0.3, 7.0))
def test_a_pixel_is_inside_if_its_centre_is(n: int, seed: int, px: float) -> None:
    generator = np.random.default_rng(seed)
    angles = np.sort(generator.random(n)) * 2 * np.pi
    radii = generator.uniform(5, 40, n)
    points = np.c_[30 + radii * np.cos(angles), 20 + radii * np.sin(angles)]  # may leave the slide
    drawn = draw([Annotation("a", ((points,),))], 60, 50, px)
    rows, columns = drawn.shape
    assert (rows, columns) == (np.ceil(50 / px - 1e-6), np.ceil(60 / px - 1e-6))
    x, y = np.meshgrid((np.arange(columns) + 0.5) * px, (np.arange(rows) + 0.5) * px)
    polygon = shapely.make_valid(shapely.Polygon(points))
    inside = shapely.contains_xy(polygon, x, y)
    near = shapely.distance(shapely.boundary(polygon), shapely.points(x, y)) < 1e-9
    np.testing.assert_array_equal(drawn[~near], inside[~near])


def test_neighbours_neither_overlap_nor_leave_a_gap() -> None:
    """Triangles around common points on pixel centres and corners: each pixel belongs to one of them."""
    corners = box(0, 0, 40, 30)
    for centre in ((20.5, 15.5), (20.0, 15.0), (7.3, 22.9)):
        counts = np.zeros((30, 40), int)
        for i in range(4):
            counts += draw([annotation([corners[i], corners[(i + 1) % 4], centre])], 40, 30, 1.0)
        np.testing.assert_array_equal(counts, 1)


def test_holes_and_cut_outs() -> None:
    drawn = draw(
        [
            annotation(box(10, 10, 30, 30), cut_out=True),  # before what it is taken from
            annotation(box(0, 0, 50, 50), box(40, 40, 45, 45)),
            annotation(box(-20, 60, 20, 300)),
        ],
        100, 100, 1.0,
    )  # fmt: skip
    expected = np.zeros((100, 100), bool)
    expected[:50, :50] = True
    expected[10:30, 10:30] = expected[40:45, 40:45] = False
    expected[60:, :20] = True
    np.testing.assert_array_equal(drawn, expected)


def test_geojson_classes_that_cut_out(tmp_path: Path) -> None:
    path = tmp_path / "s.geojson"
    features = [
        feature(box(0, 0, 40, 40), "Tumor"),
        feature(box(10, 10, 20, 20), "Ignore*"),
        feature(box(50, 50, 60, 60)),
        {"type": "Feature", "properties": None, "geometry": None},
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = read_annotations(path, NOT_TUMOUR)
    assert [each.name for each in found] == [
        "annotation 1 (Tumor)", "annotation 2 (Ignore*)", "annotation 3",
    ]  # fmt: skip
    assert [each.cut_out for each in found] == [False, True, False]
    assert area(path).sum() == 1600 - 100 + 100


def test_groups_of_camelyon(tmp_path: Path) -> None:
    path = tmp_path / "tumor_001.xml"
    path.write_text(
        asap(
            ("_2", "Polygon", box(10, 10, 20, 20)),
            ("_0", "Polygon", box(0, 0, 30, 30)),
            ("_1", "Spline", box(50, 0, 60, 10)),
            ("None", "Rectangle", box(50, 50, 60, 60)),
            ("vessels", "Polygon", box(50, 50, 55, 55)),
            ("Tumor", "Dot", [(5, 5)]),
            ("Tumor", "Measurement", [(5, 5), (6, 6)]),
            groups='<Group Name="vessels" PartOfGroup="Exclusion" Color="#0"><Attributes /></Group>'
            '<Group Name="Exclusion" PartOfGroup="None" Color="#0"><Attributes /></Group>',
        )
    )
    assert area(path).sum() == 900 - 100 + 100 + 100 - 25
    normal = ("normal", "Polygon", box(0, 0, 9, 9))
    path.write_text(asap(("metastases", "Polygon", box(0, 0, 30, 30)), normal))
    assert area(path).sum() == 900 - 81
    as_mask, px = read_mask_file(path, 100, 100, 1.0)
    assert (as_mask.sum(), px) == (900, 1.0)  # normal tissue is tissue


def test_points_are_taken_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "s.xml"
    text = asap(("Tumor", "Polygon", box(0, 0, 30, 30)))
    first, second = 'Order="1" X="30" Y="0"', 'Order="2" X="30" Y="30"'
    path.write_text(text.replace(first, "@").replace(second, first).replace("@", second))
    checked_crossings(read_annotations(path, NOT_TUMOUR), path)
    assert area(path).sum() == 900


BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<ASAP_Annotations>&b;</ASAP_Annotations>"""
OUTSIDE = """<?xml version="1.0"?>
<!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/hostname">]><ASAP_Annotations>&secret;</ASAP_Annotations>"""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.xml", BOMB, "declares a document type 'lolz'"),
        ("s.xml", OUTSIDE, "declares a document type 'x'"),
        ("s.xml", "<ASAP_Annotations>", "can't be read as XML"),
        ("s.xml", "<ASAP_Annotations>&b;</ASAP_Annotations>", "can't be read as XML"),
        ("s.xml", "", "can't be read as XML"),
        ("s.xml", "<Annotations MicronsPerPixel='0.5'/>", "begin with <Annotations>"),
        ("s.xml", asap(("Tumor", "Polygon", [(0, 0), (1, 1)])), r"annotation 1 \(Annotation 0\) of .*s.xml can't"),
        ("s.xml", asap(("Tumor", "Polygon", box(0, 0, 1, 1))).replace('X="1"', 'X="one"'), "could not convert"),
        ("s.xml", asap(("Tumor", "Polygon", box(0, 0, 1, 1))).replace('X="1"', 'X="inf"'), "all of them finite"),
        ("s.xml", asap(("Tumor", "Polygon", box(0, 0, 1, 1))).replace('X="1"', ""), "can't be drawn"),
        ("s.xml", asap(("Tumor", "Blob", box(0, 0, 1, 1))), "is a 'Blob'"),
        ("s.geojson", "[" * 100_000, "can't be read as GeoJSON"),
        ("s.geojson", '{"type": "Feature", "geometry": {"type": "LineString"}}', "only polygons"),
        ("s.geojson", '{"type": "FeatureCollection", "features": null}', "features of a FeatureColl"),
        ("s.geojson", '{"type": "MultiPolygon", "coordinates": [3]}', "can't be drawn"),
        ("s.geojson", '{"type": "Polygon", "coordinates": [[[0, 0], [0, NaN], [1, 1]]]}', "finite"),
    ],
)  # fmt: skip
def test_broken_annotations(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path / name, NOT_TUMOUR)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_geojson(tmp_path: Path, encoding: str) -> None:
    outline = {"type": "Polygon", "coordinates": [box(0, 0, 4, 4)]}
    (tmp_path / "s.geojson").write_text(json.dumps(outline), encoding=encoding)
    assert len(read_annotations(tmp_path / "s.geojson", NOT_TUMOUR)) == 1


def test_what_crosses_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.geojson"
    bow_tie = [(0.0, 0.0), (50.0, 50.0), (50.0, 0.0), (0.0, 50.0)]
    path.write_text(json.dumps([feature(box(0, 0, 9, 9)), feature(bow_tie, "tumor", "left lobe")]))
    message = r"annotation 2 \(left lobe\) of .*s.geojson crosses itself near \(25, 25\)"
    with pytest.raises(InputError, match=message):
        checked_crossings(read_annotations(path, NOT_TUMOUR), path)
    with pytest.raises(InputError, match="crosses itself"):  # as tissue, too
        read_mask_file(path, 100, 100, 1.0)
    inwards = [(60.0, 60.0), (20.0, 60.0), (20.0, 20.0), (40.0, 20.0)]
    curl = [(0.0, 0.0), (60.0, 0.0), *inwards, (40.0, 70.0), (0.0, 70.0)]
    with pytest.raises(InputError, match="crosses itself"):  # a part of it is gone around twice
        checked_crossings([annotation(curl)], path)
    in_a_hole = annotation(box(0, 0, 99, 99), bow_tie)
    with pytest.raises(InputError, match="crosses itself"):
        checked_crossings([in_a_hole], path)


@pytest.mark.parametrize(
    "points",
    [
        [(0, 0), (5, 0), (5, 5), (10, 5), (10, 10), (5, 10), (5, 5), (0, 5)],  # pixels at a corner
        [(0, 0), (10, 0), (10, 10), (5, 10), (5, 15), (5, 10), (0, 10)],  # a spur
        [(0, 0), (10, 0), (5, 0), (10, 10), (0, 10)],  # forth and back
        [(0, 0), (10, 0), (10, 10), (5, 0), (0, 10)],  # a corner on an edge
        [
            (0, 0),
            (5, 5),
            (10, 10),
            (10, 0),
            (5, 5),
            (0, 10),
        ],  # a bow tie that is sewn in its middle
        [(0, 0), (0, 0), (10, 0), (10, 10), (10, 10)],  # points twice
        [(0, 0), (10, 0), (20, 0)],  # no area
    ],
)
def test_what_only_touches_itself_is_clear(points: Points, tmp_path: Path) -> None:
    assert checked_crossings([annotation(points)], tmp_path) == ()


def test_a_tiny_loop_where_a_hand_closed_its_outline(tmp_path: Path) -> None:
    closing = [(0.0, 0.0), (100.0, 0.0), (100.0, 100.0), (0.0, 100.0), (0.0, 3.0), (3.0, -2.0)]
    notes = checked_crossings([annotation(closing)], tmp_path / "s.xml")
    assert len(notes) == 1
    assert "s.xml crosses itself near" in notes[0]
    assert "% of its area in doubt" in notes[0]


def test_annotations_of_another_slide(tmp_path: Path) -> None:
    inside = annotation(box(-1, -1, 101, 51))  # by 1 %
    check_reach([inside], tmp_path, 100, 50)
    for points in (box(-2, 0, 10, 10), box(0, 0, 102, 10), box(0, 0, 10, 52), box(0, -2, 10, 10)):
        with pytest.raises(InputError, match="another slide, shifted, or not in level-0"):
            check_reach([inside, annotation(points)], tmp_path, 100, 50)


def write_sparse_pyramid(path: Path) -> npt.NDArray[np.bool_]:
    """Write a tiled mask of 1 and 0 in three levels; return the second."""
    level0 = np.zeros((512, 1024), np.uint8)
    level0[100:300, 200:600] = 1
    with tifffile.TiffWriter(path) as file:
        for i in range(3):
            level = np.ascontiguousarray(level0[:: 2**i, :: 2**i])
            file.write(level, tile=(64, 64), compression="zlib", subfiletype=min(i, 1))
    return level0[::2, ::2] > 0


def test_a_mask_too_large_to_be_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = write_sparse_pyramid(tmp_path / "s.tif")
    Image.fromarray(np.zeros((512, 1024), np.uint8)).save(tmp_path / "s.png")
    assert read_mask_image(tmp_path / "s.tif", 10240, 5120).shape == (512, 1024)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200_000)
    monkeypatch.setattr("dataflow.mask_files._MOST_PX", 200_000)
    found = read_mask_image(tmp_path / "s.tif", 10240, 5120)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"s.png is too large to be read whole.*pyramidal TIFF"):
        read_mask_image(tmp_path / "s.png", 10240, 5120)


@pytest.mark.parametrize(("suffix", "options"), [(".jpg", {}), (".tif", {"compression": "jpeg"})])
def test_the_blur_of_a_jpeg_is_not_inside(
    tmp_path: Path, suffix: str, options: dict[str, str]
) -> None:
    inside = np.zeros((70, 70), bool)
    inside[21:35, 14:42] = True
    path = tmp_path / f"s{suffix}"
    Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).save(path, quality=50, **options)
    with Image.open(path) as image:
        assert np.count_nonzero(np.asarray(image)) > 1.2 * np.count_nonzero(inside)
    np.testing.assert_array_equal(read_mask_image(path, 700, 700), inside)


def test_nan_is_outside(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.array([[np.nan, 1], [0, np.nan]], np.float32))
    found = read_mask_image(tmp_path / "s.tif", 20, 20)
    np.testing.assert_array_equal(found, [[False, True], [False, False]])
