"""What attention and predictions of an epoch say about a training, from the outputs it made anyway.

Per bag of N > 1 tiles with attention a (of a multi-class model with one attention a class: the true
class's; of a multi-label one: each class's), averaged over the bags of an epoch:

    entropy                 -Σ a log a / log N        1: uniform, 0: on one tile
    effective instances     1 / Σ a²                  (Kish 1965)
    top-1, top-10 mass      the sum of the 1, 10 largest a

and: the share of bags whose critical tile (argmax a) is the one of the last epoch; the share of bags in
which both streams agree (argmax of the bag's logits, argmax of the largest instance logits; multi-label:
the share of labels); predictions per class. Warnings: ``training_warnings``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.slide_model import SlideOutput, TaskKind

Target: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float32]

# Attention is fetched from the device in one piece per so many values: few waits, little memory.
FLUSH_VALUES: Final = 1 << 20
_TOP: Final = 10
_UNKNOWN: Final = -1


class BagAttention(NamedTuple):
    """The numbers of one attention over N tiles; see the module."""

    entropy: float
    effective: float
    top1: float
    top10: float


def bag_attention(attention: npt.NDArray[np.floating]) -> BagAttention:
    """Summarise an attention, float (N,) with N > 1, that sums to 1."""
    a = attention.astype(np.float64)
    logs = np.log(np.maximum(a, np.finfo(np.float64).tiny))  # 0 log 0 is 0
    top = a if len(a) <= _TOP else np.partition(a, len(a) - _TOP)[-_TOP:]
    entropy = -float(a @ logs) / math.log(len(a))
    return BagAttention(entropy, 1 / float(a @ a), float(top.max()), float(top.sum()))


class OutputStatistics:
    """Gathers the outputs of one split over an epoch; looks at them at its end.

    Parameters
    ----------
    prefix
        Of the names of the values: ``train`` or ``val``.
    task, class_names
        Of the model.
    n_bags
        In the split.
    follow
        Whether bags are whole, so that critical tiles of two epochs can be compared.
    """

    def __init__(
        self, prefix: str, task: TaskKind, class_names: Sequence[str], n_bags: int, *, follow: bool
    ) -> None:
        self._prefix = prefix
        self._task = task
        self._class_names = class_names
        self._follow = follow
        kept = len(class_names) if task == "multilabel" else 1
        self.critical = torch.full((n_bags, kept), _UNKNOWN)
        """int64 (bag, attention) the critical tile of the last epoch that saw the bag; -1: none did."""
        self.clear()

    def clear(self) -> None:
        """Forget what was added since the last ``finish``; critical tiles stay."""
        self._pending: list[Tensor] = []
        self._pending_values = 0
        self._indices: list[int] = []
        self._targets: list[Target | np.int64] = []
        self._logits: list[Tensor] = []
        self._streams: list[Tensor] = []
        self._bags: list[BagAttention] = []
        self._tops: list[list[int]] = []

    def add(self, index: int, target: Target | np.int64, output: SlideOutput) -> None:
        """Take note of a bag's output, without waiting for the device.

        Parameters
        ----------
        index
            Number of the bag in its split.
        target
            () class index, or (C,) of a multi-label task.
        output
            Of the model.
        """
        attention = output.attention.detach()
        if attention.ndim == 1:
            attention = attention.unsqueeze(1)
        elif self._task == "multiclass":
            attention = attention[:, int(target), None]
        self._pending.append(attention)
        self._pending_values += attention.numel()
        self._indices.append(index)
        self._targets.append(target)
        self._logits.append(output.logits.detach())
        if output.instance_logits is not None:
            self._streams.append(output.instance_logits.detach().amax(0))
        if self._pending_values >= FLUSH_VALUES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        # transposed: an attention lies in one piece, whatever the number of columns
        flat = torch.cat([a.T.reshape(-1).float() for a in self._pending]).cpu().numpy()
        start = 0
        for n_tiles, n_kept in [tuple(a.shape) for a in self._pending]:
            rows = flat[start : start + n_tiles * n_kept].reshape(n_kept, n_tiles)
            start += rows.size
            self._tops.append(rows.argmax(1).tolist())
            if n_tiles > 1:
                self._bags += [bag_attention(row) for row in rows]
        self._pending.clear()
        self._pending_values = 0

    def finish(self) -> tuple[dict[str, float], npt.NDArray[np.float32], Target]:
        """Return the epoch's values, and logits (bag, class) and targets in the order of ``add``."""
        self._flush()
        logits: npt.NDArray[np.float32] = torch.stack(self._logits).float().cpu().numpy()
        targets: npt.NDArray[Any] = np.array(self._targets)  # of the source's dtype
        values = _means(self._bags)
        if self._follow:
            values.update(self._same_critical())
        if self._streams:
            streams = torch.stack(self._streams).float().cpu().numpy()
            agree = _labels(logits, self._task) == _labels(streams, self._task)
            values["stream_agreement"] = float(agree.mean())
        said = _labels(logits, self._task)
        for what, labels in (("predicted", said), ("actual", targets)):
            counts = _counts(labels, self._class_names)
            values.update({f"{what}_{name}": count for name, count in counts.items()})
        self.clear()
        return {f"{self._prefix}_{name}": value for name, value in values.items()}, logits, targets

    def _same_critical(self) -> dict[str, float]:
        last = self.critical.clone()
        same = []
        for index, tops in zip(self._indices, self._tops, strict=True):
            now = torch.tensor(tops).expand(last.shape[1])  # one attention for all labels: alike
            if int(last[index, 0]) != _UNKNOWN:
                same.append(float((last[index] == now).double().mean()))
            self.critical[index] = now
        return {"same_critical": float(np.mean(same))} if same else {}


def _means(bags: Sequence[BagAttention]) -> dict[str, float]:
    if not bags:  # every bag has one tile: there is nothing to attend to
        return {}
    entropy, effective, top1, top10 = np.mean(np.array(bags), 0).tolist()
    return {
        "attention_entropy": entropy,
        "effective_instances": effective,
        "top1_mass": top1,
        "top10_mass": top10,
    }


def class_counts(labels: Target, n_classes: int) -> npt.NDArray[np.int64]:
    """Count the bags of each class, int64 (C,): of class indices (n,), or of 0 and 1 (n, C)."""
    if labels.ndim == 1:
        return np.bincount(labels.astype(np.int64), minlength=n_classes)
    present: npt.NDArray[np.int64] = (labels > 0).sum(0)
    return present


def _labels(logits: npt.NDArray[np.float32], task: TaskKind) -> Target:
    return logits.argmax(1) if task == "multiclass" else (logits > 0).astype(np.float32)


def _counts(labels: Target, class_names: Sequence[str]) -> dict[str, float]:
    counts = class_counts(labels, len(class_names))
    return {name: float(count) for name, count in zip(class_names, counts, strict=True)}
