"""What a trained model says of the parts of a split, the threshold that follows, and the rows of predictions.csv."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.mil.bag_sources import StoreBags
from jobs.mil.config import MilConfig
from jobs.mil.predictions import Prediction, predicted_name
from jobs.mil.table_bags import TableBags
from models.metrics import choose_threshold
from models.mil_training import MilSpec
from models.predict import predict_bags
from models.slide_model import SlideModel


@dataclass(frozen=True)
class Judged:
    """What a model says of one part of a split.

    Attributes
    ----------
    source
        The bags.
    probabilities
        float64 (bag, class).
    """

    source: StoreBags | TableBags
    probabilities: npt.NDArray[np.float64]


def judge(
    config: MilConfig, model: SlideModel, source: StoreBags | TableBags, spec: MilSpec
) -> Judged:
    """Judge whole bags."""
    said = predict_bags(
        model, source, spec.task, l2_normalize=spec.l2_normalize, amp=config.fit.amp
    )
    return Judged(source, np.stack([p.probabilities for p in said]).astype(np.float64))


def find_threshold(
    config: MilConfig, spec: MilSpec, val: Judged, logger: logging.Logger
) -> dict[str, Any]:
    """Choose the threshold of a binary task on the validation bags; say so where there is nothing to choose."""
    task, names = spec.task, spec.class_names
    chosen_on = "test" if config.leaky else "val"
    if task == "multilabel":
        return {"value": 0.5, "how": "fixed", "chosen_on": None}
    if len(names) != 2:
        return {"value": None, "how": "argmax", "chosen_on": None}
    value = choose_threshold(
        val.probabilities[:, 1], val.source.targets.astype(np.int64), config.threshold
    )
    if value is None:
        logger.warning("threshold is 0.5: a class is missing in what it would be chosen on")
        return {"value": 0.5, "how": "fixed", "chosen_on": None}
    return {
        "value": value,
        "how": config.threshold,
        "chosen_on": None if config.threshold == "argmax" else chosen_on,
    }


def prediction_rows(
    part: str, judged: Judged, spec: MilSpec, fold: int, threshold: dict[str, Any]
) -> list[Prediction]:
    """Return the rows of one part."""
    names, multilabel = spec.class_names, spec.task == "multilabel"
    source = judged.source
    rows = []
    for bag_id, group, target, p in zip(
        source.ids, source.groups, source.targets, judged.probabilities, strict=True
    ):
        label = (
            ";".join(n for n, t in zip(names, target, strict=True) if t)
            if multilabel
            else names[target]
        )
        said = predicted_name(p, names, multilabel=multilabel, threshold=threshold["value"])
        rows.append(Prediction(bag_id, tuple(p.tolist()), said, label, group, str(fold), part))
    return rows
