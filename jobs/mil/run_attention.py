"""The attention of a trained run, slide by slide, as tiles are ranked by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from jobs.mil.bag_sources import StoreBags, made_by_fingerprint
from jobs.mil.ensemble import judges_of
from jobs.mil.ranking import attention_score
from jobs.mil.selection_leak import met_by
from jobs.mil.trained import TrainedFold, load_trained
from models.determinism import resolve_device
from models.predict import predict_bags
from store_schema.bags import Bag
from store_schema.errors import InputError
from store_schema.specs import fingerprint


@dataclass(frozen=True)
class RunAttention:
    """Attention of the models of a run.

    A slide that was tested in the run is judged by the models that never met it, any other by the mean of all.

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
        """What decides the numbers: the models, in the order of folds, and which slides each of them met."""
        met = {
            fold.fold: fingerprint({"test": sorted(fold.description.get("test_slide_ids", ()))})
            for fold in self.folds
        }
        return {"folds": [fold.provenance for fold in self.folds], "tested": met}

    def met(self, slide_id: str) -> Mapping[str, Any]:
        """Return which folds' models rank a slide's tiles, and which models learned from it."""
        return met_by(self.folds, slide_id)

    def attention(self, bag: Bag) -> npt.NDArray[np.floating]:
        """Return float32 (tile,), the attention over the whole slide; of attention by class the greatest.

        Raises
        ------
        InputError
            The slide's features were made otherwise than those that a model was trained on.
        """
        made_by = made_by_fingerprint(bag)
        for fold in self.folds:
            if fold.features.get("fingerprint") not in (None, made_by):
                raise InputError(
                    f"{bag.group.path} was made otherwise (encoder, weights, stain …) than what {fold.directory} was "
                    "trained on: name the features of the training with --features"
                )
        source = StoreBags((bag.slide_id,), np.zeros(1, np.int64), (bag.slide_id,), ((bag,),))
        found = [
            attention_score(prediction.attention)
            for fold in judges_of(self.folds, [bag.slide_id])
            for prediction in predict_bags(
                fold.model,
                source,
                fold.task,
                l2_normalize=bool(fold.description["l2_normalize"]),
                device=self.device,
                amp=bool(fold.description.get("amp", False)),
            )
        ]
        if len(found) == 1:
            return found[0]
        mean: npt.NDArray[np.float32] = (
            np.stack(found).mean(axis=0, dtype=np.float64).astype(np.float32)
        )
        return mean


def attention_of_run(run_dir: Path, device: Literal["auto", "cpu", "cuda"]) -> RunAttention:
    """Load the models of a run.

    Parameters
    ----------
    run_dir
        Of ``mil train`` or ``mil cv``.
    device
        Where to compute.

    Raises
    ------
    ModelError
        If there are none, or one is damaged or no checkpoint of ours.
    DeviceError
        If the device isn't there.
    """
    return RunAttention(load_trained(run_dir), resolve_device(device))
