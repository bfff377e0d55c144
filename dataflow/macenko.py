"""Macenko's stain normalization for batches of tiles, with the evidence for and against each fit.

M. Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009. Constants,
percentiles and rounding follow torchstain, so that results agree with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch

from dataflow.optical_density import INTENSITY, OPAQUE_MAX, log_planes, mix, moments, to_pixels

ANGLE_PERCENT: Final = 1.0
"""alpha: the stain vectors lie at this and the opposite percentile of the angles."""

MIN_STAINED_PX: Final = 256
MIN_STAINED_FRACTION: Final = 0.02
MIN_EIGENVALUE_RATIO: Final = 1e-3
MIN_ANGLE_DEGREES: Final = 3.0
MIN_COMPONENT: Final = -0.05
CONCENTRATION_GAIN: Final = (0.1, 10.0)

_LOG2_INTENSITY: Final = math.log2(INTENSITY)
_BINS: Final = 8192
_MAX_CONCENTRATION: Final = 8.0
_STAINED_LOG: Final = math.log2(OPAQUE_MAX + 1.5)


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
        known = (self.max_concentrations < _MAX_CONCENTRATION).all(dim=1)
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


def fit(planes: torch.Tensor, target_concentrations: torch.Tensor | None = None) -> MacenkoFit:
    """Fit one stain basis per tile.

    Parameters
    ----------
    planes
        float32 (n, rgb, pixel) of :func:`dataflow.optical_density.log_planes`.
    target_concentrations
        float (2,): where given, a fit that would stretch a stain by more than
        ``CONCENTRATION_GAIN`` isn't trusted.

    Returns
    -------
    MacenkoFit
        Numbers of fits that aren't trusted may be meaningless, but are finite.
    """
    stained = planes.amax(dim=1) < _STAINED_LOG
    count, mean, covariance = moments(planes, stained)
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    plane = eigenvectors[:, :, [2, 1]]  # first and second principal direction (n, 3, 2)
    od_mean = _LOG2_INTENSITY - mean
    towards_stain = (plane[:, :, 0] * od_mean).sum(dim=1, keepdim=True) >= 0
    plane[:, :, 0] = torch.where(towards_stain, plane[:, :, 0], -plane[:, :, 0])

    stains = _stain_vectors(planes, stained, plane)
    inverse = _pseudo_inverse(stains)
    max_concentrations = _max_concentrations(planes, inverse)

    cosine = (stains[:, :, 0] * stains[:, :, 1]).sum(dim=1)
    gain = torch.ones_like(max_concentrations)
    if target_concentrations is not None:
        gain = target_concentrations.to(torch.float64) / max_concentrations.clamp(min=1e-12)
    return MacenkoFit(
        stains=stains,
        max_concentrations=max_concentrations,
        stained_px=count,
        stained_fraction=count / planes.shape[2],
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
    return matrix, _LOG2_INTENSITY * (1.0 - matrix.sum(dim=2))


def apply(
    planes: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor, shape: torch.Size
) -> torch.Tensor:
    """Apply an affine map of :func:`transfer` to tiles.

    Parameters
    ----------
    planes
        float32 (n, rgb, pixel) of :func:`dataflow.optical_density.log_planes`.
    matrix, bias
        (n or 1, 3, 3) and (n or 1, 3).
    shape
        (n, y, x, rgb).

    Returns
    -------
    torch.Tensor
        uint8 (n, y, x, rgb).
    """
    return to_pixels(mix(planes, matrix, bias).exp2_().clamp_(max=255.0), shape)


def fit_image(rgb: torch.Tensor) -> MacenkoFit:
    """Fit one basis to one image, uint8 (y, x, rgb): what a target is made from."""
    return fit(log_planes(rgb[None]))


def _stain_vectors(
    planes: torch.Tensor, stained: torch.Tensor, plane: torch.Tensor
) -> torch.Tensor:
    """Return unit vectors (n, 3, 2) at the extreme angles in the plane, haematoxylin (more red) first."""
    # coordinates of the optical density in the plane: (log2 Io - l) · v, an affine map of l
    axes = plane.transpose(1, 2)
    coordinates = mix(planes, -axes, _LOG2_INTENSITY * axes.sum(dim=2))
    angle = torch.atan2(coordinates[:, 1], coordinates[:, 0])  # 0 is the first principal direction
    bins = angle.add_(math.pi / 2).mul_(_BINS / math.pi)  # beyond a right angle counts as one
    share = ANGLE_PERCENT / 100.0
    extremes = _quantiles(bins, stained, (share, 1.0 - share)) * (math.pi / _BINS) - math.pi / 2
    direction = torch.stack((extremes.cos(), extremes.sin()), dim=1)  # (n, 2 axes, 2 extremes)
    vectors = plane @ direction
    redder = (vectors[:, 0, 0] > vectors[:, 0, 1])[:, None, None]
    return torch.where(redder, vectors, vectors.flip(2))


def _max_concentrations(planes: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Return the 99th percentile (n, 2) of the concentrations S⁺ OD over all pixels."""
    per_bin = _MAX_CONCENTRATION / _BINS
    per_log = inverse * (math.log(2.0) / per_bin)
    bins = mix(planes, -per_log, _LOG2_INTENSITY * per_log.sum(dim=2))
    return _quantiles(bins.view(-1, bins.shape[2]), None, (0.99,)).view(-1, 2) * per_bin


def _pseudo_inverse(stains: torch.Tensor) -> torch.Tensor:
    """(SᵀS)⁻¹Sᵀ (n, 2, 3) of unit vectors, written out; finite also for parallel vectors."""
    cosine = (stains[:, :, 0] * stains[:, :, 1]).sum(dim=1)[:, None]
    first, second = stains[:, :, 0], stains[:, :, 1]
    one, two = (first * first).sum(1, keepdim=True), (second * second).sum(1, keepdim=True)
    determinant = (one * two - cosine**2).clamp(min=1e-9)
    rows = (two * first - cosine * second, one * second - cosine * first)
    return torch.stack(rows, dim=1) / determinant[:, None]


def _quantiles(
    bins: torch.Tensor, keep: torch.Tensor | None, shares: tuple[float, ...]
) -> torch.Tensor:
    """Quantiles (row, share) of each row through a histogram: integer counts, so exact in any order.

    ``bins`` float32 (row, pixel) is overwritten; its values are in units of bins, and those
    outside 0 to ``_BINS`` count as the ends. Within a bin, values are taken as spread evenly.
    ``keep`` is bool (row, pixel).
    """
    rows = bins.shape[0]
    index = bins.clamp_(0.0, _BINS - 1).to(torch.int32)
    if keep is not None:
        index.masked_fill_(~keep, _BINS)  # one bin more, for those that don't count
    if rows > 1:
        index += torch.arange(rows, dtype=torch.int32, device=index.device)[:, None] * (_BINS + 1)
    counts = torch.bincount(index.view(-1), minlength=rows * (_BINS + 1))
    counts = counts.view(rows, _BINS + 1)[:, :_BINS].cpu()
    cumulative = counts.cumsum(dim=1)
    rank = (cumulative[:, -1:] - 1).clamp(min=0) * torch.tensor(shares, dtype=torch.float64)
    found = torch.searchsorted(cumulative, rank.floor().long(), right=True).clamp(max=_BINS - 1)
    inside = counts.gather(1, found)
    before = cumulative.gather(1, found) - inside
    return found + (rank - before + 0.5) / inside.clamp(min=1)
