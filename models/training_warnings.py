"""What the values of the epochs so far warn of: one sentence per thing that holds now.

What stands before a sentence's colon does not change from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

History: TypeAlias = Sequence[Mapping[str, float]]

# A bag's embedding is then one tile's to within 5 %: attention has become max pooling.
ONE_TILE_MASS: Final = 0.95
# Entropy falls short of log N by about half the variance of the attention's logits. At 0.999 these
# spread by 0.09 (N = 80) to 0.14 (N = 10,000), so that the weights of tiles differ by a tenth: the
# bag is its mean.
UNIFORM_ENTROPY: Final = 0.999
# What is no accident of one epoch.
LASTING_EPOCHS: Final = 5
# Every training begins with attention that is uniform and often with one class; DSMIL at the default
# learning rate stays there for 200 steps.
START_EPOCHS: Final = 10
# Above this factor on its least, a validation loss has not just wavered.
RISEN_LOSS: Final = 1.1


def attention_warnings(history: History) -> list[str]:
    """Warn of an attention that has collapsed to one tile, or to all alike.

    Parameters
    ----------
    history
        Values of every epoch, the latest last; of a model whose attention is learned.
    """
    found = []
    mass = _lasting(history, "val_top1_mass", LASTING_EPOCHS)
    if mass and min(mass) > ONE_TILE_MASS:
        found.append(
            f"attention has collapsed to one tile: it holds {mass[-1]:.3f} of the attention of a validation "
            "bag on average, so a bag is judged by a single tile; try a lower learning rate, more "
            "dropout, or --bag-size"
        )
    entropy = _lasting(history, "val_attention_entropy", START_EPOCHS)
    if entropy and min(entropy) > UNIFORM_ENTROPY:
        found.append(
            f"attention is uniform: its entropy is {entropy[-1]:.4f} of the largest possible in "
            f"validation for {START_EPOCHS} epochs, so a bag is judged by the mean of its tiles; try "
            "less weight decay, a higher learning rate, or more epochs"
        )
    return found


def prediction_warnings(history: History, class_names: Sequence[str]) -> list[str]:
    """Warn when one class (or no label at all) is predicted for every validation bag.

    Parameters
    ----------
    history
        Values of every epoch, the latest last, with ``val_predicted_<class>`` and ``val_actual_<class>``.
    class_names
        All of them.
    """
    late = history[-START_EPOCHS:]
    if len(late) < START_EPOCHS:
        return []
    actual = [name for name in class_names if late[-1][f"val_actual_{name}"]]
    said = {name for epoch in late for name in class_names if epoch[f"val_predicted_{name}"]}
    if len(actual) < 2 or len(said) > 1:
        return []
    what = f"class {said.pop()}" if said else "no class"
    counts = ", ".join(f"{late[-1][f'val_actual_{name}']:.0f} {name}" for name in actual)
    return [
        f"only one class is predicted: every validation bag got {what} in the last {START_EPOCHS} epochs, "
        f"there are {counts}; use the balanced sampler or class weights, or look at the labels"
    ]


def overfitting_warnings(history: History) -> list[str]:
    """Warn when the validation loss has been rising for long while the training loss fell.

    Parameters
    ----------
    history
        Values of every epoch, the latest last, with ``train_loss`` and ``val_loss``.
    """
    val = [values["val_loss"] for values in history]
    best = min(range(len(val)), key=val.__getitem__)
    now = history[-1]
    risen = min(val[best + LASTING_EPOCHS :], default=0.0) > RISEN_LOSS * val[best]
    if not risen or now["train_loss"] >= min(history[best]["train_loss"], now["val_loss"]):
        return []
    return [
        f"overfitting: the validation loss has risen from {val[best]:.3f} (epoch {best + 1}) to "
        f"{now['val_loss']:.3f} while the training loss fell to {now['train_loss']:.3f}; use early "
        "stopping, more dropout or weight decay"
    ]


def missing_class_warnings(
    split: str, class_names: Sequence[str], counts: npt.NDArray[np.int64]
) -> list[str]:
    """Warn of classes that a split has no bag of.

    Parameters
    ----------
    split
        ``training`` or ``validation``.
    class_names, counts
        The classes; int64 (class,) bags of each.
    """
    missing = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if not missing:
        return []
    return [
        f"the {split} split lacks a class: it has no bag of {', '.join(missing)}; what is measured on it "
        "says nothing of that class"
    ]


def _lasting(history: History, name: str, epochs: int) -> list[float]:
    """Return the last values of a name; empty where there are fewer."""
    values = [epoch[name] for epoch in history[-epochs:] if name in epoch]
    return values if len(values) == epochs else []
