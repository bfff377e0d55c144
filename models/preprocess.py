"""From uint8 tiles to a network's input, on the tiles' device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from models.cards import RGB, EncoderCard, Interpolation

ResizeMode: TypeAlias = Literal["model", "fit", "none"]


@dataclass(frozen=True)
class Preprocess:
    """What happens to a tile before the network sees it.

    Attributes
    ----------
    resize_px
        Side that tiles are resized to [px]; None leaves them as they are.
    crop_px
        Side of the centre crop that follows [px]; None crops nothing.
    interpolation
        Kernel of the resize, antialiased; rounded to 8 bits afterwards, as Pillow does.
    mean, std
        Normalization of RGB in 0 to 1.
    """

    resize_px: int | None
    crop_px: int | None
    interpolation: Interpolation
    mean: RGB
    std: RGB

    @classmethod
    def of(cls, card: EncoderCard, mode: ResizeMode) -> Preprocess:
        """Derive the steps from a card.

        Parameters
        ----------
        card
            The encoder's card.
        mode
            ``model``: the model's own resize and centre crop, which may cut the tile's border off.
            ``fit``: the whole tile, resized to the model's input. ``none``: tiles as they are,
            whatever their size.
        """
        sizes: dict[ResizeMode, tuple[int | None, int | None]] = {
            "model": (card.resize_px, card.input_px),
            "fit": (card.input_px, None),
            "none": (None, None),
        }
        resize_px, crop_px = sizes[mode]
        return cls(resize_px, crop_px, card.interpolation, card.mean, card.std)

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        """Prepare a batch.

        Parameters
        ----------
        tiles
            uint8 (n, y, x, rgb).

        Returns
        -------
        torch.Tensor
            float32 (n, 3, y, x), channels last in memory (as the tiles are).
        """
        # imported here: torchvision takes seconds, and a client that only plans never gets here
        from torchvision.transforms.v2 import functional as F

        x = tiles.permute(0, 3, 1, 2)  # no copy: NHWC memory is channels_last
        if self.resize_px is not None and x.shape[-2:] != (self.resize_px, self.resize_px):
            mode = F.InterpolationMode(self.interpolation)
            x = F.resize(x, [self.resize_px, self.resize_px], interpolation=mode, antialias=True)
        if self.crop_px is not None:
            x = F.center_crop(x, [self.crop_px, self.crop_px])
        scale = torch.tensor(self.std, device=x.device).mul(255).reciprocal().view(3, 1, 1)
        shift = torch.tensor(self.mean, device=x.device).div(
            torch.tensor(self.std, device=x.device)
        )
        return x.float().mul_(scale).sub_(shift.view(3, 1, 1))
