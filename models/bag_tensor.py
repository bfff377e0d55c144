"""A stored bag as the tensor that a slide model gets: on its device, normalized as the model wants it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from models.bag_source import BagSource
from models.slide_model import SlideModel
from store_schema.errors import ModelError

# 16,384 tiles of 1,280 features are 84 MB in float32
_CHUNK_TILES: Final = 16384


def bag_tensor(
    features: npt.NDArray[np.floating], model: SlideModel, *, l2_normalize: bool
) -> Tensor:
    """Return a bag on the model's device, normalized, in the dtype it is stored in.

    A tile's features x become (x / ‖x‖ - mean) · scale, with the model's ``feature_mean`` and
    ``feature_scale``, computed in float32. A float16 bag stays one, which rounds its values a second
    time as storing them did the first time (2⁻¹² relative, half of the last bit), and halves the
    memory of large bags.

    Parameters
    ----------
    features
        float16 or float32 (tile, feature); left as they are.
    model
        The model it is for.
    l2_normalize
        Divide each tile's features by their Euclidean length; features that are all 0 stay so.
    """
    mean, scale = model.feature_mean, model.feature_scale
    bag = torch.from_numpy(np.require(features, requirements=["C", "W"]))
    on_device = bag.to(mean.device)
    as_it_is = not mean.any() and bool((scale == 1).all())
    if as_it_is and not l2_normalize:
        return on_device
    # a copy on the GPU is ours to change, the source's own array is not
    result = torch.empty_like(bag) if on_device is bag else on_device
    for start in range(0, len(bag), _CHUNK_TILES):
        rows = slice(start, start + _CHUNK_TILES)
        chunk = on_device[rows].float()
        if l2_normalize:
            chunk = F.normalize(chunk, dim=1)
        result[rows] = chunk if as_it_is else (chunk - mean) * scale
    return result


def check_width(model: SlideModel, source: BagSource) -> None:
    """Refuse bags of another width than the model's.

    Raises
    ------
    ModelError
        If the widths differ.
    """
    if model.config.n_features != source.n_features:
        raise ModelError(
            f"The model takes {model.config.n_features} features a tile and the bags have "
            f"{source.n_features}: use the features that it was trained on."
        )
