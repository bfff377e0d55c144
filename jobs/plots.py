"""Plots of trainings and classifiers, drawn on axes that are given: no pyplot, no global state."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from store_schema.objects import LocalObjects

INK: Final = "#1f2933"
_FAINT: Final = "#9dbbdc"
_TICKS: Final = 5  # a picture an epoch is drawn, and most of its time goes into ticks
COLORS: Final = (
    "#2563a8",
    "#d1495b",
    "#2e8b6f",
    "#e09f3e",
    "#6a4c93",
    "#5c677d",
    "#c86b98",
    "#3a86a8",
)
_STYLE: Final[dict[Any, Any]] = {
    "axes.edgecolor": "#9aa5b1",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "font.size": 9,
    "grid.color": "#e8ebef",
    "grid.linewidth": 0.8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": "#52606d",
    "xtick.labelsize": 8,
    "ytick.color": "#52606d",
    "ytick.labelsize": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Ranking:
    """Scores of one class against its truth.

    Attributes
    ----------
    label
        Of the curve.
    truth
        bool (n,).
    score
        float (n,), more is likelier.
    """

    label: str
    truth: npt.NDArray[np.bool_]
    score: npt.NDArray[np.floating]

    @property
    def has_both(self) -> bool:
        """Whether there is something to rank: curves of a single class say nothing."""
        return bool(self.truth.any() and not self.truth.all())

    def counts(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """int64 (threshold,), true and false positives from the highest score down; equal scores come together."""
        order = np.argsort(-self.score, kind="stable")
        last_of_tie = np.append(np.diff(self.score[order]) != 0, True)
        true = np.cumsum(self.truth[order])[last_of_tie]
        return true, np.flatnonzero(last_of_tie) + 1 - true

    def roc(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """float64 (point,), false and true positive rate from (0, 0) to (1, 1)."""
        true, false = (np.concatenate([[0], n]) for n in self.counts())
        return false / false[-1], true / true[-1]

    def precision_recall(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """float64 (threshold,), recall (rising) and precision."""
        true, false = self.counts()
        return true / true[-1], true / (true + false)


def new_figure(
    n_rows: int,
    n_cols: int,
    title: str | None = None,
    *,
    axes_inches: tuple[float, float] = (3.6, 3.0),
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, row by row.

    Parameters
    ----------
    n_rows, n_cols
        Of the axes.
    title
        Over all of them.
    axes_inches
        Width and height of one.
    """
    with rc_context(_STYLE):
        figure = Figure(
            figsize=(n_cols * axes_inches[0], n_rows * axes_inches[1] + (0.4 if title else 0)),
        )
        FigureCanvasAgg(figure)
        axes = [figure.add_subplot(n_rows, n_cols, i + 1) for i in range(n_rows * n_cols)]
    width, height = figure.get_size_inches()
    # margins in inches: matplotlib's own layout engines draw everything twice, and pictures come every epoch
    figure.subplots_adjust(
        left=0.75 / width, right=1 - 0.15 / width, bottom=0.5 / height,
        top=1 - (0.7 if title else 0.35) / height, wspace=0.32, hspace=0.42,
    )  # fmt: skip
    if title:
        figure.suptitle(
            title, x=0.15 / width, y=1 - 0.12 / height, ha="left", va="top", fontsize=11,
            fontweight="bold", color=INK,
        )  # fmt: skip
    return figure, axes


