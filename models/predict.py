"""What a trained slide model says of bags: whole bags, eval mode, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.bag_source import BagSource
from models.bag_tensor import bag_tensor, check_width
from models.determinism import autocast_precision
from models.precision import arithmetic
from models.prefetch import prefetched
from models.slide_model import SlideModel, SlideOutput, TaskKind, probabilities


@dataclass(frozen=True)
class BagPrediction:
    """What a model says of a bag of N tiles and C classes; all float32.

    Attributes
    ----------
    id, index
        Of the bag in its source.
    probabilities, logits
        (C,).
    attention, attention_logits
        (N,) or (N, C), after and before the softmax over tiles.
    instance_probabilities
        (N, C), or None where the model has no opinion of single tiles.
    """

    id: str
    index: int
    probabilities: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32]
    attention_logits: npt.NDArray[np.float32]
    instance_probabilities: npt.NDArray[np.float32] | None


def predict_bags(
    model: SlideModel,
    source: BagSource,
    task: TaskKind,
    *,
    l2_normalize: bool,
    device: torch.device | None = None,
    amp: bool = False,
) -> Iterator[BagPrediction]:
    """Judge the bags of a source in order; the next is read while one is computed.

    Parameters
    ----------
    model
        Is put into eval mode and onto the device.
    source
        Bags of the width that the model takes.
    task
        How logits become probabilities.
    l2_normalize
        As in training.
    device
        Where to compute (``determinism.resolve_device``); None is where the model is.
    amp
        Autocast, as in training.

    Raises
    ------
    ModelError
        If the bags are of another width than the model.
    """
    check_width(model, source)
    place = device or next(model.parameters()).device
    model.to(place).eval()
    precision = autocast_precision(place) if amp else "fp32"
    for index, features in enumerate(prefetched(range(len(source.ids)), source.load)):
        with (
            torch.inference_mode(),
            arithmetic(precision, "cuda" if place.type == "cuda" else "cpu"),
        ):
            output: SlideOutput = model(bag_tensor(features, model, l2_normalize=l2_normalize))
            logits = output.logits.float()
            tiles = output.instance_logits
            said = None if tiles is None else model.instance_probabilities(tiles.float(), task)
        yield BagPrediction(
            source.ids[index],
            index,
            _array(probabilities(logits, task)),
            _array(logits),
            _array(output.attention),
            _array(output.attention_logits),
            None if said is None else _array(said),
        )


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
