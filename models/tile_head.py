"""A classifier on the latent of a trained VAE whose encoder stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.vae import VaeSkip96
from store_schema.errors import InputError


@dataclass(frozen=True)
class TileHeadConfig:
    """The shape of the head.

    Attributes
    ----------
    hidden
        Width of its hidden layer; 160 makes about 93,000 weights of a latent of 64 x 3 x 3.
    dropout
        Of the hidden layer.

    Raises
    ------
    InputError
        If a number makes no sense.
    """

    hidden: int = 160
    dropout: float = 0.25

    def __post_init__(self) -> None:
        if self.hidden < 1 or not 0 <= self.dropout < 1:
            raise InputError("The head needs a hidden width of 1 or more and a dropout below 1.")


class TileHead(nn.Module):
    """sigmoid(w · dropout(relu(W h + b)) + c), h the posterior's mean, standardized.

    Parameters
    ----------
    vae
        Trained; its weights are left alone, and it stays in eval mode.
    config
        The head's shape.
    """

    latent_mean: Tensor
    latent_scale: Tensor

    def __init__(self, vae: VaeSkip96, config: TileHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.vae = vae.requires_grad_(False)
        n_latent = torch.Size(vae.config.latent_shape).numel()
        self.register_buffer("latent_mean", torch.zeros(n_latent))
        self.register_buffer("latent_scale", torch.ones(n_latent))
        self.layers = nn.Sequential(
            nn.Linear(n_latent, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, 1),
        )
        self.train(mode=self.training)

    def train(self, mode: bool = True) -> TileHead:
        """Put the layers into training or eval mode, but never the VAE."""
        super().train(mode)
        self.vae.eval()
        return self

    def latent(self, tiles: Tensor) -> Tensor:
        """Return the posterior's mean of uint8 (n, y, x, rgb), flat: float32 (n, number)."""
        with torch.no_grad():
            mean, _, _ = self.vae.encode(self.vae.normalize(tiles))
        return mean.float().flatten(1)

    def forward(self, tiles: Tensor) -> Tensor:
        """Return the logit of tumour of uint8 (n, y, x, rgb): float (n,)."""
        h = (self.latent(tiles) - self.latent_mean) * self.latent_scale
        return self.layers(h).squeeze(1)  # type: ignore[no-any-return]
