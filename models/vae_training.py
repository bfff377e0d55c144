"""Training of the VAE on normal tiles, for ``fit``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.fit_spec import FitSpec
from models.prefetch import prefetched
from models.tile_augment import AugmentSpec, augment
from models.tile_source import TileSource
from models.vae import VaeSkip96
from models.vae_diagnostics import (
    ActiveUnits,
    collapse_warnings,
    overfitting_warnings,
    prior_errors,
    skip_warnings,
)
from models.vae_loss import VaeLossSpec, kl_nats, reconstruction_errors, total_loss
from store_schema.errors import InputError, ModelError

Tiles = npt.NDArray[np.uint8]

# Validation tiles that are reconstructed from the prior as well: enough to tell 1.00 from 1.05.
_PROBED_TILES: Final = 256


@dataclass(frozen=True)
class VaeTrainingSpec:
    """What the VAE learns by.

    Attributes
    ----------
    loss
        What it minimises.
    augment
        How training tiles are varied.
    batch_size
        Tiles a step.
    """

    loss: VaeLossSpec = field(default_factory=VaeLossSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError("The batch size must be 1 or more.")


class Examples(NamedTuple):
    """Tiles and what the model makes of them, for pictures.

    ``tiles`` and ``reconstructions`` are uint8 (n, y, x, rgb); ``errors`` is float32 (n, y, x), the mean
    absolute difference over the channels in normalized space.
    """

    tiles: Tiles
    reconstructions: Tiles
    errors: npt.NDArray[np.float32]


class VaeTraining:
    """A VAE's training.

    Parameters
    ----------
    spec, fit_spec
        The settings.
    train, val
        The tiles.
    model
        Of the tiles' size, with their pixel statistics.

    Raises
    ------
    InputError
        If a split has no tiles.
    ModelError
        If the model was built for another tile size.
    """

    def __init__(
        self,
        spec: VaeTrainingSpec,
        fit_spec: FitSpec,
        train: TileSource,
        val: TileSource,
        model: VaeSkip96,
    ) -> None:
        check_tiles(train, val, model)
        self.model: VaeSkip96 = model
        self._spec = spec
        self._fit_spec = fit_spec
        self._train = train
        self._val = val
        self._beta = self._capacity = 0.0

    def settings(self) -> Mapping[str, object]:
        """Return the settings, and the fingerprints of the tiles."""
        return {
            "config": asdict(self.model.config),
            "vae": asdict(self._spec),
            "train": self._train.fingerprint,
            "val": self._val.fingerprint,
        }

    def n_batches(self) -> int:
        """Return the steps of an epoch, in which every tile comes once."""
        return -(-len(self._train) // self._spec.batch_size)

    def batches(self, epoch: int) -> Iterable[Tiles]:
        """Yield the epoch's tiles, varied; the next step's are read while this one is computed."""
        self._beta = self._spec.loss.beta_at(epoch)
        self._capacity = self._spec.loss.capacity_at(epoch)
        return shuffled_batches(
            self._train, self._spec.augment, self._spec.batch_size, self._fit_spec.epoch_rng(epoch)
        )

    def loss(self, batch: Tiles) -> Mapping[str, Tensor]:
        """Return ``loss`` by the epoch's β and C, ``recon`` and ``kl`` [nats] of a step."""
        loss = self._spec.loss
        x = self._normalized(batch)
        noisy = x + loss.denoise_sigma * torch.randn_like(x) if loss.denoise_sigma else x
        output = self.model(noisy)
        recon = reconstruction_errors(
            output.reconstruction, x, loss.reconstruction, loss.reduction
        ).mean()
        kl = kl_nats(output.mean, output.logvar).mean()
        total = total_loss(recon, kl, self._beta, self._capacity)
        return {"loss": total, "recon": recon, "kl": kl}

    def validate(self, epoch: int) -> Mapping[str, float]:
        """Judge the validation tiles as scoring does: the posterior's mean, all skips, no noise.

        Returns
        -------
        dict
            ``val_loss``, with the final β and C in every epoch, so that epochs can be compared: with its
            own, the first epoch would win by paying for no KL. ``val_recon``, ``val_kl`` [nats a tile];
            ``beta`` and ``capacity`` of the epoch; ``kl_over_capacity``, where C is above 0;
            ``active_units``; ``prior_recon_ratio``, how many times larger the reconstruction error is
            with z drawn from the prior.
        """
        loss = self._spec.loss
        units = ActiveUnits()
        recon = kl = 0.0
        for tiles in in_order(self._val, np.arange(len(self._val)), self._spec.batch_size):
            x = self._normalized(tiles)
            output = self.model(x)
            errors = reconstruction_errors(
                output.reconstruction, x, loss.reconstruction, loss.reduction
            )
            recon += float(errors.double().sum())
            kl += float(kl_nats(output.mean, output.logvar).double().sum())
            units.add(output.mean)
        n = len(self._val)
        recon, kl = recon / n, kl / n
        capacity = loss.capacity_at(epoch)
        means = torch.tensor([recon, kl], dtype=torch.float64)
        return {
            "val_loss": float(total_loss(means[0], means[1], loss.beta, loss.capacity)),
            "val_recon": recon,
            "val_kl": kl,
            "beta": loss.beta_at(epoch),
            "capacity": capacity,
            **({"kl_over_capacity": kl / capacity} if capacity else {}),
            "active_units": float(units.count()),
            "prior_recon_ratio": self._prior_recon_ratio(),
        }

    def warnings(self, history: Sequence[Mapping[str, float]]) -> Sequence[str]:
        """Return what holds now of ``vae_diagnostics``."""
        found = collapse_warnings(history)
        if self.model.config.skip_levels:
            found += skip_warnings(history)
        return [*found, *overfitting_warnings(history)]

    def state(self) -> Mapping[str, Tensor]:
        """Return nothing: an epoch follows from the model and its number."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take nothing back."""

    def examples(self, n: int = 8) -> Examples:
        """Reconstruct some validation tiles, the same in every epoch, as ``validate`` does."""
        tiles = self._val.read(_spread(len(self._val), n))
        with torch.no_grad():
            x = self._normalized(tiles)
            mean, _, skips = self.model.encode(x)
            reconstruction = self.model.decode(mean, skips).float()
        errors = (reconstruction - x).abs().mean(1)
        shown = self.model.denormalize(reconstruction).permute(0, 2, 3, 1)
        pixels = (shown * 255).round().to(torch.uint8)
        return Examples(tiles, pixels.cpu().numpy(), errors.cpu().numpy())

    def _prior_recon_ratio(self) -> float:
        rng = torch.Generator().manual_seed(self._fit_spec.seed)  # the same noise in every epoch
        indices = _spread(len(self._val), _PROBED_TILES)
        prior = posterior = 0.0
        for tiles in in_order(self._val, indices, self._spec.batch_size):
            x = self._normalized(tiles)
            noise = torch.randn((len(x), *self.model.config.latent_shape), generator=rng)
            errors = prior_errors(self.model, x, noise.to(x.device), self._spec.loss.reconstruction)
            prior += float(errors[0].double().sum())
            posterior += float(errors[1].double().sum())
        return prior / posterior

    def _normalized(self, tiles: Tiles) -> Tensor:
        return self.model.normalize(torch.from_numpy(tiles).to(self.model.pixel_mean.device))


