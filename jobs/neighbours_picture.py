"""The picture of a tile and its nearest neighbours in feature space, with where they lie on the slide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from store_schema.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.gridspec import GridSpecBase

_QUERY: Final = "#c8102e"
_NEIGHBOUR: Final = "#0b4fb3"
_INK: Final = "#1e1e1e"
_GREY: Final = "#6b6b6b"
_COLUMNS: Final = 3
_DPI: Final = 150


@dataclass(frozen=True)
class NeighboursPicture:
    """What is shown. The first tile is the query, the others follow in falling order of likeness.

    Attributes
    ----------
    slide_id, features
        For the titles: the slide, and the name of the features.
    thumbnail
        uint8 (y, x, 3), the whole slide from its level-0 origin.
    px_level0
        Side of a pixel of the thumbnail [px, level 0].
    pixels
        uint8 (n, y, x, 3), the tiles.
    corners_level0
        (n, 2), x and y of the tiles' top-left corners [px, level 0].
    tile_level0
        Side of the square that a tile covers [px, level 0].
    tile_um
        The same [µm].
    cosine
        (n - 1,), of the features of each neighbour with those of the query.
    """

    slide_id: str
    features: str
    thumbnail: npt.NDArray[np.uint8]
    px_level0: float
    pixels: npt.NDArray[np.uint8]
    corners_level0: npt.NDArray[np.int32]
    tile_level0: int
    tile_um: float
    cosine: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Draw the picture and write it as PNG.

        Raises
        ------
        InputError
            The file can't be written.
        """
        figure = self._draw()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=_DPI, facecolor="white")
        except OSError as error:
            raise InputError(f"the picture {path} can't be written: {error}") from error

    def _draw(self) -> Figure:
        rows = -(-len(self.pixels) // _COLUMNS)
        figure = Figure(figsize=(13.2, 7.2))
        FigureCanvasAgg(figure)
        halves = figure.add_gridspec(
            1, 2, width_ratios=(1.22, 1.0), left=0.03, right=0.98, top=0.83, bottom=0.03, wspace=0.06
        )  # fmt: skip
        figure.text(
            0.03, 0.935, "A tile and its nearest neighbours in feature space",
            fontsize=17, weight="bold", color=_INK,
        )  # fmt: skip
        figure.text(
            0.03, 0.89,
            f"slide {self.slide_id} · {self.features} features, cosine similarity · "
            f"tiles of {self.tile_um:.0f} µm, shown as scanned",
            fontsize=11, color=_GREY,
        )  # fmt: skip
        self._map(figure.add_subplot(halves[0, 0]))
        self._tiles(figure, halves[0, 1].subgridspec(rows, _COLUMNS, wspace=0.08, hspace=0.22))
        return figure

    def _map(self, axes: Axes) -> None:
        height, width = self.thumbnail.shape[:2]
        axes.imshow(self.thumbnail, extent=(0, width * self.px_level0, height * self.px_level0, 0))
        axes.set_anchor("NW")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("#cccccc")
        halo = [withStroke(linewidth=3, foreground="white")]
        side = self.tile_level0
        # the query is drawn last, and so on top
        for i, (x, y) in reversed(list(enumerate(self.corners_level0))):
            colour = _QUERY if i == 0 else _NEIGHBOUR
            box = Rectangle(
                (x, y), side, side, fill=False, edgecolor=colour, linewidth=2.6 if i == 0 else 1.8
            )
            box.set_path_effects([withStroke(linewidth=4.4, foreground="white")])
            axes.add_patch(box)
            axes.text(
                x + side / 2, y + side / 2, "Q" if i == 0 else str(i),
                ha="center", va="center", fontsize=11, weight="bold", color=colour,
                path_effects=halo, clip_on=True,
            )  # fmt: skip

    def _tiles(self, figure: Figure, grid: GridSpecBase) -> None:
        for i, tile in enumerate(self.pixels):
            axes = figure.add_subplot(grid[i // _COLUMNS, i % _COLUMNS])
            axes.imshow(tile)
            axes.set_xticks([])
            axes.set_yticks([])
            colour = _QUERY if i == 0 else _NEIGHBOUR
            for spine in axes.spines.values():
                spine.set_color(colour)
                spine.set_linewidth(3.5 if i == 0 else 1.5)
            title = "Q   query" if i == 0 else f"{i}   {self.cosine[i - 1]:.3f}"
            axes.set_title(title, fontsize=11, color=colour, pad=5, weight="bold")
