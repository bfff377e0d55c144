"""The stain basis of a slide whose grid is in a store: the same for the stream and for the tiles of a training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataflow.discover import SlideSource
from dataflow.slide import SlideReader, open_slide
from dataflow.stain import StainBasis, StainSpec, fit_slide
from dataflow.stored_plan import stored_plan
from dataflow.tile_reader import TileReader
from store_schema.slide_view import SlideView

# pooled for a slide's stain basis: 4 M pixels at 256 px, far beyond what the fit needs
_SAMPLE_TILES = 64


def fit_stored_slide(
    slide: SlideView, grid_name: str, stain: StainSpec, source: SlideSource
) -> StainBasis:
    """Fit one stain basis to a seeded sample of a slide's tiles.

    Parameters
    ----------
    slide, grid_name
        The slide in its store, and one of its grids.
    stain
        What is asked of normalization.
    source
        Where the slide's file is.

    Raises
    ------
    SlideError
        The file can't be read.
    """
    reader = open_slide(source.path, source.mpp)
    try:
        tiles = _sample_tiles(reader, slide, grid_name)
    finally:
        reader.close()
    return fit_slide(tiles, stain)


def _sample_tiles(reader: SlideReader, slide: SlideView, grid_name: str) -> npt.NDArray[np.uint8]:
    table = slide.tile_table(grid_name)
    # seeded by the content, so that every run, and every resume, fits the same basis
    generator = np.random.default_rng(int(slide.record.fingerprint, 16))
    count = min(_SAMPLE_TILES, len(table))
    chosen = np.sort(generator.choice(len(table), size=count, replace=False))
    plan = stored_plan(reader.info, slide, grid_name)
    tiles = np.empty((count, plan.tile_px, plan.tile_px, 3), dtype=np.uint8)
    TileReader(reader, plan, table.x[chosen], table.y[chosen]).read(0, count, tiles)
    return tiles
