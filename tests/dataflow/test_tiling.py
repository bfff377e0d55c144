from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.hilbert import hilbert_index
from dataflow.slide import Level, SlideInfo
from dataflow.tiling import grid_geometry, lattice_corners, make_tiles, tissue_fractions
from store_schema.errors import InputError, MissingMppError, SlideError
from store_schema.specs import GridSpec


@dataclass(frozen=True)
class Mask:
    mask: npt.NDArray[np.uint8]
    px_level0: float


def info_of(width: int, height: int, mpp: float = 0.5) -> SlideInfo:
    return SlideInfo("memory", "none", width, height, (Level(width, height, 1.0),), mpp, "user")


sides = st.integers(1, 3000)
ratios = st.floats(0.99, 6.0)  # requested over slide mpp


@given(width=sides, height=sides, ratio=ratios, tile_px=st.integers(16, 300))
@settings(max_examples=150, deadline=None)
def test_tiles_cover_the_slide_exactly_once(
    width: int, height: int, ratio: float, tile_px: int
) -> None:
    info = info_of(width, height)
    spec = GridSpec(tile_px, 0.5 * ratio, tile_px, edge="pad")
    geometry, table = make_tiles(info, spec, None)
    assert len(table) == geometry.n_rows * geometry.n_cols
    for n, size in ((geometry.n_cols, width), (geometry.n_rows, height)):
        corners = lattice_corners(n, geometry.stride_level0)
        times = np.zeros(size, int)
        for corner in corners:
            times[corner : corner + geometry.tile_level0] += 1
        # strides alternate around a fraction: neighbours may share, or miss, one rounded pixel
        off = times != 1
        assert not (off[1:] & off[:-1]).any()
        assert off.sum() <= n - 1
        if geometry.stride_level0 == geometry.tile_level0:
            assert not off.any()


@given(width=sides, ratio=ratios, tile_px=st.integers(16, 300), stride=st.floats(0.2, 1))
@settings(max_examples=150, deadline=None)
def test_dropping_keeps_all_tiles_that_fit_and_no_other(
    width: int, ratio: float, tile_px: int, stride: float
) -> None:
    info = info_of(width, width)
    spec = GridSpec(tile_px, 0.5 * ratio, max(1, round(tile_px * stride)))
    geometry = grid_geometry(info, spec)
    ends = lattice_corners(geometry.n_cols + 1, geometry.stride_level0) + geometry.tile_level0
    assert (ends[:-1] <= width).all()
    assert ends[-1] > width


@given(ratio=ratios, index=st.integers(0, 2000))
@settings(deadline=None)
def test_corners_do_not_drift(ratio: float, index: int) -> None:
    geometry = grid_geometry(info_of(1000, 1000), GridSpec(256, 0.5 * ratio, 256))
    corner = lattice_corners(index + 1, geometry.stride_level0)[index]
    assert abs(corner - index * 256 * (0.5 * ratio / 0.5)) <= 0.5 + 1e-6


def test_tiles_are_in_place_and_the_order_is_compact() -> None:
    geometry, table = make_tiles(info_of(64 * 100, 64 * 70), GridSpec(64, 0.5, 64), None)
    assert (geometry.n_cols, geometry.n_rows) == (100, 70)
    assert (table.x == table.col * 64).all()  # x goes with columns
    assert (table.y == table.row * 64).all()
    assert len({*zip(table.row.tolist(), table.col.tolist(), strict=True)}) == 7000
    assert [a.dtype for a in (table.x, table.y, table.row, table.col)] == [np.int32] * 4
    first = slice(0, 1024)
    assert np.ptp(table.row[first]) == 31
    assert np.ptp(table.col[first]) == 31


@pytest.mark.parametrize("bits", [1, 2, 5, 6])
def test_the_hilbert_curve_visits_all_cells_step_by_step(bits: int) -> None:
    row, col = np.divmod(np.arange(4**bits), 2**bits)
    index = hilbert_index(col, row)
    order = np.argsort(index)
    assert (np.sort(index) == np.arange(4**bits)).all()
    steps = np.abs(np.diff(row[order])) + np.abs(np.diff(col[order]))
    assert (steps == 1).all()


