"""Macenko's stain normalization for batches of tiles, with the evidence for and against each fit.

M. Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009. Constants,
percentiles and rounding follow torchstain, so that results agree with it. Here is the algebra, in
float64 on the CPU; what has to look at pixels is behind :class:`~dataflow.pixel_passes.PixelPasses`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from dataflow.optical_density import LOG2_INTENSITY
from dataflow.pixel_passes import BINS, MAX_CONCENTRATION, PixelPasses, pixel_passes

ANGLE_PERCENT: Final = 1.0
"""alpha: the stain vectors lie at this and the opposite percentile of the angles."""

MIN_STAINED_PX: Final = 256
MIN_STAINED_FRACTION: Final = 0.02
MIN_EIGENVALUE_RATIO: Final = 1e-3
MIN_ANGLE_DEGREES: Final = 3.0
MIN_COMPONENT: Final = -0.05
CONCENTRATION_GAIN: Final = (0.1, 10.0)
_HIGH_CONCENTRATION: Final = 0.99


@dataclass(frozen=True)
class MacenkoFit:
    """Stain bases of a batch, and how far each can be trusted. All on the CPU, float64.

    Attributes
    ----------
    stains
        (n, 3, 2): unit optical-density vectors of haematoxylin and eosin, rows are r, g, b.
    max_concentrations
        (n, 2): 99th percentile of the concentrations.
    stained_px
        (n,): pixels that are not transparent in any channel.
    stained_fraction
        (n,): the same as a fraction of all pixels.
    eigenvalue_ratio
        (n,): second to first eigenvalue of the covariance; near 0, there is one colour and no
        plane of two stains.
    angle_degrees
        (n,): between the two stain vectors.
    gain
        (n, 2): the target's concentrations over those of the tile; 1 without a target.
    """

    stains: torch.Tensor
    max_concentrations: torch.Tensor
    stained_px: torch.Tensor
    stained_fraction: torch.Tensor
    eigenvalue_ratio: torch.Tensor
    angle_degrees: torch.Tensor
    gain: torch.Tensor

    @property
    def checks(self) -> dict[str, torch.Tensor]:
        """What can speak against a fit → bool (n,), whether it passes."""
        low, high = CONCENTRATION_GAIN
        enough = self.stained_px >= MIN_STAINED_PX
        # in the last bin lies all that is larger too
        known = (self.max_concentrations < MAX_CONCENTRATION * (1 - 1 / BINS)).all(dim=1)
        return {
            "too few stained pixels": enough & (self.stained_fraction >= MIN_STAINED_FRACTION),
            "only one colour": self.eigenvalue_ratio >= MIN_EIGENVALUE_RATIO,
            "stain vectors too close to each other": self.angle_degrees >= MIN_ANGLE_DEGREES,
            "stain vectors that no dye has": (self.stains >= MIN_COMPONENT).flatten(1).all(dim=1),
            "implausible stain concentrations": known
            & ((self.gain >= low) & (self.gain <= high)).all(dim=1),
        }

    @property
    def trusted(self) -> torch.Tensor:
        """Bool (n,): whether all the evidence is good enough."""
        return torch.stack(list(self.checks.values())).all(dim=0)

    def objections(self, index: int) -> list[str]:
        """Return what speaks against one fit."""
        return [text for text, passed in self.checks.items() if not bool(passed[index])]


def fit(passes: PixelPasses, target_concentrations: torch.Tensor | None = None) -> MacenkoFit:
    """Fit one stain basis per tile.

    Parameters
    ----------
    passes
        The tiles, from :func:`~dataflow.pixel_passes.pixel_passes`.
    target_concentrations
        float (2,): where given, a fit that would stretch a stain by more than
        ``CONCENTRATION_GAIN`` isn't trusted.

    Returns
    -------
    MacenkoFit
        Numbers of fits that aren't trusted may be meaningless, but are finite.
    """
    count, mean, covariance = passes.moments()
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    plane = eigenvectors[:, :, [2, 1]]  # first and second principal direction (n, 3, 2)
    od_mean = LOG2_INTENSITY - mean
    towards_stain = (plane[:, :, 0] * od_mean).sum(dim=1, keepdim=True) >= 0
    plane[:, :, 0] = torch.where(towards_stain, plane[:, :, 0], -plane[:, :, 0])

    stains = _stain_vectors(passes, plane)
    max_concentrations = passes.high_concentrations(_pseudo_inverse(stains), _HIGH_CONCENTRATION)

    cosine = (stains[:, :, 0] * stains[:, :, 1]).sum(dim=1)
    gain = torch.ones_like(max_concentrations)
    if target_concentrations is not None:
        gain = target_concentrations.to(torch.float64) / max_concentrations.clamp(min=1e-12)
    return MacenkoFit(
        stains=stains,
        max_concentrations=max_concentrations,
        stained_px=count,
        stained_fraction=count / passes.tile_px,
        eigenvalue_ratio=eigenvalues[:, 1] / eigenvalues[:, 2].clamp(min=1e-12),
        angle_degrees=torch.rad2deg(torch.acos(cosine.clamp(-1.0, 1.0))),
        gain=gain,
    )


def transfer(
    stains: torch.Tensor,
    max_concentrations: torch.Tensor,
    target_stains: torch.Tensor,
    target_concentrations: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fold a basis and a target into one affine map of log intensities.

    ``Io * exp(-T diag(t / c) S⁺ OD)`` with ``OD = ln Io - ln(p + 1)`` is ``2 ** (A l + b)`` with
    ``A = T diag(t / c) S⁺`` and ``b = log2(Io) (1 - A 1)``.

    Parameters
    ----------
    stains, max_concentrations
        (n, 3, 2) and (n, 2) of the tiles.
    target_stains, target_concentrations
        (3, 2) and (2,) of the target.

    Returns
    -------
    tuple of torch.Tensor
        A (n, 3, 3) and b (n, 3), float64.
    """
    gain = target_concentrations / max_concentrations.clamp(min=1e-12)
    matrix = (target_stains * gain[:, None, :]) @ _pseudo_inverse(stains)
    return matrix, LOG2_INTENSITY * (1.0 - matrix.sum(dim=2))


