"""VAE-Skip96: a convolutional variational autoencoder with U-Net skips and a spatial latent.

    x (3, 96, 96) ─► 48 ─► 24 ─► 12 ─► 6 ─► 3 ─► mean, log-variance (64, 3, 3)
                     │     │     │     │
                     └skip └skip └skip └skip            (whole skips are dropped in training)
    x̂ (3, 96, 96) ◄─ 48 ◄─ 24 ◄─ 12 ◄─ 6 ◄─ 3 ◄─ z

The variational autoencoder is that of Kingma & Welling (ICLR 2014), the skips those of Ronneberger et al.
(U-Net, MICCAI 2015), the normalization that of Wu & He (GroupNorm, ECCV 2018). A convolution of what was
concatenated is the sum of two convolutions, which is how a skip comes in here: nothing is copied, and each half has
a kernel of its own. Nothing but the image is computed at full resolution: the last layer makes four pixels at a
time (Shi et al., CVPR 2016).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from store_schema.errors import InputError

Skips: TypeAlias = tuple[Tensor, ...]

_HALVINGS: Final = 5
_RGB: Final = 3
_CELL_PX: Final = 2**_HALVINGS  # side of what one latent cell stands for


@dataclass(frozen=True)
class VaeConfig:
    """The shape of the network.

    Attributes
    ----------
    tile_px
        Side of a tile [px], divisible by 32.
    latent_channels
        Of the latent, which has tile_px / 32 cells a side.
    widths
        Channels after each of the five halvings.
    groups
        Of GroupNorm; divides every width.
    skip_dropout
        Probability with which a whole skip of a tile is zeroed in training; each by itself, nothing is rescaled.
    skip_levels
        How many of the four levels that both halves have pass on a skip, the coarsest first; 0 is a plain VAE.

    Raises
    ------
    InputError
        If the numbers don't fit together.
    """

    tile_px: int = 96
    latent_channels: int = 64
    widths: tuple[int, ...] = (32, 64, 128, 256, 256)
    groups: int = 8
    skip_dropout: float = 0.25
    skip_levels: int = _HALVINGS - 1

    def __post_init__(self) -> None:
        if self.tile_px < _CELL_PX or self.tile_px % _CELL_PX:
            raise InputError(
                f"Tiles of {self.tile_px} px can't be halved five times: use a multiple of {_CELL_PX} px."
            )
        if len(self.widths) != _HALVINGS or any(w < 1 or w % self.groups for w in self.widths):
            raise InputError(
                f"The widths {self.widths} must be five multiples of the {self.groups} groups."
            )
        if self.latent_channels < 1 or not 0 <= self.skip_dropout <= 1:
            raise InputError("Give at least one latent channel, and a skip dropout from 0 to 1.")
        if not 0 <= self.skip_levels < _HALVINGS:
            raise InputError(f"There are {_HALVINGS - 1} levels that can pass on a skip.")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channel, y, x) of the latent."""
        return (self.latent_channels, self.tile_px // _CELL_PX, self.tile_px // _CELL_PX)


class VaeOutput(NamedTuple):
    """What the network makes of a batch, all float (n, channel, y, x).

    ``reconstruction`` is in normalized space, as the input; ``mean`` and ``logvar`` are of the posterior
    N(mean, exp(logvar)) of z.
    """

    reconstruction: Tensor
    mean: Tensor
    logvar: Tensor


class VaeSkip96(nn.Module):
    """The network; see the module.

    Parameters
    ----------
    config
        Its shape.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("pixel_mean", torch.full((_RGB,), 0.5))
        self.register_buffer("pixel_std", torch.full((_RGB,), 0.25))
        widths, groups, latent = config.widths, config.groups, config.latent_channels
        self.down = nn.ModuleList(
            _layer(before, after, groups, stride=2)
            for before, after in zip((_RGB, *widths), widths, strict=False)
        )
        self.posterior = nn.Conv2d(widths[-1], 2 * latent, 1)
        self.from_latent = _layer(latent, widths[-1], groups)
        self.up = nn.ModuleList(
            _UpLayer(before, after, groups, takes_skip=level < config.skip_levels)
            for level, (before, after) in enumerate(itertools.pairwise(widths[::-1]))
        )
        self.to_pixels = nn.Sequential(
            nn.Conv2d(widths[0], 4 * _RGB, 3, padding=1), nn.PixelShuffle(2)
        )

    def set_pixel_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set what pixels are normalized by: mean and deviation of red, green and blue, of RGB in 0 to 1.

        Raises
        ------
        InputError
            If a number is not finite, or a deviation is not above 0.
        """
        given = torch.tensor([list(mean), list(std)], dtype=torch.float32)
        if given.shape != (2, _RGB) or not given.isfinite().all() or bool((given[1] <= 0).any()):
            raise InputError(
                f"The tiles' mean {tuple(mean)} and deviation {tuple(std)} can't normalize pixels: give "
                "tiles that are not all of one colour."
            )
        self.pixel_mean.copy_(given[0])
        self.pixel_std.copy_(given[1])

    def normalize(self, tiles: Tensor) -> Tensor:
        """Bring pixels to the network's space: uint8 (n, y, x, rgb) → float32 (n, 3, y, x), channels last."""
        scale = (255 * self.pixel_std).reciprocal()
        shift = self.pixel_mean / self.pixel_std
        x = tiles.permute(0, 3, 1, 2).float()  # NHWC memory is channels_last
        return x.mul_(scale.view(-1, 1, 1)).sub_(shift.view(-1, 1, 1))

    def denormalize(self, x: Tensor) -> Tensor:
        """Bring float (n, 3, y, x) back to RGB in 0 to 1, for display; what lies outside is clipped."""
        shown = x.float() * self.pixel_std.view(-1, 1, 1) + self.pixel_mean.view(-1, 1, 1)
        return shown.clamp_(0, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Skips]:
        """Return the posterior of a batch, and its skips.

        Parameters
        ----------
        x
            float (n, 3, y, x), as ``normalize`` returns it.

        Returns
        -------
        mean, logvar
            float (n, latent channel, cell y, cell x).
        skips
            The coarsest first: (n, 256, 6, 6), (n, 128, 12, 12), …
        """
        levels = []
        for layer in self.down:
            x = layer(x)
            levels.append(x)
        mean, logvar = self.posterior(x).chunk(2, dim=1)
        coarse_first = levels[-2::-1]
        return mean, logvar, tuple(coarse_first[: self.config.skip_levels])

    def decode(self, z: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Return the reconstruction of float (n, 3, y, x) in normalized space; nothing bounds it.

        Parameters
        ----------
        z
            float (n, latent channel, cell y, cell x).
        skips
            As ``encode`` returns them.
        """
        h = self.from_latent(z)
        for layer, skip in itertools.zip_longest(self.up, skips):
            h = layer(h, skip)
        return self.to_pixels(h)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> VaeOutput:
        """Encode and decode; in training mode with a sample of z and dropped skips, else with z's mean and all skips.

        Parameters
        ----------
        x
            float (n, 3, y, x), as ``normalize`` returns it.
        generator
            Of the samples, on the input's device; None is torch's own.
        """
        mean, logvar, skips = self.encode(x)
        if not self.training:
            return VaeOutput(self.decode(mean, skips), mean, logvar)
        z = sample(mean, logvar, generator)
        return VaeOutput(self.decode(z, self.drop(skips, generator)), mean, logvar)

    def drop(self, skips: Skips, generator: torch.Generator | None = None) -> Skips:
        """Zero each whole skip of each tile with probability ``skip_dropout``."""
        if not self.config.skip_dropout:
            return skips
        kept = []
        for skip in skips:
            draw = torch.rand(len(skip), 1, 1, 1, device=skip.device, generator=generator)
            kept.append(skip * (draw >= self.config.skip_dropout))
        return tuple(kept)


def sample(mean: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw z of N(mean, exp(logvar)), differentiable in both (Kingma & Welling 2014)."""
    noise = torch.randn(mean.shape, device=mean.device, generator=generator)
    return mean + torch.exp(0.5 * logvar) * noise


def _layer(before: int, after: int, groups: int, stride: int = 1) -> nn.Sequential:
    # a kernel of four around each pair of pixels: one of three would sit on the first of them, and the last row and
    # column of a tile, with no next pair to be seen by, were reconstructed three times as badly
    # without a bias: GroupNorm would all but take it off again
    kernel = 4 if stride == 2 else 3
    convolution = nn.Conv2d(before, after, kernel, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, *_normalized(after, groups))


def _normalized(channels: int, groups: int) -> tuple[nn.Module, nn.Module]:
    # in place: its gradient needs its output alone, so that training keeps one map less
    return nn.GroupNorm(groups, channels), nn.LeakyReLU(0.1, inplace=True)


class _UpLayer(nn.Module):
    """Twice the resolution, and the skip of that level."""

    def __init__(self, before: int, after: int, groups: int, *, takes_skip: bool) -> None:
        super().__init__()
        # a kernel of twice the stride touches every pixel equally often: no checkerboard
        self.enlarge = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
        self.take = nn.Conv2d(after, after, 1, bias=False) if takes_skip else None
        self.finish = nn.Sequential(*_normalized(after, groups))

    def forward(self, h: Tensor, skip: Tensor | None) -> Tensor:
        h = self.enlarge(h)
        if self.take is not None and skip is not None:
            h += self.take(skip)
        return self.finish(h)  # type: ignore[no-any-return]
