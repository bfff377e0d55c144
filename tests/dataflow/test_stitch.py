"""Stitched arrays against a dense reference: every sample of every pixel, tile by tile, by the definition."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow.stitch import Stitched
from dataflow.stitch_spec import GAUSSIAN_SIGMA, Mode, StitchSpec
from store_schema import names
from store_schema.errors import InputError
from store_schema.specs import ArraySpec, GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import SlideView, create_store

GRID = "tiles"
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A slide, its tiles, what they say."""

    width: int
    height: int
    side: int
    x: npt.NDArray[np.int32]
    y: npt.NDArray[np.int32]
    values: Values  # (tile[, class][, y, x])
    dims: tuple[str, ...]

    def slide(self, block_tiles: int = 7, mpp: float | None = 0.25) -> SlideView:
        store = create_store(f"memory://{uuid.uuid4().hex}.zarr")
        slide = store.add_slide(
            SlideRecord("s", "/s.svs", "c0ffee", "none", self.width, self.height, mpp, "user")
        )
        n = len(self.x)
        place = np.arange(n, dtype=np.int32)
        table = TileTable(self.x, self.y, place, place, np.ones(n, np.float32))
        slide.create_grid(
            GridSpec(self.side, 0.25, self.side, label=GRID),
            GridGeometry(self.side, float(self.side), n, n),
            table,
            {},
            block_tiles=block_tiles,
        )
        spec = ArraySpec(self.dims, self.values.shape[1:], self.values.dtype.name)
        group = slide.create_tile_group(GRID, names.SCORES, "run", {"score": spec}, {})
        for block in range(group.n_blocks):
            group.write_block(block, {"score": self.values[group.block_slice(block)]})
        return slide

    def stitched(self, spec: StitchSpec, **slide: Any) -> Stitched:
        return Stitched.of(self.slide(**slide), GRID, names.SCORES, "run", None, spec)


MAP_DIMS = ((names.MAP_Y, names.MAP_X), (names.Y, names.X))  # the latter in stores of earlier days


def reference(case: Case, stitched: Stitched) -> npt.NDArray[np.float64]:
    """Return float64 (class, y, x), NaN where there is nothing, by the definition and by nothing else."""
    raster, mode = stitched.raster, stitched.spec.mode
    step = raster.px_level0 / raster.samples
    points_y = (np.arange(raster.n_rows * raster.samples) + 0.5) * step
    points_x = (np.arange(raster.n_cols * raster.samples) + 0.5) * step
    has_map = not {names.MAP_Y, names.Y}.isdisjoint(case.dims)
    by_class = names.CLASS in case.dims
    maps = case.values.astype(np.float64)
    maps = maps if has_map else maps[..., None, None]
    maps = maps if by_class else maps[:, None]
    labels = case.values.dtype.kind in "iu" and not by_class
    if mode == "vote" and not labels:
        known = ~np.isnan(maps)
        if by_class:
            best = np.argmax(np.where(known, maps, -np.inf), axis=1)
            votes = (np.arange(maps.shape[1])[:, None, None] == best[:, None]).astype(float)
            maps = np.where(known.any(axis=1, keepdims=True), votes, np.nan)
        else:
            maps = np.where(known, maps >= stitched.spec.vote_from, np.nan)
    n_classes, n_y, n_x = maps.shape[1:]
    said = np.empty((n_classes, len(points_y), len(points_x)), object)
    for index in np.ndindex(*said.shape):
        said[index] = []
    for tile in range(len(case.x)):
        down, across = points_y - case.y[tile], points_x - case.x[tile]
        for i in np.flatnonzero((down >= 0) & (points_y < case.y[tile] + case.side)):
            for j in np.flatnonzero((across >= 0) & (points_x < case.x[tile] + case.side)):
                v = min(math.floor(down[i] * n_y / case.side), n_y - 1)
                u = min(math.floor(across[j] * n_x / case.side), n_x - 1)
                off = (down[i] / case.side - 0.5) ** 2 + (across[j] / case.side - 0.5) ** 2
                weight = math.exp(-off / (2 * GAUSSIAN_SIGMA**2)) if mode == "gaussian" else 1.0
                for c in range(n_classes):
                    if not math.isnan(maps[tile, c, v, u]):
                        said[c, i, j].append((maps[tile, c, v, u], weight))
    keeps_labels = labels and mode in ("max", "vote")
    fine = np.array([_combined(s, mode, keeps_labels) for s in said.ravel()]).reshape(said.shape)
    out = np.full((n_classes, raster.n_rows, raster.n_cols), np.nan)
    for c, i, j in np.ndindex(*out.shape):
        k = raster.samples
        cell = fine[c, i * k : (i + 1) * k, j * k : (j + 1) * k]
        cell = cell[~np.isnan(cell)]
        if cell.size:
            out[c, i, j] = _commonest(cell.tolist()) if keeps_labels else cell.mean()
    return out