def save_png(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a picture, whole or not at all; its folder is made. StorageError says why it can't be."""
    LocalObjects(path.parent).put(path.name, png_bytes(figure, dpi))


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """Return a picture as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def png_data_url(figure: Figure, dpi: int = 110) -> str:
    """Return a picture as ``data:`` URL, to embed in a page."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(figure, dpi)).decode()


@rc_context(_STYLE)
def draw_lines(
    axes: Axes,
    epochs: Sequence[int],
    lines: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    best_epoch: int | None = None,
    marks: Mapping[str, int] | None = None,
    dashed: Collection[str] = (),
    ylim: tuple[float, float] | None = None,
) -> None:
    """Draw values by epoch; what is None or not finite leaves a gap.

    Parameters
    ----------
    axes
        Where.
    epochs
        Of the values, as they are shown: from 1.
    lines
        Label → one value an epoch.
    title
        Of the axes.
    best_epoch
        Marked with a line, and in the legend.
    marks
        Label → epoch at which its line gets a dot.
    dashed
        Labels of lines that may lie just on another.
    ylim
        Range of the values; None shows all.
    """
    for color, (label, values) in zip(_cycle(), lines.items(), strict=False):
        y = np.array([np.nan if v is None else v for v in values], dtype=float)
        marker = "o" if len(epochs) < 30 else None
        style = "--" if label in dashed else "-"
        axes.plot(epochs, y, label=label, color=color, lw=1.6, ls=style, marker=marker, ms=2.5)
        if marks is not None and label in marks:
            at = marks[label]
            axes.plot(at, y[epochs.index(at)], "o", color=color, ms=6, mec="white", zorder=3)
    if best_epoch is not None:
        label = f"chosen: epoch {best_epoch}"
        axes.axvline(best_epoch, color="#7b8794", lw=1, ls=":", zorder=0, label=label)
    if ylim is not None:
        axes.set_ylim(*ylim)
    axes.xaxis.set_major_locator(MaxNLocator(_TICKS, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(_TICKS))
    axes.set(title=title, xlabel="epoch")
    if 0 < len(lines) <= len(COLORS):
        axes.legend(loc="best")
    elif not lines:
        _say_nothing(axes, "not recorded")


@rc_context(_STYLE)
def draw_roc(
    axes: Axes,
    rankings: Iterable[Ranking],
    *,
    title: str = "ROC",
    operating: tuple[float, float] | None = None,
    faint: Iterable[Ranking] = (),
) -> None:
    """Draw ROC curves with their areas.

    Parameters
    ----------
    axes
        Where.
    rankings
        One a curve; those with a single class are left out.
    title
        Of the axes.
    operating
        False and true positive rate at the threshold, marked.
    faint
        Curves behind the others, e.g. of folds.
    """
    axes.plot([0, 1], [0, 1], color="#9aa5b1", lw=1, ls=":", zorder=0)
    for ranking in faint:
        if ranking.has_both:
            axes.plot(*ranking.roc(), color=_FAINT, lw=0.9, zorder=1)
    drawn = False
    for color, ranking in zip(_cycle(), rankings, strict=False):
        if not ranking.has_both:
            continue
        fpr, tpr = ranking.roc()
        area = np.trapezoid(tpr, fpr)
        axes.plot(fpr, tpr, color=color, lw=1.6, label=f"{ranking.label}, AUC {area:.3f}")
        drawn = True
    if operating is not None:
        axes.plot(*operating, "o", ms=6, mfc="white", mec=INK, mew=1.4, label="at the threshold")
    _square(axes, title, "false positive rate", "true positive rate", drawn, "lower right")


@rc_context(_STYLE)
def draw_pr(
    axes: Axes, rankings: Iterable[Ranking], *, title: str = "Precision and recall"
) -> None:
    """Draw precision by recall, with the average precision.

    Parameters
    ----------
    axes
        Where.
    rankings
        One a curve; those with a single class are left out.
    title
        Of the axes.
    """
    drawn = False
    for color, ranking in zip(_cycle(), rankings, strict=False):
        if not ranking.has_both:
            continue
        recall, precision = ranking.precision_recall()
        area = (np.diff(recall, prepend=0.0) * precision).sum()  # average precision
        axes.plot(
            np.append(0.0, recall), np.append(precision[0], precision), color=color, lw=1.6,
            drawstyle="steps-pre", label=f"{ranking.label}, AP {area:.3f}",
        )  # fmt: skip
        axes.axhline(ranking.truth.mean(), color=color, lw=0.8, ls=":", zorder=0)
        drawn = True
    _square(axes, title, "recall", "precision", drawn, "lower left")


@rc_context(_STYLE)
def draw_froc(
    axes: Axes,
    false_alarms: Sequence[float],
    sensitivity: Sequence[float],
    rates: Mapping[float, float],
    *,
    label: str,
    title: str = "FROC",
    chance: Mapping[float, float] | None = None,
) -> None:
    """Draw a free-response ROC curve.

    Parameters
    ----------
    axes
        Where.
    false_alarms, sensitivity
        Points of the curve: false alarms a slide, rising, and the share of lesions that is found.
    rates
        False alarms a slide at which it is read → what is read; marked.
    label, title
        Of the curve, and of the axes.
    chance
        As ``rates``, of scores that say nothing.
    """
    end = max(rates)
    axes.plot(false_alarms, sensitivity, color=COLORS[0], lw=1.6, label=label)
    last = false_alarms[-1]
    if last < end:  # CAMELYON16 reads rates that aren't reached at the end of the curve
        axes.plot(
            [last, end], [sensitivity[-1]] * 2, color=COLORS[0], lw=1.2, ls="--",
            label=f"ends at {last:.2g} false alarms",
        )  # fmt: skip
    for reached in (True, False):
        dots = {rate: value for rate, value in rates.items() if (rate <= last) == reached}
        face = COLORS[0] if reached else "white"
        axes.plot(list(dots), list(dots.values()), "o", color=COLORS[0], mfc=face, ms=4)
    if chance is not None:
        axes.plot(
            list(chance), list(chance.values()), color=COLORS[5], lw=1, ls=":", marker=".", ms=4,
            label="scores shuffled (chance)",
        )  # fmt: skip
    axes.set(
        title=title, xlabel="false alarms a slide", ylabel="sensitivity",
        xlim=(-0.02 * end, 1.04 * end), ylim=(-0.02, 1.04),
    )  # fmt: skip
    axes.legend(loc="lower right")


@rc_context(_STYLE)
def draw_confusion(
    axes: Axes,
    matrix: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    title: str = "Confusion matrix",
    columns: Sequence[str] | None = None,
) -> None:
    """Draw counts, coloured by their share of the row.

    Parameters
    ----------
    axes
        Where.
    matrix
        int (class, class): actual by predicted; or (class, column).
    class_names
        Of the rows.
    title
        Of the axes.
    columns
        Of the columns, where they aren't the classes.
    """
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    size = 12 if len(class_names) <= 3 else 8
    for (row, col), count in np.ndenumerate(counts):
        color = "white" if share[row, col] > 0.55 else INK
        axes.text(col, row, f"{count:,}", ha="center", va="center", color=color, fontsize=size,
                  fontweight="bold")  # fmt: skip
    across, down = (
        [name if len(name) <= 14 else f"{name[:13]}…" for name in names]
        for names in (class_names if columns is None else columns, class_names)
    )
    axes.set_xticks(range(len(across)), across, rotation=0 if len(across) <= 4 else 45)
    # upright: long names would reach into the plot on the left
    axes.set_yticks(range(len(down)), down, rotation=90 if len(down) <= 3 else 0, va="center")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.set(title=title, ylabel="actual", xlabel="predicted" if columns is None else "")


def _square(
    axes: Axes,
    title: str,
    xlabel: str,
    ylabel: str,
    drawn: bool,
    where: Literal["lower left", "lower right"],
) -> None:
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    axes.locator_params(nbins=_TICKS)
    if drawn:
        axes.legend(loc=where)
    else:
        _say_nothing(axes, "one class only: no curve")


def _say_nothing(axes: Axes, why: str) -> None:
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="#7b8794")


def _cycle() -> Iterable[str]:
    while True:
        yield from COLORS
