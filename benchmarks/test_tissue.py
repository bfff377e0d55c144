"""Finding tissue and laying tiles."""

from __future__ import annotations

import numpy as np

from benchmarks.conftest import Timed
from benchmarks.flow_run import grid_spec
from benchmarks.stages import TiledSlide
from dataflow.tiling import make_tiles
from dataflow.tissue import TissueSpec, tissue_mask


def test_tissue(timed: Timed, slide: TiledSlide) -> None:
    n_tiles = len(slide.table)
    mask = timed(lambda: tissue_mask(slide.reader, TissueSpec()), n_tiles)
    assert mask.mask.shape == mask.thumbnail.shape[:2]
    assert 0 < mask.mask.mean() <= 1


def test_tiling(timed: Timed, slide: TiledSlide) -> None:
    mask = tissue_mask(slide.reader, TissueSpec())
    geometry, table = timed(
        lambda: make_tiles(slide.reader.info, grid_spec(), mask), len(slide.table)
    )
    assert geometry == slide.geometry
    np.testing.assert_array_equal(table.x, slide.table.x)  # no least fraction: all tiles are kept
