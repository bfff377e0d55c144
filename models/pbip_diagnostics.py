"""How a PBIP network does on validation tiles, pixel by pixel where masks are, and what its training warns of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from models.confusion import METRICS, Confusion
from models.metrics import roc_auc
from models.training_warnings import LASTING_EPOCHS, RISEN_LOSS, START_EPOCHS

History: TypeAlias = Sequence[Mapping[str, float]]

# With as many batches of one class, a batch's gradient says "more of this class" more often than what tells classes.
ONE_CLASS_SHARE: Final = 0.5


class PixelOverlaps:
    """Counts pixels of each class over all tiles.

    Parameters
    ----------
    class_names
        In the order of the maps.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = class_names
        n = len(class_names)
        self._counts = Confusion(np.zeros((n, n + 1), np.int64))

    def add(self, predicted: npt.NDArray[np.integer], truth: npt.NDArray[np.uint8]) -> None:
        """Take in classes by index, of one shape; where the truth isn't known nothing counts."""
        self._counts += Confusion.of(truth, predicted.astype(np.uint8), len(self._names))

    def values(self) -> dict[str, float]:
        """Return ``val_iou``, ``val_dice``, ``val_precision``, ``val_recall``, means over the classes that are there.

        And ``val_iou_<class>`` of these. What is undefined, as the precision of a class that nothing was taken for,
        is 0; where no pixel is known there is nothing.
        """
        found = self._counts
        means = {f"val_{metric}": found.macro(metric) for metric in METRICS}
        scores = {name: value for name, value in means.items() if value is not None}
        of_classes = {self._names[k]: found.overlaps[k].iou or 0.0 for k in found.present}
        return scores | {f"val_iou_{name}": iou for name, iou in of_classes.items()}


def tile_scores(
    probability: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int8],
    class_names: Sequence[str],
) -> dict[str, float]:
    """Return ``val_auc``, and how many tiles have and were given each class.

    Parameters
    ----------
    probability
        float (tile, class).
    labels
        int8 (tile, class).
    class_names
        Of the classes.

    Returns
    -------
    dict
        ``val_auc`` is the mean over the classes that some tiles hold and others don't, missing where none is such;
        ``val_actual_<class>`` and ``val_predicted_<class>`` count tiles, each predicted as its most probable class.
    """
    truth = labels > 0
    both = [k for k in range(len(class_names)) if truth[:, k].any() and not truth[:, k].all()]
    scores = {}
    if both:
        scores["val_auc"] = float(np.mean([roc_auc(probability[:, k], truth[:, k]) for k in both]))
    said = probability.argmax(1)
    for k, name in enumerate(class_names):
        scores[f"val_actual_{name}"] = float(truth[:, k].sum())
        scores[f"val_predicted_{name}"] = float((said == k).sum())
    return scores


def constant_classes(
    labels: npt.NDArray[np.int8], class_names: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the classes that all tiles hold, or none, each with ``every`` or ``no``."""
    found = []
    for name, column in zip(class_names, labels.T, strict=True):
        if column.all():
            found.append((name, "every"))
        elif not column.any():
            found.append((name, "no"))
    return found


def source_warnings(
    split: str, labels: npt.NDArray[np.int8], class_names: Sequence[str]
) -> list[str]:
    """Warn of classes that all tiles of a split hold, or none."""
    told = ", ".join(
        f"{how} tile holds {name}" for name, how in constant_classes(labels, class_names)
    )
    if not told:
        return []
    return [
        f"a class of the {split} split can't be told: {told}; give tiles with and without it, or look at the labels"
    ]


def round_warnings(history: History, class_names: Sequence[str]) -> list[str]:
    """Warn of batches of one class, of a collapse to one class, of maps that match nothing, and of overfitting.

    Parameters
    ----------
    history
        Values of every round, the latest last, as ``PbipTraining`` gives them.
    class_names
        All of them.
    """
    return [
        *_one_class_batches(history[-1]),
        *_collapse(history, class_names),
        *_nothing_selected(history),
        *_overfitting(history),
    ]


def _one_class_batches(now: Mapping[str, float]) -> list[str]:
    share = now["one_class_batches"]
    if share <= ONE_CLASS_SHARE:
        return []
    return [
        f"batches of one class: in {share:.0%} of the last round's batches all tiles had the same labels; use larger "
        "batches, or slides of the classes in more equal numbers"
    ]


def _collapse(history: History, class_names: Sequence[str]) -> list[str]:
    late = history[-START_EPOCHS:]
    actual = [name for name in class_names if late[-1][f"val_actual_{name}"]]
    said = {name for values in late for name in class_names if values[f"val_predicted_{name}"]}
    if len(late) < START_EPOCHS or len(actual) < 2 or len(said) > 1:
        return []
    counts = ", ".join(f"{late[-1][f'val_actual_{name}']:.0f} {name}" for name in actual)
    return [
        f"collapse to one class: every validation tile was taken for {said.pop()} in the last {START_EPOCHS} rounds, "
        f"and there are {counts}; lower the learning rate, or look at labels and prototypes"
    ]


def _nothing_selected(history: History) -> list[str]:
    late = [values.get("train_matched", 1.0) for values in history[-LASTING_EPOCHS:]]
    if len(late) < LASTING_EPOCHS or max(late) > 0:
        return []
    return [
        f"nothing is matched: in the last {LASTING_EPOCHS} rounds no map of a class that a tile holds was above 0, so "
        "the contrastive loss had no effect; train on, or raise the learning rate"
    ]


def _overfitting(history: History) -> list[str]:
    # the whole training loss holds terms that validation has not
    val = [values["val_loss"] for values in history]
    best = min(range(len(val)), key=val.__getitem__)
    risen = min(val[best + LASTING_EPOCHS :], default=0.0) > RISEN_LOSS * val[best]
    now, then = history[-1]["train_classification"], history[best]["train_classification"]
    if not risen or now >= min(then, val[-1]):
        return []
    return [
        f"overfitting: the classification loss of validation tiles has risen from {val[best]:.3f} (round {best + 1}) "
        f"to {val[-1]:.3f} while that of training tiles fell from {then:.3f} to {now:.3f}; use early stopping, more "
        "slides, or more weight decay"
    ]