def _combined(said: list[tuple[float, float]], mode: Mode, keeps_labels: bool) -> float:
    if not said:
        return math.nan
    if mode == "max":
        return max(value for value, _ in said)
    if mode == "vote" and keeps_labels:
        return _commonest([value for value, _ in said])
    return sum(value * weight for value, weight in said) / sum(weight for _, weight in said)


def _commonest(values: list[float]) -> float:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    side = draw(st.integers(3, 40))
    width, height = draw(st.integers(1, 80)), draw(st.integers(1, 80))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(
        st.booleans()
    ):  # a lattice, its corners rounded, with holes; its last tiles may reach over the border
        stride = side / draw(st.sampled_from([1.0, 1.17, 1.5, 2.0, 2.9, 3.0]))
        corners = [
            np.unique(np.rint(np.arange(math.ceil(size / stride)) * stride))
            for size in (width, height)
        ]
        x, y = (axis.ravel() for axis in np.meshgrid(*corners))
        kept = generator.random(x.size) < draw(st.sampled_from([1.0, 0.6]))
        x, y = x[kept], y[kept]
    else:  # anywhere, some in one place
        n = draw(st.integers(0, 12))
        x, y = generator.integers(0, width, n), generator.integers(0, height, n)
    order = generator.permutation(len(x))
    classes = draw(st.sampled_from([(), (1,), (3,)]))
    of_map = draw(st.sampled_from([(), (1, 1), (2, 3), (5, 5)]))
    dims = (
        names.TILE,
        *([names.CLASS] if classes else []),
        *(draw(st.sampled_from(MAP_DIMS)) if of_map else ()),
    )
    shape = (len(x), *classes, *of_map)
    dtype = draw(st.sampled_from(["float32", "float16", "uint8", "int32"]))
    if dtype.startswith("f"):
        values = generator.random(shape).astype(dtype)
        values[generator.random(shape) < draw(st.sampled_from([0.0, 0.2]))] = np.nan
    else:
        values = generator.integers(0, 4, shape).astype(dtype)
    corners_x, corners_y = x[order].astype(np.int32), y[order].astype(np.int32)
    return Case(width, height, side, corners_x, corners_y, values, dims)