def check_tiles(train: TileSource, val: TileSource, model: VaeSkip96) -> None:
    """Check that there are tiles, and of the model's size.

    Raises
    ------
    InputError
        If a split has no tiles.
    ModelError
        If the model was built for another tile size.
    """
    for split, source in (("training", train), ("validation", val)):
        if not len(source):
            raise InputError(f"The {split} split has no tiles: give more slides or tiles.")
        if source.tile_px != model.config.tile_px:
            raise ModelError(
                f"The model takes tiles of {model.config.tile_px} px and the {split} tiles have "
                f"{source.tile_px} px: use tiles of one size."
            )


def shuffled_batches(
    source: TileSource, spec: AugmentSpec, batch_size: int, rng: np.random.Generator
) -> Iterator[Tiles]:
    """Yield every tile once, in random order and varied: uint8 (n, y, x, rgb)."""
    order = rng.permutation(len(source))
    return prefetched(
        _split(order, batch_size), lambda indices: augment(source.read(indices), spec, rng)
    )


def in_order(
    source: TileSource, indices: npt.NDArray[np.int64], batch_size: int
) -> Iterator[Tiles]:
    """Yield tiles as they are: uint8 (n, y, x, rgb)."""
    return prefetched(_split(indices, batch_size), source.read)


def _split(indices: npt.NDArray[np.int64], batch_size: int) -> list[npt.NDArray[np.int64]]:
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def _spread(n_tiles: int, n: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, n_tiles - 1, min(n, n_tiles)).astype(np.int64))
