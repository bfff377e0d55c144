"""Pictures of one fold: a panel every so many epochs, and single plots at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from jobs.plots import Ranking, draw_confusion, draw_lines, draw_pr, draw_roc, new_figure, save_png
from jobs.training.history import column

if TYPE_CHECKING:
    from models.slide_model import TaskKind

_METRICS = {
    "AUC": "val_auc",
    "F1": "val_f1",
    "accuracy": "val_accuracy",
    "balanced accuracy": "val_balanced_accuracy",
}


def rankings(
    p: npt.NDArray[np.floating],
    targets: npt.NDArray[Any],
    class_names: Sequence[str],
    task: TaskKind,
) -> list[Ranking]:
    """Return what ROC curves are drawn of: the positive class of two, else each class against the rest.

    Parameters
    ----------
    p
        float (bag, class).
    targets
        int64 (bag,), or (bag, class) of a multi-label task.
    class_names, task
        Of the model.
    """
    truth = targets > 0 if task == "multilabel" else np.eye(len(class_names), dtype=bool)[targets]
    first = 1 if task == "multiclass" and len(class_names) == 2 else 0
    return [
        Ranking(f"class {name}", truth[:, c], p[:, c])
        for c, name in enumerate(class_names)
        if c >= first
    ]


def draw_curves(
    axes: Sequence[Axes], history: Sequence[Mapping[str, Any]], best: int, leaky: bool
) -> None:
    """Draw loss, metrics and attention entropy on three axes.

    Parameters
    ----------
    axes
        Three.
    history
        As of ``history.jsonl``.
    best
        The epoch (from 0) that is the best so far.
    leaky
        Whether what is called validation is the test fold.
    """
    epochs, best = [epoch["epoch"] + 1 for epoch in history], best + 1  # people count from 1
    judged = "test" if leaky else "validation"
    losses = {"training": column(history, "train_loss"), judged: column(history, "val_loss")}
    draw_lines(axes[0], epochs, losses, title="Loss", best_epoch=best)
    metrics = {label: column(history, name) for label, name in _METRICS.items()}
    draw_lines(
        axes[1], epochs, {k: v for k, v in metrics.items() if any(x is not None for x in v)},
        title=f"Metrics ({judged}{', LEAKY' if leaky else ', argmax'})", ylim=(-0.02, 1.04), best_epoch=best,
        dashed=("balanced accuracy",),
    )  # fmt: skip
    entropy = {
        "training": column(history, "train_attention_entropy"),
        judged: column(history, "val_attention_entropy"),
    }
    draw_lines(
        axes[2], epochs, {k: v for k, v in entropy.items() if any(x is not None for x in v)},
        title="Attention entropy (1: uniform)", ylim=(-0.02, 1.04), best_epoch=best,
    )  # fmt: skip


def draw_confusions(
    axes: Axes, metrics: Mapping[str, Any], class_names: Sequence[str], of: str = ""
) -> None:
    """Draw the confusion matrix; of a multi-label task, right and wrong per label.

    Parameters
    ----------
    axes
        Where.
    metrics, class_names
        Of what is judged.
    of
        Put behind the title.
    """
    matrix = np.asarray(metrics["confusion_matrix"])
    if matrix.ndim == 2:
        draw_confusion(axes, matrix, class_names, title=f"Confusion matrix{of}")
        return
    # (label, truth, said) → label by (truly not, falsely said, missed, found)
    draw_confusion(
        axes, matrix.reshape(len(class_names), 4), class_names, title=f"Labels right and wrong{of}",
        columns=("not", "false", "missed", "found"),
    )  # fmt: skip


def save_epoch(
    path: Path,
    title: str,
    history: Sequence[Mapping[str, Any]],
    best: int,
    judged: tuple[npt.NDArray[np.floating], npt.NDArray[Any]],
    metrics: Mapping[str, Any],
    class_names: Sequence[str],
    task: TaskKind,
    *,
    leaky: bool,
) -> None:
    """Save the panel of an epoch: curves so far, and what the model says of the validation bags.

    Parameters
    ----------
    path
        Of the PNG.
    title
        Over it.
    history, best, leaky
        As of :func:`draw_curves`.
    judged
        Probabilities (bag, class) and targets of the validation bags.
    metrics
        Of the same.
    class_names, task
        Of the model.
    """
    figure, axes = new_figure(2, 3, title)
    draw_curves(axes[:3], history, best, leaky)
    of_class = rankings(*judged, class_names, task)
    of = " (test, LEAKY)" if leaky else " (validation)"
    draw_roc(axes[3], of_class, title=f"ROC{of}")
    draw_pr(axes[4], of_class, title=f"Precision and recall{of}")
    draw_confusions(axes[5], metrics, class_names, of)
    save_png(figure, path, dpi=90)


def save_final(
    directory: Path,
    title: str,
    history: Sequence[Mapping[str, Any]],
    best: int,
    parts: Mapping[str, tuple[npt.NDArray[np.floating], npt.NDArray[Any], Mapping[str, Any]]],
    class_names: Sequence[str],
    task: TaskKind,
    *,
    leaky: bool,
) -> None:
    """Save the curves, and ROC, precision-recall and confusion matrix of each part.

    Parameters
    ----------
    directory
        Of the PNGs.
    title, history, best, class_names, task, leaky
        As of :func:`save_epoch`.
    parts
        ``val`` and ``test`` → probabilities, targets, metrics.
    """
    figure, axes = new_figure(1, 3, title)
    draw_curves(axes, history, best, leaky)
    save_png(figure, directory / "curves.png")
    for part, (p, targets, metrics) in parts.items():
        figure, axes = new_figure(1, 3, f"{title} · {part}")
        of_class = rankings(p, targets, class_names, task)
        draw_roc(axes[0], of_class, operating=_operating(metrics))
        draw_pr(axes[1], of_class)
        draw_confusions(axes[2], metrics, class_names)
        save_png(figure, directory / f"{part}.png")


def _operating(metrics: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return false and true positive rate at the threshold of a binary task."""
    if metrics["threshold"] is None or np.ndim(metrics["confusion_matrix"]) != 2:
        return None
    if metrics["sensitivity"] is None or metrics["specificity"] is None:
        return None
    return 1 - metrics["specificity"], metrics["sensitivity"]
