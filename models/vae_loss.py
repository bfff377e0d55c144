"""The loss of the VAE: reconstruction + β · max(KL - C, 0), and how β and C grow over the epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from store_schema.errors import InputError

Reconstruction: TypeAlias = Literal["l1", "l2"]
Reduction: TypeAlias = Literal["mean", "sum"]


@dataclass(frozen=True)
class VaeLossSpec:
    """What the VAE minimises.

    Attributes
    ----------
    reconstruction
        ``l1``: |x̂ - x|, of a Laplace likelihood; ``l2``: (x̂ - x)², of a normal one; in normalized space.
    reduction
        ``mean`` of the elements of a tile, or their ``sum``. KL is in nats a tile either way, so that
        the sum is the scale of the evidence bound, and the mean weighs KL 3 · tile_px² times as much
        (27,648 times for 96 px).
    beta
        Weight of the KL above the capacity, once warm.
    beta_warmup_epochs
        Epochs over which β rises linearly from 0; the first one has none.
    capacity
        C, the nats a tile that cost nothing, in the end (Burgess et al. 2018).
    capacity_epochs
        Epochs over which C rises linearly from 0.
    denoise_sigma
        Deviation of the normal noise that is added to a training input, in normalized space; what is to
        be reconstructed is the clean tile.
    """

    reconstruction: Reconstruction = "l1"
    reduction: Reduction = "mean"
    beta: float = 1.0
    beta_warmup_epochs: int = 5
    capacity: float = 120.0
    capacity_epochs: int = 20
    denoise_sigma: float = 0.03

    def __post_init__(self) -> None:
        if min(self.beta, self.capacity, self.denoise_sigma) < 0:
            raise InputError("beta, the capacity and the denoising sigma can't be negative.")
        if min(self.beta_warmup_epochs, self.capacity_epochs) < 0:
            raise InputError("The epochs of warm-up can't be negative: give 0 for none.")

    def beta_at(self, epoch: int) -> float:
        """Return β of an epoch, from 0."""
        return self.beta * _risen(epoch, self.beta_warmup_epochs)

    def capacity_at(self, epoch: int) -> float:
        """Return C of an epoch [nats a tile], from 0."""
        return self.capacity * _risen(epoch, self.capacity_epochs)


def _risen(epoch: int, over_epochs: int) -> float:
    return 1.0 if epoch >= over_epochs else epoch / over_epochs


def reconstruction_errors(
    reconstruction: Tensor, x: Tensor, kind: Reconstruction, reduction: Reduction
) -> Tensor:
    """Return float32 (n,), the error of each tile.

    Parameters
    ----------
    reconstruction, x
        float (n, 3, y, x) in normalized space.
    kind, reduction
        See ``VaeLossSpec``.
    """
    difference = reconstruction.float() - x
    errors = difference.abs() if kind == "l1" else difference.square()
    return errors.mean((1, 2, 3)) if reduction == "mean" else errors.sum((1, 2, 3))


def kl_nats(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return float32 (n,), KL(N(mean, exp(logvar)) ‖ N(0, 1)) of each tile [nats].

    ½ Σ (mean² + exp(logvar) - 1 - logvar) over the latent's numbers (Kingma & Welling 2014, appendix B).

    Parameters
    ----------
    mean, logvar
        float (n, latent channel, cell y, cell x).
    """
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum((1, 2, 3))


def total_loss(reconstruction: Tensor, kl: Tensor, beta: float, capacity: float) -> Tensor:
    """Return reconstruction + β · max(KL - C, 0), of the means of a batch.

    Parameters
    ----------
    reconstruction, kl
        Scalars: means over the tiles. That a tile that is hard to tell takes more than C nats is
        allowed, as long as others take less (as in Burgess et al. 2018).
    beta, capacity
        Of the epoch.
    """
    return reconstruction + beta * torch.relu(kl - capacity)