def test_the_hilbert_index_of_one_cell_and_of_none() -> None:
    assert hilbert_index(np.array([0]), np.array([0])).tolist() == [0]
    assert hilbert_index(np.array([], int), np.array([], int)).shape == (0,)


@given(
    px=st.floats(1.5, 9.0),
    tile_px=st.integers(4, 20),
    stride=st.floats(0.3, 1.0),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_the_tissue_fraction_is_the_exact_area(
    px: float, tile_px: int, stride: float, seed: int
) -> None:
    info = info_of(61, 47)
    shape = (int(np.ceil(47 / px)), int(np.ceil(61 / px)))
    mask = Mask(np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint8), px)
    spec = GridSpec(tile_px, 0.5, max(1, round(tile_px * stride)), edge="pad")
    geometry, table = make_tiles(info, spec, mask)
    assert len(table) == geometry.n_cols * geometry.n_rows  # min_tissue 0 keeps all
    fine = 20  # the mask, painted 20 times finer than level 0
    at = (np.arange(61 * fine) + 0.5) / fine / px
    painted = mask.mask[at[: 47 * fine].astype(int)[:, None], at.astype(int)]
    for i in range(len(table)):
        y, x, side = table.y[i] * fine, table.x[i] * fine, tile_px * fine
        expected = painted[y : y + side, x : x + side].sum() / side**2
        assert table.tissue[i] == pytest.approx(expected, abs=0.03)


def test_no_mask_means_that_all_of_the_slide_is_tissue() -> None:
    spec = GridSpec(64, 0.5, 64, edge="pad")
    info = info_of(96, 64)
    geometry = grid_geometry(info, spec)
    assert tissue_fractions(info, geometry, None).tolist() == [[1.0, 0.5]]


def test_little_tissue_is_left_out() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :4] = 255
    mask[0, 4] = 1
    info, spec = info_of(512, 512), GridSpec(256, 0.5, 256)
    full = make_tiles(info, replace(spec, min_tissue=1.0), Mask(mask, 64.0))[1]
    assert (full.row.tolist(), full.col.tolist(), full.tissue.tolist()) == ([0], [0], [1.0])
    some = make_tiles(info, replace(spec, min_tissue=1 / 16), Mask(mask, 64.0))[1]
    assert sorted(some.col.tolist()) == [0, 1]


def test_a_slide_without_tissue_yields_no_tiles() -> None:
    spec = GridSpec(256, 0.5, 256, min_tissue=0.1)
    geometry, table = make_tiles(info_of(512, 512), spec, Mask(np.zeros((8, 8), np.uint8), 64.0))
    assert (geometry.n_rows, geometry.n_cols, len(table)) == (2, 2, 0)
    assert table.x.dtype == np.int32


def test_a_slide_smaller_than_a_tile() -> None:
    info = info_of(100, 100)
    assert len(make_tiles(info, GridSpec(256, 0.5, 256), None)[1]) == 0
    assert len(make_tiles(info, GridSpec(256, 0.5, 256, edge="pad"), None)[1]) == 1


def test_mpp_within_one_percent_works_and_finer_is_refused() -> None:
    info = info_of(1000, 1000, mpp=0.5026)
    assert grid_geometry(info, GridSpec(256, 0.5, 256)).tile_level0 == 255
    with pytest.raises(SlideError, match=r"0\.5026 µm/px, 0\.25 is asked"):
        grid_geometry(info, GridSpec(256, 0.25, 256))


@pytest.mark.parametrize(
    "spec",
    [
        GridSpec(0, 0.5, 0),
        GridSpec(256, 0.5, 257),
        GridSpec(256, 0.5, 0),
        GridSpec(256, float("nan"), 256),
        GridSpec(256, -0.5, 256),
        GridSpec(256, 0.5, 256, min_tissue=1.5),
    ],
)
def test_specs_that_make_no_sense(spec: GridSpec) -> None:
    with pytest.raises(InputError):
        grid_geometry(info_of(1000, 1000), spec)


def test_too_many_tiles_and_no_mpp(make_info: Callable[..., SlideInfo]) -> None:
    with pytest.raises(InputError, match="tiles are more than"):
        grid_geometry(info_of(200_000, 200_000), GridSpec(8, 0.5, 8))
    with pytest.raises(MissingMppError):
        grid_geometry(make_info(100, 100, mpp=None), GridSpec(8, 0.5, 8))
