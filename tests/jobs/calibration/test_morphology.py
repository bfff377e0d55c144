"""Morphology on the lattice, against a plain and slow reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from jobs.calibration.morphology import Connectivity, MorphologySpec, cleaned, cleaned_tiles

Lattice = npt.NDArray[np.bool_]
Place = tuple[int, int]

EDGES = [(-1, 0), (1, 0), (0, -1), (0, 1)]
CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]


def neighbours(place: Place, connectivity: int) -> list[Place]:
    steps = EDGES if connectivity == 4 else EDGES + CORNERS
    return [(place[0] + down, place[1] + right) for down, right in steps]


def reached(start: Place, within: set[Place], connectivity: int) -> set[Place]:
    """Flood from one place."""
    found, todo = {start}, [start]
    while todo:
        for place in neighbours(todo.pop(), connectivity):
            if place in within and place not in found:
                found.add(place)
                todo.append(place)
    return found


def footprint(radius: int, connectivity: int) -> list[Place]:
    near = range(-radius, radius + 1)
    return [(i, j) for i in near for j in near if connectivity == 8 or abs(i) + abs(j) <= radius]


def dilated(mask: set[Place], steps: list[Place]) -> set[Place]:
    return {(i + a, j + b) for i, j in mask for a, b in steps}


def eroded(mask: set[Place], steps: list[Place]) -> set[Place]:
    return {(i, j) for i, j in mask if all((i + a, j + b) in mask for a, b in steps)}


def reference(flagged: Lattice, has_tile: Lattice, spec: MorphologySpec) -> Lattice:
    """The same by sets of places, on an endless plane."""
    tiles = {(int(i), int(j)) for i, j in np.argwhere(has_tile)}
    mask = {(int(i), int(j)) for i, j in np.argwhere(flagged)} & tiles
    if spec.opening:
        steps = footprint(spec.opening, spec.connectivity)
        mask = dilated(eroded(mask, steps), steps)
    if spec.closing:
        steps = footprint(spec.closing, spec.connectivity)
        mask = eroded(dilated(mask, steps), steps) & tiles
    mask = {p for p in mask if len(reached(p, mask, spec.connectivity)) >= spec.min_tiles}
    if spec.fill_holes:
        rows, columns = flagged.shape
        ground = {(i, j) for i in range(-1, rows + 1) for j in range(-1, columns + 1)} - mask
        outside = reached((-1, -1), ground, 4 if spec.connectivity == 8 else 8)
        mask |= (ground - outside) & tiles
    result = np.zeros_like(flagged)
    for place in mask:
        result[place] = True
    return result


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
specs = st.builds(
    MorphologySpec,
    opening=st.integers(0, 2),
    closing=st.integers(0, 2),
    min_tiles=st.integers(1, 6),
    fill_holes=st.booleans(),
    connectivity=st.sampled_from([4, 8]),
)


@st.composite
def lattices(draw: st.DrawFn) -> tuple[Lattice, Lattice]:
    shape = draw(shapes)
    flagged, has_tile = (
        draw(hnp.arrays(bool, shape, elements=st.sampled_from(elements)))
        for elements in ([False, True], [True, True, True, False])
    )
    return flagged & has_tile, has_tile


@settings(max_examples=300, deadline=None)
@given(lattices(), specs)
def test_as_the_slow_reference(data: tuple[Lattice, Lattice], spec: MorphologySpec) -> None:
    flagged, has_tile = data
    found = cleaned(flagged, has_tile, spec)
    np.testing.assert_array_equal(found, reference(flagged, has_tile, spec))
    assert not (found & ~has_tile).any()


@settings(deadline=None)
@given(lattices(), st.integers(1, 6), st.sampled_from([4, 8]))
def test_twice_is_as_good_as_once(
    data: tuple[Lattice, Lattice], min_tiles: int, connectivity: Connectivity
) -> None:
    flagged, has_tile = data
    spec = MorphologySpec(min_tiles=min_tiles, connectivity=connectivity)
    once = cleaned(flagged, has_tile, spec)
    np.testing.assert_array_equal(cleaned(once, has_tile, spec), once)


def picture(*lines: str) -> Lattice:
    return np.array([[char == "#" for char in line] for line in lines])


def test_small_components_go_and_large_ones_stay() -> None:
    mask = picture("##...#", "##...#", "#....#", ".....#")
    everywhere = np.ones_like(mask)
    found = cleaned(mask, everywhere, MorphologySpec())
    np.testing.assert_array_equal(found, picture("##....", "##....", "#.....", "......"))
    diagonal = picture("#....", ".#...", "..#..", "...#.", "....#")
    everywhere = np.ones_like(diagonal)
    assert cleaned(diagonal, everywhere, MorphologySpec(connectivity=8)).sum() == 5
    assert cleaned(diagonal, everywhere, MorphologySpec(connectivity=4)).sum() == 0


def test_a_hole_has_the_dual_connectivity() -> None:
    diamond = picture("..#..", ".#.#.", "#...#", ".#.#.", "..#..")
    everywhere = np.ones_like(diamond)
    filled = cleaned(diamond, everywhere, MorphologySpec(min_tiles=1, connectivity=8))
    assert filled.sum() == 13
    open_to_corners = cleaned(diamond, everywhere, MorphologySpec(min_tiles=1, connectivity=4))
    np.testing.assert_array_equal(open_to_corners, diamond)


def test_a_hole_without_tissue_stays_and_its_tiles_are_filled() -> None:
    ring = picture("####", "#..#", "####")
    has_tile = np.ones_like(ring)
    has_tile[1, 1] = False
    found = cleaned(ring, has_tile, MorphologySpec())
    np.testing.assert_array_equal(found, picture("####", "#.##", "####"))
    # a bay is no hole
    bay = picture("####", "#...", "####")
    np.testing.assert_array_equal(cleaned(bay, np.ones_like(bay), MorphologySpec()), bay)


def test_tiles_that_share_a_place() -> None:
    row, col = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    flagged = np.array([False, True, True, False])
    found = cleaned_tiles(flagged, row, col, (2, 2), MorphologySpec(min_tiles=2))
    np.testing.assert_array_equal(found, picture("##", ".."))


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 7), (7, 1)])
def test_lattices_of_hardly_anything(shape: tuple[int, int]) -> None:
    everywhere = np.ones(shape, bool)
    spec = MorphologySpec(opening=1, closing=2, min_tiles=3)
    assert cleaned(everywhere, everywhere, spec).shape == shape
    assert not cleaned(everywhere, everywhere, spec).any()  # no square of three fits
    kept = cleaned(everywhere, everywhere, MorphologySpec(closing=2, min_tiles=1))
    assert kept.all()


def test_real_tumours_are_left_as_they_are_but_for_the_smallest(test_data: Path) -> None:
    folder = test_data / "cohort" / "masks"
    if not folder.is_dir():
        pytest.skip("no cohort")
    truths = [np.asarray(Image.open(file)) > 0 for file in sorted(folder.glob("*.png"))]
    for truth in truths:
        expected = truth if truth.sum() >= 5 else np.zeros_like(truth)
        np.testing.assert_array_equal(cleaned(truth, truth, MorphologySpec()), expected)
    assert any(truth.sum() < 5 for truth in truths)  # what --min-tiles costs
