"""What attention and predictions of an epoch say about a training, from the outputs it made anyway.

Averaged over the bags of an epoch: the numbers of ``attention_summary``, over bags of more than one tile (of a
multi-class model with one attention a class: of the true class's; of a multi-label one: of each class's); the share
of bags whose critical tile is the one of the last epoch; the share of bags in which both streams agree (argmax of the
bag's logits, argmax of the largest instance logits; multi-label: the share of labels). And predictions per class.
What they warn of: ``training_warnings``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.attention_summary import AttentionSummary, summarise_attention
from models.slide_model import SlideOutput, TaskKind

Target: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float32]

# Attention is fetched from the device in one piece per so many values: few waits, and what is computed
# of a piece stays in the cache.
FLUSH_VALUES: Final = 1 << 17
_UNKNOWN: Final = -1


class OutputStatistics:
    """Gathers the outputs of one split over an epoch; looks at them all at once.

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
        self.critical: npt.NDArray[np.int64] = np.full((n_bags, kept), _UNKNOWN)
        """int64 (bag, attention) the critical tile of the last epoch that saw the bag; -1: none did."""
        self.clear()

    def clear(self) -> None:
        """Forget what was added since the last ``finish``; critical tiles stay."""
        self._attention: list[Tensor] = []
        self._instance_logits: list[Tensor] = []
        self._pending_values = 0
        self._indices: list[int] = []
        self._targets: list[Target | np.int64] = []
        self._logits: list[Tensor] = []
        self._streams: list[npt.NDArray[np.float32]] = []
        self._summaries: list[AttentionSummary] = []
        self._tops: list[npt.NDArray[np.int64]] = []

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
        self._indices.append(index)
        self._targets.append(target)
        self._logits.append(output.logits.detach())
        self._attention.append(output.attention.detach())
        self._pending_values += output.attention.numel()
        if output.instance_logits is not None:
            self._instance_logits.append(output.instance_logits.detach())
            self._pending_values += output.instance_logits.numel()
        if self._pending_values >= FLUSH_VALUES:
            self._flush()

    def _flush(self) -> None:
        if not self._attention:
            return
        n_bags = len(self._attention)
        lengths = np.array([len(attention) for attention in self._attention])
        attention = _fetched(self._attention).reshape(lengths.sum(), -1)
        if self._task == "multiclass" and attention.shape[1] > 1:
            true_class = np.repeat(np.array(self._targets[-n_bags:]), lengths)
            attention = attention[np.arange(len(attention)), true_class, None]
        columns = [summarise_attention(column, lengths) for column in attention.T]
        self._summaries += columns
        self._tops.append(np.stack([column.critical for column in columns], 1))
        if self._instance_logits:
            tiles = _fetched(self._instance_logits)
            self._streams.append(np.maximum.reduceat(tiles, np.cumsum(lengths) - lengths))
        self._attention.clear()
        self._instance_logits.clear()
        self._pending_values = 0

    def finish(self) -> tuple[dict[str, float], npt.NDArray[np.float32], Target]:
        """Return the epoch's values, and logits (bag, class) and targets in the order of ``add``."""
        self._flush()
        logits = torch.stack(self._logits).float().cpu().numpy()
        targets: npt.NDArray[Any] = np.array(self._targets)  # of the source's dtype
        values = _means(self._summaries)
        if self._follow:
            values.update(self._same_critical())
        if self._streams:
            streams = np.concatenate(self._streams)
            agree = _labels(logits, self._task) == _labels(streams, self._task)
            values["stream_agreement"] = float(agree.mean())
        said = _labels(logits, self._task)
        for what, labels in (("predicted", said), ("actual", targets)):
            counts = class_counts(labels, len(self._class_names)).tolist()
            for name, count in zip(self._class_names, counts, strict=True):
                values[f"{what}_{name}"] = float(count)
        self.clear()
        return {f"{self._prefix}_{name}": value for name, value in values.items()}, logits, targets

    def _same_critical(self) -> dict[str, float]:
        now = np.concatenate(self._tops)  # (bag, 1) where all labels share one attention
        last = self.critical[self._indices]
        known = last[:, 0] != _UNKNOWN
        self.critical[self._indices] = now
        return {"same_critical": float((last == now)[known].mean())} if known.any() else {}


def _fetched(parts: Sequence[Tensor]) -> npt.NDArray[np.float32]:
    whole: npt.NDArray[np.float32] = torch.cat(list(parts)).float().cpu().numpy()
    return whole


def _means(summaries: Sequence[AttentionSummary]) -> dict[str, float]:
    *columns, _ = (np.concatenate(column) for column in zip(*summaries, strict=True))
    entropy, effective, top1, top10 = columns
    several = np.isfinite(entropy)
    if not several.any():  # every bag has one tile: there is nothing to attend to
        return {}
    return {
        "attention_entropy": float(entropy[several].mean()),
        "effective_instances": float(effective[several].mean()),
        "top1_mass": float(top1[several].mean()),
        "top10_mass": float(top10[several].mean()),
    }


def class_counts(labels: Target, n_classes: int) -> npt.NDArray[np.int64]:
    """Count the bags of each class, int64 (C,): of class indices (n,), or of 0 and 1 (n, C)."""
    if labels.ndim == 1:
        return np.bincount(labels.astype(np.int64), minlength=n_classes)
    present: npt.NDArray[np.int64] = (labels > 0).sum(0)
    return present


def _labels(logits: npt.NDArray[np.float32], task: TaskKind) -> Target:
    return logits.argmax(1) if task == "multiclass" else (logits > 0).astype(np.float32)
