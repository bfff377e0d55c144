"""Preprocessing on batches of uint8 tiles is what Pillow and torchvision do to one image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from models.cards import EncoderCard
from models.preprocess import Preprocess
from models.registry import find_card

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def by_pillow(tile: torch.Tensor, card: EncoderCard, resize_px: int, crop_px: int) -> torch.Tensor:
    image = Image.fromarray(tile.numpy())
    image = image.resize((resize_px, resize_px), RESAMPLING[card.interpolation])
    edge = round((resize_px - crop_px) / 2)
    image = image.crop((edge, edge, edge + crop_px, edge + crop_px))
    pixels = np.asarray(image, dtype=np.float32) / 255
    normalized = (torch.from_numpy(pixels) - torch.tensor(card.mean)) / torch.tensor(card.std)
    return normalized.permute(2, 0, 1)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "uni", "prov-gigapath"])
def test_model_resize_is_pillows(tiles: torch.Tensor, name: str) -> None:
    card = find_card(name)
    ours = Preprocess.of(card, "model")(tiles[:4])
    assert ours.shape == (4, 3, card.input_px, card.input_px)
    grey_level = 1 / 255 / min(card.std)
    for tile, prepared in zip(tiles[:4], ours, strict=True):
        expected = by_pillow(tile, card, card.resize_px, card.input_px)
        assert (prepared - expected).abs().max() < 1.01 * grey_level  # Pillow's fixed point rounds
        assert (prepared - expected).abs().mean() < 0.02 * grey_level


def test_fit_keeps_the_whole_tile(tiles: torch.Tensor) -> None:
    card = find_card("efficientnet-lite0")
    ours = Preprocess.of(card, "fit")(tiles)
    assert (ours[0] - by_pillow(tiles[0], card, 224, 224)).abs().max() < 1.01 / 255 / 0.5


def test_none_leaves_tiles_as_they_are(tiles: torch.Tensor) -> None:
    ours = Preprocess.of(find_card("efficientnet-lite0"), "none")(tiles)
    back = ((ours * 0.5 + 0.5) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(back, tiles)
    assert ours.is_contiguous(memory_format=torch.channels_last)
