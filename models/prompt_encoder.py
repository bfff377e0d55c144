"""The encoder of the prototypes, asked about parts of a tile: frozen, but a gradient passes through to the mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.encoder import EncoderFactory
from models.pbip import resized
from models.preprocess import Preprocess
from store_schema.errors import ModelError

# What must be the same for two encoders' features to lie in one space; how exactly they were computed needn't.
_DECISIVE: Final = (
    "encoder",
    "weights",
    "seed",
    "resize_px",
    "crop_px",
    "interpolation",
    "mean",
    "std",
)


class PromptEncoder(nn.Module):
    """Features of masked tiles in the space of the prototypes.

    Parameters
    ----------
    network
        float32 (n, 3, y, x) → (n, d); frozen here.
    preprocess
        What happens to a tile before it.
    dim
        Length of a feature vector, d.
    """

    def __init__(self, network: nn.Module, preprocess: Preprocess, dim: int) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.preprocess = preprocess
        self.dim = dim
        self.eval()

    @classmethod
    def of(cls, factory: EncoderFactory, bank_encoder: Mapping[str, Any]) -> PromptEncoder:
        """Build it of an encoder of the registry.

        Parameters
        ----------
        factory
            The encoder.
        bank_encoder
            What made the prototypes, ``PrototypeBank.encoder``.

        Raises
        ------
        ModelError
            If it isn't the encoder that made the prototypes, or its weights can't be had.
        """
        made_by = factory.provenance
        differences = [
            f"{name} is {made_by.get(name)}, of the bank {bank_encoder.get(name)}"
            for name in _DECISIVE
            if made_by.get(name) != bank_encoder.get(name)
        ]
        if differences:
            raise ModelError(
                f"The prototypes were made by another encoder than {factory.spec.name} ({'; '.join(differences)}): "
                "give the bank's encoder, or make a bank with this one."
            )
        return cls(factory.network(), factory.preprocess, factory.card.dim)

    def train(self, mode: bool = True) -> PromptEncoder:
        """Stay in eval mode."""
        return super().train(mode=False)

    def frame_px(self, tile_px: int) -> int:
        """Return the side that a tile has before it is cropped [px]: what masks are to have."""
        return tile_px if self.preprocess.resize_px is None else self.preprocess.resize_px

    def forward(self, tiles: Tensor, tile_of: Tensor, masks: Tensor) -> Tensor:
        """Encode parts of tiles.

        Parameters
        ----------
        tiles
            uint8 (n, y, x, rgb).
        tile_of
            int64 (p,): the tile of each mask.
        masks
            float (p, 1, y, x) in 0 to 1, of ``frame_px`` or resized to it. What is masked gets the colour of the
            encoder's mean, which says the least.

        Returns
        -------
        Tensor
            float (p, d).
        """
        with torch.no_grad():
            x = self.preprocess(tiles)
        masks = self._cropped(resized(masks, self.frame_px(tiles.shape[1])), x.shape[-1])
        features: Tensor = self.network(x[tile_of] * masks)
        return features

    def _cropped(self, masks: Tensor, side_px: int) -> Tensor:
        # as Preprocess crops the tiles
        from torchvision.transforms.v2 import functional as F

        cropped: Tensor = F.center_crop(masks, [side_px, side_px])
        return cropped
