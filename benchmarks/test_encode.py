"""Encoders on tiles that are in memory, one thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.conftest import Timed
from benchmarks.encoders import EncoderName, encoder
from benchmarks.networks import POOL_PX, NearFree, resnet18
from models.cards import IMAGENET_MEAN, IMAGENET_STD


@pytest.mark.parametrize("name", ["near-free", "resnet18"])
def test_encode(
    timed: Timed, full: bool, tiles: npt.NDArray[np.uint8], tmp_path: Path, name: EncoderName
) -> None:
    model = encoder(name, tmp_path, device="cpu").load()
    batch = torch.from_numpy(tiles[: model.batch_size] if full else tiles[:4])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    features = timed(lambda: model(batch), len(batch), batch.numel())["features"]
    torch.set_num_threads(before)
    float_tiles = batch.permute(0, 3, 1, 2).double() / 255
    with torch.inference_mode():
        if name == "near-free":
            pooled = torch.nn.functional.avg_pool2d(float_tiles, POOL_PX).permute(0, 2, 3, 1)
            wanted = pooled.flatten(1) @ NearFree().weight.double().T
        else:
            mean, std = (torch.tensor(c).view(3, 1, 1) for c in (IMAGENET_MEAN, IMAGENET_STD))
            network = resnet18(tmp_path / "resnet18.safetensors")
            wanted = network(((float_tiles - mean) / std).float()).double()
    cosine = torch.cosine_similarity(torch.from_numpy(features).double(), wanted)
    assert float(cosine.min()) > 0.9999


def test_channels_first_is_the_same(tiles: npt.NDArray[np.uint8]) -> None:
    """Peers hand tiles over so."""
    last = torch.from_numpy(tiles[:4])
    first = last.permute(0, 3, 1, 2).contiguous()
    network = NearFree()
    torch.testing.assert_close(network(first), network(last))
