"""The attention of a trained run, slide by slide, as tiles are ranked by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from jobs.mil.bag_sources import StoreBags
from jobs.mil.ranking import attention_score
from jobs.mil.trained import TrainedFold, load_trained
from models.determinism import resolve_device
from models.predict import predict_bags
from store_schema.bags import Bag


@dataclass(frozen=True)
class RunAttention:
    """Attention of the models of a run.

    Where a slide is in the test fold of one of them, that one is asked: it never met the slide. Otherwise it is the
    mean over all of them.

    Attributes
    ----------
    folds
        The models.
    device
        Where they compute.
    """

    folds: Sequence[TrainedFold]
    device: torch.device

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Digests of the weights, in the order of folds."""
        return {"weights": [fold.digest for fold in self.folds]}

    def attention(self, bag: Bag) -> npt.NDArray[np.floating]:
        """Return float32 (tile,), the attention over the whole slide; of attention by class the greatest."""
        source = StoreBags((bag.slide_id,), np.zeros(1, np.int64), (bag.slide_id,), ((bag,),))
        asked = [
            fold for fold in self.folds if bag.slide_id in fold.description["test_slide_ids"]
        ] or self.folds
        found = [
            attention_score(prediction.attention)
            for fold in asked
            for prediction in predict_bags(
                fold.model,
                source,
                fold.description["task"],
                l2_normalize=fold.description["l2_normalize"],
                device=self.device,
            )
        ]
        mean: npt.NDArray[np.float32] = np.mean(found, axis=0, dtype=np.float32)
        return mean


def attention_of_run(run_dir: Path, device: str) -> RunAttention:
    """Load the models of a run of ``mil train`` or ``mil cv``.

    Raises
    ------
    ModelError
        If there are none, or one is no checkpoint of ours.
    DeviceError
        If the device isn't there.
    """
    return RunAttention(load_trained(run_dir), resolve_device(device))
