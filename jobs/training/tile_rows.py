"""Pictures of tiles in rows: one column a tile, one row a way of looking at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.plots import new_figure, save_png

Tiles = npt.NDArray[np.uint8]

_GAP_PX: Final = 4


def save_tile_rows(
    path: Path, title: str, rows: Mapping[str, Tiles], columns: Sequence[str] = ()
) -> None:
    """Save a picture.

    Parameters
    ----------
    path
        Of the PNG.
    title
        Over it.
    rows
        Label → uint8 (n, y, x, rgb), all of one shape.
    columns
        Labels of the tiles, below them; empty for none.
    """
    n, side_px = next(iter(rows.values())).shape[:2]
    across = 1.15 * max(n, 4)  # [inches]; what is added is what new_figure keeps for labels
    height = len(rows) * across / n + 0.8
    figure, axes = new_figure(1, 1, title, axes_inches=(across + 0.9, height))
    step = side_px + _GAP_PX
    canvas = np.full((len(rows) * step - _GAP_PX, n * step - _GAP_PX, 3), 255, np.uint8)
    for row, tiles in enumerate(rows.values()):
        for col, tile in enumerate(tiles):
            canvas[row * step : row * step + side_px, col * step : col * step + side_px] = tile
    axes[0].imshow(canvas)
    axes[0].grid(False)
    places = [col * step + side_px / 2 for col in range(len(columns))]
    axes[0].set_xticks(places, columns)
    places = [row * step + side_px / 2 for row in range(len(rows))]
    axes[0].set_yticks(places, list(rows), rotation=90, va="center")
    axes[0].tick_params(length=0)
    for spine in axes[0].spines.values():
        spine.set_visible(False)
    save_png(figure, path)


def coloured(values: npt.NDArray[np.floating], most: float) -> Tiles:
    """Return numbers from 0 to ``most`` in the colours of heatmaps: float (n, y, x) → uint8 (n, y, x, rgb)."""
    from matplotlib import colormaps

    shown = colormaps["viridis"](np.clip(values / most, 0, 1), bytes=True)
    rgb: Tiles = np.asarray(shown)[..., :3]
    return rgb
