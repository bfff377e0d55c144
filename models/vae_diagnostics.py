"""Whether the latent of a VAE is used: how much, by how many of its numbers, and whether the decoder would miss it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import torch
from torch import Tensor

from models.training_warnings import LASTING_EPOCHS, RISEN_LOSS, START_EPOCHS
from models.vae import VaeSkip96
from models.vae_loss import Reconstruction, reconstruction_errors

History: TypeAlias = Sequence[Mapping[str, float]]

# Burda, Grosse & Salakhutdinov (ICLR 2016, section 5.2); the numbers of a latent fall far to either side.
ACTIVE_VARIANCE: Final = 0.01
# Below C nothing pushes KL, so that what falls short of C need not be a fault: with the error summed, skips that are
# seldom missed leave a latent at 0.4 C in which nearly every number is active. Collapsed ones lie at 0.1 to 0.2.
FILLED_CAPACITY: Final = 1 / 3
# Where nothing is free (C = 0), the KL below which a tile is told by less than a bit and a half.
COLLAPSED_NATS: Final = 1.0
# z of the prior, of another tile's, or of none at all then makes errors within 5 % of those of its own.
SAME_ERROR: Final = 1.05


class ActiveUnits:
    """Counts the numbers of the latent whose posterior mean varies from tile to tile."""

    def __init__(self) -> None:
        self._n = 0
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, mean: Tensor) -> None:
        """Take in the posterior means of a batch, float (n, latent channel, cell y, cell x)."""
        flat = mean.double().flatten(1)
        self._n += len(flat)
        self._sum = self._sum + flat.sum(0)
        self._squares = self._squares + flat.square().sum(0)

    def count(self) -> int:
        """Return the numbers with a variance above 0.01 (Burda et al. 2016)."""
        if not self._n:
            return 0
        mean = torch.as_tensor(self._sum) / self._n
        variance = torch.as_tensor(self._squares) / self._n - mean.square()
        return int((variance > ACTIVE_VARIANCE).sum())


def prior_errors(
    model: VaeSkip96, x: Tensor, noise: Tensor, kind: Reconstruction
) -> tuple[Tensor, Tensor]:
    """Return the errors of reconstruction with z of the prior and with z of the posterior, the skips given.

    Parameters
    ----------
    model
        In eval mode.
    x
        float (n, 3, y, x) in normalized space.
    noise
        Of N(0, 1), as the latent: both draws are made of it, so that a posterior that is the prior gives
        the same z.
    kind
        Of the error, a mean over the elements.

    Returns
    -------
    prior, posterior
        float32 (n,).
    """
    mean, logvar, skips = model.encode(x)
    own = mean + torch.exp(0.5 * logvar) * noise
    prior, posterior = (
        reconstruction_errors(model.decode(z, skips), x, kind, "mean") for z in (noise, own)
    )
    return prior, posterior


def collapse_warnings(history: History) -> list[str]:
    """Warn of a posterior that has collapsed onto the prior.

    Parameters
    ----------
    history
        Values of every epoch, the latest last, as ``VaeTraining.validate`` returns them.
    """
    late = history[-LASTING_EPOCHS:]
    if len(late) < LASTING_EPOCHS or any(epoch["beta"] == 0 for epoch in late):
        return []
    now, capacity = late[-1], late[-1]["capacity"]
    # nats alone don't tell: a posterior that is the same for every tile can lie C nats off the prior
    silent = all(epoch["active_units"] == 0 for epoch in late)
    unfilled = all(
        epoch["val_kl"] < (FILLED_CAPACITY * epoch["capacity"] or COLLAPSED_NATS) for epoch in late
    )
    if not (silent or unfilled):
        return []
    free = f" of the {capacity:.0f} that cost nothing" if capacity else ""
    return [
        f"posterior collapse: the latent holds {now['val_kl']:.1f} nats a tile{free}, and "
        f"{now['active_units']:.0f} of its numbers vary from tile to tile; drop more of the skips or have fewer "
        "of them, lower beta, or sum the reconstruction error instead of averaging it"
    ]


def skip_warnings(history: History) -> list[str]:
    """Warn of skips that carry everything; ``history`` as for ``collapse_warnings``.

    Every training begins with a latent that says nothing, so that it takes more epochs to tell.
    """
    late = [epoch["prior_recon_ratio"] for epoch in history[-START_EPOCHS:]]
    if len(late) < START_EPOCHS or max(late) > SAME_ERROR:
        return []
    return [
        f"skips carry everything: with z drawn from the prior the reconstruction error is {late[-1]:.3f} of that "
        "with a tile's own z, so the decoder doesn't look at the latent; drop more of the skips or have fewer of them"
    ]


def overfitting_warnings(history: History) -> list[str]:
    """Warn when validation tiles have long been reconstructed worse while training tiles got better.

    The losses themselves can't tell: training pays for dropped skips, noise and the epoch's own β and C.
    """
    val = [values["val_recon"] for values in history]
    best = min(range(len(val)), key=val.__getitem__)
    risen = min(val[best + LASTING_EPOCHS :], default=0.0) > RISEN_LOSS * val[best]
    now, then = history[-1]["train_recon"], history[best]["train_recon"]
    if not risen or now >= then:
        return []
    return [
        f"overfitting: the reconstruction error of validation tiles has risen from {val[best]:.3f} (epoch "
        f"{best + 1}) to {val[-1]:.3f} while that of training tiles fell from {then:.3f} to {now:.3f}; use early "
        "stopping or more tiles"
    ]
