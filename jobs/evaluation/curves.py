"""The curves of a localization: ROC and precision over recall of tiles, FROC of lesions."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from jobs.counted import counted
from jobs.evaluation.localization import Localization
from jobs.evaluation.tile_level import SlideTiles
from jobs.plots import Ranking, draw_froc, draw_pr, draw_roc, new_figure


def curves_figure(found: Localization) -> Figure:
    """Draw the curves of all judged tiles together, those of single slides behind them."""
    each = [_ranking(slide) for slide in found.tiles]
    pooled = Ranking(
        "all tiles",
        np.concatenate([one.truth for one in each]),
        np.concatenate([one.score for one in each]),
    )
    figure, axes = new_figure(1, 2 if found.froc is None else 3)
    draw_roc(axes[0], [pooled], title="ROC of tiles (thin: slides)", faint=each)
    draw_pr(axes[1], [pooled], title="Precision and recall of tiles")
    if found.froc is not None:
        curve = found.froc
        draw_froc(
            axes[2],
            curve.false_alarms,
            curve.sensitivity,
            {float(rate): value for rate, value in curve.at_rates.items()},
            label=f"{counted(curve.n_lesions, 'lesion')}, mean {curve.score:.3f}",
            title="FROC of lesions",
            chance=None
            if curve.chance is None
            else {float(rate): value for rate, value in curve.chance.at_rates.items()},
        )
    return figure


def _ranking(slide: SlideTiles) -> Ranking:
    known = np.isfinite(slide.score)
    return Ranking(slide.slide_id, slide.truth[known], slide.score[known])