def fit_image(rgb: torch.Tensor) -> MacenkoFit:
    """Fit one basis to one image, uint8 (y, x, rgb): what a target is made from."""
    return fit(pixel_passes(rgb[None]))


def _stain_vectors(passes: PixelPasses, plane: torch.Tensor) -> torch.Tensor:
    """Return unit vectors (n, 3, 2) at the extreme angles in the plane, haematoxylin (more red) first."""
    slants = passes.extreme_slants(plane.transpose(1, 2), ANGLE_PERCENT / 100.0)
    direction = torch.stack((1.0 - slants.abs(), slants), dim=1)  # (n, 2 axes, 2 extremes)
    vectors = plane @ (direction / direction.norm(dim=1, keepdim=True))
    redder = (vectors[:, 0, 0] > vectors[:, 0, 1])[:, None, None]
    return torch.where(redder, vectors, vectors.flip(2))


def _pseudo_inverse(stains: torch.Tensor) -> torch.Tensor:
    """(SᵀS)⁻¹Sᵀ (n, 2, 3) of unit vectors, written out; finite also for parallel vectors."""
    cosine = (stains[:, :, 0] * stains[:, :, 1]).sum(dim=1)[:, None]
    first, second = stains[:, :, 0], stains[:, :, 1]
    one, two = (first * first).sum(1, keepdim=True), (second * second).sum(1, keepdim=True)
    determinant = (one * two - cosine**2).clamp(min=1e-9)
    rows = (two * first - cosine * second, one * second - cosine * first)
    return torch.stack(rows, dim=1) / determinant[:, None]
