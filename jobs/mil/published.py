"""The protocol of the DSMIL authors' code, to compare with papers that use it: leaky, and labelled so.

Their ``train_mil.py`` trains on all folds but one, and reports of each fold the best accuracy that any epoch has on
the *test* fold, at the threshold that is optimal on the test fold's own ROC curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from models.metrics import choose_threshold, classification_metrics
from models.mil_training import MilTraining

MONITOR: Final = "val_accuracy_at_own_threshold"


class PublishedTraining(MilTraining):
    """A training whose "validation" bags are the test fold, judged at their own best threshold."""

    def validate(self, epoch: int) -> Mapping[str, float]:
        """Judge the bags; adds the accuracy at the threshold that Youden's index chooses on them."""
        values = dict(super().validate(epoch))
        assert self.judged is not None
        p, targets = self.judged
        task, names = self._spec.task, self._spec.class_names
        threshold = None
        if task == "multiclass" and len(names) == 2:
            threshold = choose_threshold(p[:, 1], targets.astype("int64"), "youden")
        accuracy = classification_metrics(p, targets, names, task, threshold)["accuracy"]
        assert isinstance(accuracy, float)
        return {**values, MONITOR: accuracy}