@given(
    case=cases(),
    mode=st.sampled_from(["mean", "max", "gaussian", "vote"]),
    px=st.one_of(st.none(), st.floats(2.0, 60.0), st.integers(2, 60)),
    window_px=st.integers(3, 40),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_equal_to_a_dense_reference(
    case: Case, mode: Mode, px: float | None, window_px: int
) -> None:
    if case.width * case.height / (px or 2) ** 2 > 1500:
        px = 4.0
    stitched = case.stitched(StitchSpec(mode, px_level0=px))
    expected = reference(case, stitched)

    found = stitched[:]
    if stitched.keeps_labels:
        assert found.dtype == case.values.dtype
        expected = np.nan_to_num(expected, nan=0.0)
    expected = expected if stitched.ndim == 3 else expected[0]
    np.testing.assert_allclose(found.astype(float), np.asarray(expected), rtol=1e-5, atol=1e-6)

    # whatever it is cut into, not a bit is different
    with mock.patch.object(Stitched, "_window_px", window_px):
        np.testing.assert_array_equal(replace(stitched)[:], found)
    fsspec.filesystem("memory").rm(stitched.source.store_url, recursive=True)


def lattice_case(
    n_rows: int, n_cols: int, values: Values, dims: tuple[str, ...] = ("tile",), side: int = 100
) -> Case:
    """Tiles that touch, row by row; the slide ends 30 px beyond them."""
    row, col = np.divmod(np.arange(n_rows * n_cols, dtype=np.int32), n_cols)
    width, height = n_cols * side + 30, n_rows * side + 30
    return Case(width, height, side, col * side, row * side, values, dims)


def test_scalars_of_touching_tiles_are_the_lattice_picture() -> None:
    values = np.arange(12, dtype=np.float32)
    stitched = lattice_case(3, 4, values).stitched(StitchSpec())
    assert stitched.raster.px_level0 == 100, "the distance of tiles"
    np.testing.assert_array_equal(stitched[:3, :4], values.reshape(3, 4))
    assert stitched.shape == (4, 5)
    assert np.isnan(stitched[3]).all()
    assert np.isnan(stitched[:, 4]).all()


def test_maps_of_touching_tiles_are_put_side_by_side() -> None:
    values = np.random.default_rng(0).random((6, 4, 4)).astype(np.float32)
    stitched = lattice_case(2, 3, values, ("tile", "map_y", "map_x")).stitched(
        StitchSpec("gaussian")
    )
    assert stitched.raster.px_level0 == 25, "a pixel of the maps"
    picture = values.reshape(2, 3, 4, 4).transpose(0, 2, 1, 3).reshape(8, 12)
    np.testing.assert_array_equal(stitched[:8, :12], picture)


def test_half_a_pixel_is_the_mean_of_four() -> None:
    values = np.random.default_rng(0).random((1, 4, 4)).astype(np.float32)
    stitched = lattice_case(1, 1, values, ("tile", "map_y", "map_x")).stitched(StitchSpec(mpp=12.5))
    assert (stitched.raster.px_level0, stitched.raster.samples) == (50.0, 2)
    expected = values[0].reshape(2, 2, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(stitched[:2, :2].astype(float), expected, rtol=1e-6)


def test_the_pixel_size_asked_for() -> None:
    case = lattice_case(2, 2, np.zeros(4, np.float32))
    assert case.stitched(StitchSpec(mpp=4.0)).raster.px_level0 == 16.0
    assert case.stitched(StitchSpec(px_level0=7.5)).shape == (31, 31)
    with pytest.raises(InputError, match="give --px instead of --mpp"):
        case.stitched(StitchSpec(mpp=4.0), mpp=None)
    with pytest.raises(InputError, match="say the same thing twice"):
        StitchSpec(mpp=4.0, px_level0=4.0)
    for px in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="is no pixel"):
            StitchSpec(px_level0=px)


def test_what_cannot_be_stitched() -> None:
    features = lattice_case(1, 2, np.zeros((2, 5), np.float32), ("tile", "feature"))
    with pytest.raises(InputError, match=r"has the dimensions \(tile, feature\)"):
        features.stitched(StitchSpec())
    with pytest.raises(InputError, match="leave --argmax away"):
        lattice_case(1, 2, np.zeros(2, np.float32)).stitched(StitchSpec(argmax=True))
    numbers = lattice_case(
        1, 1, np.arange(100, dtype=np.int32).reshape(1, 10, 10), ("tile", "map_y", "map_x")
    )
    overlapping = replace(
        numbers,
        x=np.zeros(2, np.int32),
        y=np.zeros(2, np.int32),
        values=numbers.values.repeat(2, 0),
    )
    with pytest.raises(InputError, match="--mode vote is for classes"):
        overlapping.stitched(StitchSpec("vote"))[:]


def test_lazy_is_cut_as_it_is_stored_and_may_be_sliced() -> None:
    generator = np.random.default_rng(0)
    case = lattice_case(1, 12, generator.random((12, 2)).astype(np.float32), ("tile", "class"))
    stitched = case.stitched(StitchSpec(px_level0=1.0))
    lazy = stitched.lazy()
    assert lazy.chunks == ((2,), (130,), (1024, 206))
    np.testing.assert_array_equal(lazy.x.values[:2], [0.5, 1.5])
    whole = stitched[:].astype(np.float64)
    for key in (
        np.s_[1, 50:90, 1000:1050],
        np.s_[:, 3, 1100::-50],
        np.s_[0, 5, ::100],
        np.s_[:, 7:7, :],
    ):
        np.testing.assert_array_equal(lazy[key].values, whole[key])
        np.testing.assert_array_equal(stitched[key], whole[key])
    mean = float(lazy.mean().compute())
    assert mean == pytest.approx(float(np.nanmean(whole)), rel=1e-5)


def test_bits_do_not_depend_on_windows() -> None:
    """Nine tiles over a point are summed in one order, wherever a window begins."""
    values = np.random.default_rng(0).random((400, 3, 3)).astype(np.float32)
    case = lattice_case(20, 20, values, ("tile", "map_y", "map_x"), side=10)
    stitched = replace(case, side=30).stitched(StitchSpec("gaussian", px_level0=3.0))
    assert stitched.source.tiles.most_layers == 9
    whole = stitched[:]
    for window_px in (5, 7, 16):
        with mock.patch.object(Stitched, "_window_px", window_px):
            np.testing.assert_array_equal(replace(stitched)[:], whole)


def test_only_the_blocks_that_are_needed_are_read() -> None:
    case = lattice_case(40, 40, np.ones(1600, np.float32))
    stitched = case.stitched(StitchSpec(px_level0=10.0), block_tiles=40)
    group = stitched.source.tiles.group
    with mock.patch.object(
        type(group), "read_array", autospec=True, side_effect=type(group).read_array
    ) as read:
        stitched[100:105, 0:400]
        stitched[101:104, 0:400]
    assert [call.args[2] for call in read.call_args_list] == [10], (
        "one row of tiles is one block, read once"
    )
