"""The networks that all sides of a comparison run; needs torch, timm and safetensors only: peers load this file.

uint8 tiles (n, y, x, rgb) or (n, rgb, y, x) in, float32 features (n, dim) out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import nn

POOL_PX: Final = 16
NEAR_FREE_DIM: Final = 192
RESNET: Final = "resnet18"
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
_SEED: Final = 0


class NearFree(nn.Module):
    """Average pool of 16 x 16 px and a linear layer: all but no work, so that the flow's own cost shows.

    Parameters
    ----------
    tile_px
        Side of a tile, a multiple of 16.
    """

    def __init__(self, tile_px: int = 256) -> None:
        super().__init__()
        cells = tile_px // POOL_PX
        generator = torch.Generator().manual_seed(_SEED)
        weight = torch.randn(NEAR_FREE_DIM, cells * cells * 3, generator=generator)
        self.weight = nn.Parameter(weight / weight.shape[1] ** 0.5, requires_grad=False)
        # sums of 3 * 16 neighbouring bytes to 3 sums: a pixel's three channels lie side by side
        columns = torch.arange(tile_px * 3)
        gather = torch.zeros(tile_px * 3, cells * 3)
        gather[columns, columns // (3 * POOL_PX) * 3 + columns % 3] = 1 / (255 * POOL_PX**2)
        self.gather: torch.Tensor
        self.register_buffer("gather", gather)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Encode a batch; channels may come last, or first as most loaders have them."""
        if tiles.shape[1] == 3:
            last = tiles.permute(0, 2, 3, 1)
            if not last.is_contiguous():
                return self._channels_first(tiles)
            tiles = last
        pooled = _sum_rows(tiles.flatten(2)).float() @ self.gather
        return torch.mm(pooled.flatten(1), self.weight.T)

    def _channels_first(self, tiles: torch.Tensor) -> torch.Tensor:
        n, _, _, width = tiles.shape
        rows = _sum_rows(tiles.flatten(0, 1)).float()  # (n * rgb, row, x)
        cells = rows.reshape(n, 3, -1, width // POOL_PX, POOL_PX).sum(4)
        means = cells.permute(0, 2, 3, 1).flatten(1).div(255 * POOL_PX**2)
        return torch.mm(means, self.weight.T)


def _sum_rows(tiles: torch.Tensor) -> torch.Tensor:
    """Add up each 16 rows of uint8 (n, y, bytes) as int16, which 16 * 255 fits: five times faster than ``sum``."""
    rows = tiles.reshape(len(tiles), -1, POOL_PX, tiles.shape[2])
    sums = rows[:, :, 0].to(torch.int16)
    for row in range(1, POOL_PX):
        sums += rows[:, :, row]
    return sums


class OnBytes(nn.Module):
    """A network on uint8 tiles, which are normalized as ImageNet's are; whole batches at one time.

    Parameters
    ----------
    network
        float32 (n, rgb, y, x) → (n, dim).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).mul(255).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).mul(255).view(3, 1, 1))

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Encode a batch; channels may come last or first."""
        first = tiles if tiles.shape[1] == 3 else tiles.permute(0, 3, 1, 2)
        x = first.to(torch.float32, memory_format=torch.channels_last)
        return torch.as_tensor(self.network(x.sub_(self.mean).div_(self.std)))


def resnet18(weights: Path) -> nn.Module:
    """Return timm's ResNet-18 without its classifier, with the weights of a file.

    Parameters
    ----------
    weights
        From :func:`save_resnet18`.
    """
    import timm
    from safetensors.torch import load_file

    network: nn.Module = timm.create_model(RESNET, num_classes=0)
    network.load_state_dict(load_file(weights))
    return network.eval()


def save_resnet18(weights: Path) -> None:
    """Write random weights, the same each time, unless the file is there."""
    import timm
    from safetensors.torch import save_file

    if weights.is_file():
        return
    weights.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        network = timm.create_model(RESNET, num_classes=0)
    made = weights.with_suffix(".partial")
    save_file(network.state_dict(), made)
    made.replace(weights)
