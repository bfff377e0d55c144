"""Reading: tiles on the slide's lattice, off it, coarser; beside OpenSlide, which must say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest

from benchmarks.conftest import Timed
from benchmarks.slide import MPP, TILE_PX
from benchmarks.stages import TiledSlide
from store_schema.specs import GridSpec

_BATCH = 32


def read_all(slide: TiledSlide) -> int:
    """Read every block of a slide, batch by batch; return the number of its tiles."""
    read = slide.block_reader(_BATCH)
    return sum(read(block) for block in range(slide.n_blocks))


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("on the lattice", GridSpec(TILE_PX, MPP, TILE_PX)),
        ("off the lattice", GridSpec(224, MPP, 224)),
        ("half overlap", GridSpec(TILE_PX, MPP, TILE_PX // 2)),
        ("level 1", GridSpec(TILE_PX, 4 * MPP, TILE_PX)),
        ("resampled", GridSpec(TILE_PX, 1.5 * MPP, TILE_PX)),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_read(timed: Timed, slide_path: Path, name: str, spec: GridSpec) -> None:
    slide = TiledSlide.of(slide_path, spec)
    n_tiles = len(slide.table)
    assert timed(lambda: read_all(slide), n_tiles, n_tiles * spec.tile_px**2 * 3) == n_tiles
    if name in {"resampled"}:
        return  # OpenSlide has nothing to hold it against
    some = np.random.default_rng(0).permutation(n_tiles)[:8]
    level = 1 if name == "level 1" else 0
    with openslide.OpenSlide(slide_path) as plain:
        for i in some.tolist():
            corner = int(slide.table.x[i]), int(slide.table.y[i])
            wanted = plain.read_region(corner, level, (spec.tile_px, spec.tile_px))
            found = slide.read(i, i + 1)[0]
            np.testing.assert_array_equal(found, np.asarray(wanted)[..., :3])


def test_read_by_openslide(timed: Timed, slide: TiledSlide, slide_path: Path) -> None:
    plain = openslide.OpenSlide(slide_path)

    def read() -> int:
        for x, y in zip(slide.table.x.tolist(), slide.table.y.tolist(), strict=True):
            np.asarray(plain.read_region((x, y), 0, (TILE_PX, TILE_PX)))[..., :3]
        return len(slide.table)

    assert timed(read, len(slide.table)) == len(slide.table)
    plain.close()
