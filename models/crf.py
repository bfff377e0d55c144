"""A conditional random field over pixels: confidence follows the edges of the picture below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from store_schema.errors import InputError

# Raised when the same settings lead to other numbers.
CRF_VERSION: Final = 2

# No class is impossible to begin with: a confidence of 0 is 14 nat below one of 1.
_LEAST_SHARE: Final = 1e-6
_MOST_RADIUS_PX: Final = 32
# Neighbours of less weight than this, all together, say nothing: colours as far apart as black and white, whose
# kernel is below what float32 can tell from 0. The value is Krähenbühl's.
_LEAST_KERNEL: Final = 1e-20


@dataclass(frozen=True)
class CrfSpec:
    """A dense CRF whose messages end at the window of a pixel.

    The energy and its mean-field update are those of Krähenbühl and Koltun ("Efficient Inference in Fully Connected
    CRFs with Gaussian Edge Potentials", NeurIPS 2011, eq. 1 to 3 and algorithm 1) with the Potts model; that pixels
    farther apart than a window don't see each other, so that messages are exact sums and not approximated, is the
    convolutional CRF of Teichmann and Cipolla ("Convolutional CRFs for Semantic Segmentation", BMVC 2019,
    arXiv:1805.04777). With the share q_i(c) of class c at pixel i, and pixels j within ``radius_px`` rows and columns:

    - b_ij = exp(-|p_i - p_j|² / 2 bilateral_px² - |I_i - I_j|² / 2 colour²), s_ij = exp(-|p_i - p_j|² / 2 spatial_px²)
    - m_i(c) = bilateral_weight · Σ_j b_ij q_j(c) / (ε + Σ_j b_ij)
      + spatial_weight · Σ_j s_ij q_j(c) / (ε + Σ_j s_ij), j ≠ i
    - q_i(c) ← softmax_c(log u_i(c) + m_i(c)), u the confidence, brought to a sum of 1 over the classes
    - ε = 1e-20

    The sums in the denominators are what Krähenbühl's code calls ``NORMALIZE_AFTER``. By them a weight is the most that
    neighbours can say, in nat, whatever the window and however few of its pixels are known.

    Attributes
    ----------
    iterations
        Updates, all pixels at once.
    radius_px
        How far a pixel sees along rows and columns; its window is ``2 · radius_px + 1`` pixels a side.
    bilateral_weight, spatial_weight
        What all neighbours together say at most [nat]; 0 leaves the kernel out.
    bilateral_px, spatial_px
        Standard deviations in place [px].
    colour
        Standard deviation in colour [of 255 levels], of the Euclidean distance of RGB.
    """

    iterations: int = 5
    radius_px: int = 5
    bilateral_weight: float = 4.0
    bilateral_px: float = 4.0
    colour: float = 20.0
    spatial_weight: float = 2.0
    spatial_px: float = 1.5

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 1 <= self.radius_px <= _MOST_RADIUS_PX:
            raise InputError(
                f"A CRF takes at least one iteration and a radius of 1 to {_MOST_RADIUS_PX} px, not "
                f"{self.iterations} and {self.radius_px}: give others."
            )
        if min(self.bilateral_px, self.colour, self.spatial_px) <= 0:
            raise InputError("The deviations of a CRF's kernels are positive: give others.")
        if min(self.bilateral_weight, self.spatial_weight) < 0:
            raise InputError("The weights of a CRF's kernels aren't negative: give others.")

    @property
    def margin_px(self) -> int:
        """How far the pixels lie that decide a pixel: with such a margin a part comes out as in the whole."""
        return self.iterations * self.radius_px

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides the result, JSON-able."""
        return {"method": "crf", **asdict(self), "crf_version": CRF_VERSION}


def refined(
    confidence: npt.NDArray[np.floating[Any]],
    image: npt.NDArray[np.uint8],
    spec: CrfSpec,
    device: str = "cpu",
) -> npt.NDArray[np.float32]:
    """Refine the confidence of a picture, or of a part of it.

    Of a part, pixels within ``spec.margin_px`` of its cut edges differ from those of the whole; all others are the
    same to the bit. It takes about ``2 · (radius_px + 1)² · 4`` bytes a pixel.

    Parameters
    ----------
    confidence
        float (class, y, x), not negative; NaN where nothing is known. Such pixels say nothing to others.
    image
        uint8 (y, x, rgb) on the same pixels.
    spec
        The field.
    device
        Where it is computed, e.g. ``cpu`` or ``cuda``.

    Returns
    -------
    ndarray
        float32 (class, y, x): shares that sum to 1; NaN where nothing is known.

    Raises
    ------
    InputError
        There is but one class.
    ValueError
        The two are of other sizes.
    """
    n_classes, *size = confidence.shape
    if n_classes < 2:
        raise InputError(
            "A CRF decides between classes, and there is but one: leave it out, or train with two."
        )
    if image.shape != (*size, 3):
        raise ValueError(f"confidence of {size} px and a picture of {image.shape}")
    with torch.inference_mode():
        given = torch.from_numpy(confidence.astype(np.float32)).to(device)
        known = torch.isfinite(given).all(dim=0)
        share = torch.where(known, given, 0.0).clamp_min_(_LEAST_SHARE)
        share = share / _sum(share)
        log_share = share.log()
        share = share * known
        field = _Field(torch.from_numpy(image).to(device).float(), known.float(), spec)
        for _ in range(spec.iterations):
            share = _softmax(log_share + field.messages(share)) * known
        return torch.where(known, share, torch.nan).cpu().numpy()


class _Field:
    """The kernels of one picture, and what neighbours say by them."""

    def __init__(self, image: Tensor, known: Tensor, spec: CrfSpec) -> None:
        self._spec = spec
        ones = known[None]
        self._bilateral = list(_bilateral(image, known, spec)) if spec.bilateral_weight else []
        self._bilateral_sum = self._bilateral_said(ones) + _LEAST_KERNEL
        self._spatial = _gaussian(spec.spatial_px, spec.radius_px)
        self._spatial_sum = self._spatial_said(ones) + _LEAST_KERNEL

    def messages(self, share: Tensor) -> Tensor:
        """Return m (class, y, x) [nat] of shares that are 0 where nothing is known."""
        spec = self._spec
        said = torch.zeros_like(share)
        if spec.bilateral_weight:
            said += spec.bilateral_weight * self._bilateral_said(share) / self._bilateral_sum
        if spec.spatial_weight:
            said += spec.spatial_weight * self._spatial_said(share) / self._spatial_sum
        return said

    def _bilateral_said(self, share: Tensor) -> Tensor:
        said = torch.zeros_like(share)
        for here, there, weight in self._bilateral:  # one pair of pixels, told in both directions
            said[(..., *here)].addcmul_(weight, share[(..., *there)])
            said[(..., *there)].addcmul_(weight, share[(..., *here)])
        return said

    def _spatial_said(self, share: Tensor) -> Tensor:
        """Sum over the window by rows, then by columns, and take the pixel itself out."""
        along_rows = _shifted_sum(share, self._spatial, -1)
        return (_shifted_sum(along_rows, self._spatial, -2) - share).clamp_min_(0.0)


Box = tuple[slice, slice]


def _bilateral(image: Tensor, known: Tensor, spec: CrfSpec) -> Iterator[tuple[Box, Box, Tensor]]:
    """Yield for each half of the window's places: the pixels, those so far away, and their kernel b (y, x)."""
    rows, columns = known.shape
    radius = spec.radius_px
    for dy in range(radius + 1):
        for dx in range(-radius if dy else 1, radius + 1):
            if dy >= rows or abs(dx) >= columns:
                continue
            here = slice(0, rows - dy), slice(max(0, -dx), columns - max(0, dx))
            there = slice(dy, rows), slice(max(0, dx), columns - max(0, -dx))
            apart = (image[here] - image[there]).square_().sum(dim=-1)
            apart /= -2 * spec.colour**2
            apart -= (dy**2 + dx**2) / (2 * spec.bilateral_px**2)
            yield here, there, apart.exp_() * known[here] * known[there]


def _gaussian(sigma_px: float, radius_px: int) -> list[float]:
    return [float(np.exp(-(d**2) / (2 * sigma_px**2))) for d in range(radius_px + 1)]


def _shifted_sum(values: Tensor, weights: list[float], dim: int) -> Tensor:
    """Return the sum over neighbours along a dimension, the one at distance d weighted by ``weights[d]``."""
    size = values.shape[dim]
    out = values * weights[0]
    for distance, weight in enumerate(weights[1:], start=1):
        if distance < size:
            before, after = (values.narrow(dim, start, size - distance) for start in (0, distance))
            out.narrow(dim, distance, size - distance).add_(before, alpha=weight)
            out.narrow(dim, 0, size - distance).add_(after, alpha=weight)
    return out


def _softmax(logits: Tensor) -> Tensor:
    exponential = (logits - logits.amax(dim=0)).exp_()
    return exponential / _sum(exponential)


def _sum(values: Tensor) -> Tensor:
    """Sum over classes one by one: in an order that doesn't depend on the picture's size."""
    total = values[0].clone()
    for of_class in values[1:]:
        total += of_class
    return total
