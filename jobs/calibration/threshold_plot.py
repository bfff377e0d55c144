"""How the metrics go with the threshold: whether the chosen one lies on a plateau or on a needle."""

from __future__ import annotations

from pathlib import Path

from jobs.calibration.calibration import Calibration
from jobs.plots import COLORS, INK, new_figure, save_png
from models.overlap import METRICS, Sweep

_TITLES = {"iou": "IoU", "f1": "F1", "youden": "Youden's J"}


def save_threshold_plot(path: Path, calibration: Calibration, counts: Sweep) -> None:
    """Draw IoU, F1 and Youden's J over the thresholds that were tried.

    Parameters
    ----------
    path
        The PNG.
    calibration
        Fitted: its threshold is marked.
    counts
        At every threshold.
    """
    assert calibration.threshold is not None
    figure, (axes,) = new_figure(1, 1, axes_inches=(5.2, 3.4))
    for color, (metric, formula) in zip(COLORS, METRICS.items(), strict=False):
        chosen = metric == calibration.metric
        label = _TITLES[metric] + " (chosen by)" * chosen
        axes.plot(
            counts.thresholds, formula(counts), color=color, lw=2.2 if chosen else 1.2, label=label
        )
    axes.axvline(calibration.threshold, color=INK, lw=1, ls=":")
    axes.annotate(
        f"z > {calibration.threshold:.2f}", (calibration.threshold, 1), xycoords=("data", "axes fraction"),
        xytext=(4, -9), textcoords="offset points", fontsize=8, color=INK,
    )  # fmt: skip
    axes.set(xlabel=f"threshold on z-scores ({calibration.zscore})")
    axes.set_title(
        f"pooled over {calibration.chosen_on}", loc="left", fontsize=10, fontweight="bold"
    )
    axes.legend(loc="best", fontsize=8, frameon=False)
    save_png(figure, path)
