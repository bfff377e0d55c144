from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from dataflow.mask_polygons import mask_regions

Mask = npt.NDArray[np.uint8]


def filled(shape: Any, mask_shape: tuple[int, int], px: float, origin: tuple[float, float]) -> Mask:
    """Which pixels have their centre in a shape."""
    y, x = np.indices(mask_shape)
    inside: Mask = shapely.contains_xy(
        shape, (x + 0.5) * px + origin[0], (y + 0.5) * px + origin[1]
    ).astype(np.uint8)
    return inside


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)),
    st.sampled_from([1.0, 96.0, 131.4]),
    st.sampled_from([(0.0, 0.0), (3.5, 700.25)]),
)
def test_outlines_are_exact(mask: Mask, px: float, origin: tuple[float, float]) -> None:
    regions = mask_regions(mask, px, origin)
    drawn = np.zeros_like(mask)
    for region in regions:
        assert region.shape.is_valid
        inside = filled(region.shape, mask.shape, px, origin)
        assert not drawn[inside > 0].any()
        drawn[inside > 0] = region.value
        # no more than its pixels: centres say nothing of borders
        assert region.shape.area == pytest.approx(inside.sum() * px**2, rel=1e-9)
        _, n = ndimage.label(inside, structure=np.ones((3, 3)))
        assert n == 1  # pixels that share an edge or a corner
    np.testing.assert_array_equal(drawn, mask)
    expected = sum(ndimage.label(mask == value, structure=np.ones((3, 3)))[1] for value in (1, 2))
    assert len(regions) == expected


def test_straight_edges_have_no_corners_between() -> None:
    ring = np.ones((5, 7), np.uint8)
    ring[1:4, 2:5] = 0
    (region,) = mask_regions(ring, 10.0, (100.0, 0.0))
    shape = region.shape
    assert isinstance(shape, shapely.Polygon)
    assert sorted(shape.exterior.coords[:-1]) == [(100, 0), (100, 50), (170, 0), (170, 50)]
    (hole,) = shape.interiors
    assert sorted(hole.coords[:-1]) == [(120, 10), (120, 40), (150, 10), (150, 40)]


def test_touching_corners_make_several_polygons_of_one_region() -> None:
    (region,) = mask_regions(np.eye(3, dtype=np.uint8), 2.0)
    assert isinstance(region.shape, shapely.MultiPolygon)
    assert [part.bounds for part in region.shape.geoms] == [
        (0, 0, 2, 2),
        (2, 2, 4, 4),
        (4, 4, 6, 6),
    ]


def test_order() -> None:
    mask = np.array([[2, 0, 1], [0, 0, 0], [1, 0, 2]], np.uint8)
    found = [(region.value, region.shape.bounds[:2]) for region in mask_regions(mask, 1.0)]
    assert found == [(1, (2, 0)), (1, (0, 2)), (2, (0, 0)), (2, (2, 2))]


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 3)])
def test_nothing_there(shape: tuple[int, int]) -> None:
    assert mask_regions(np.zeros(shape, np.uint8), 4.0) == []
