"""A mask of classes made tidy: closed or opened, its borders drawn again from the confidence that it came from.

All functions take a part of a slide with a margin, beyond which there is nothing, and their result holds within it:
so a slide that is done window by window comes out as if it were done whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from store_schema.errors import InputError

Operation: TypeAlias = Literal["closing", "opening", "none"]
Mask: TypeAlias = npt.NDArray[np.uint8]
Region: TypeAlias = npt.NDArray[np.bool_]
Confidence: TypeAlias = npt.NDArray[np.floating[Any]]

# Raised when the same settings lead to other masks.
REFINE_VERSION: Final = 1

_TRUNCATE: Final = 3.0  # of the Gaussian [sigma]


@dataclass(frozen=True)
class RefineSpec:
    """What is done to a mask, in the order of the attributes; the steps of the reference's post-processing.

    A mask has 0 where there is nothing and ``1 + class`` elsewhere. One class is the background; all others are
    regions, each handled by itself. A region grows into the background alone, and what it loses falls to the class
    that is the greatest but for its own. Where there is nothing, nothing appears.

    Attributes
    ----------
    operation
        Closing (dilation, then erosion: small gaps fill), opening (erosion, then dilation: specks and threads go).
    kernel_px
        Diameter of the disc that it is done with, odd [px]; 3 is a square.
    min_component_px
        Pieces of fewer pixels are dropped, pixels that touch at a corner being one piece; 1 keeps all.
    edge
        Whether borders are drawn again: where a pixel's distance d to the nearest one on the other side (Euclidean) is
        at most ``edge_px``, it belongs to the region if its smoothed share is at least t(d). Its share is
        ``c / (c + c')``, c the class's confidence and c' the greatest other one, smoothed by a Gaussian over what is
        known. t(d) rises linearly from ``0.5 - edge_drop`` at the border to 0.5 at the band's end.
    edge_px, edge_sigma_px, edge_drop
        Half the width of the band [px], the Gaussian's standard deviation [px], and how much lower the threshold is at
        the border.
    """

    operation: Operation = "closing"
    kernel_px: int = 3
    min_component_px: int = 100
    edge: bool = False
    edge_px: float = 3.0
    edge_sigma_px: float = 1.0
    edge_drop: float = 0.1

    def __post_init__(self) -> None:
        if self.kernel_px < 1 or self.kernel_px % 2 == 0:
            raise InputError(
                f"a kernel of {self.kernel_px} px has no middle: give an odd number, e.g. 3"
            )
        if self.min_component_px < 1:
            raise InputError("components have at least 1 px: give --min-component 1 to keep all")
        if self.edge_px < 1 or self.edge_sigma_px <= 0 or not 0 <= self.edge_drop < 0.5:
            raise InputError(
                "borders are refined within at least 1 px, by a positive deviation, with a threshold that is less "
                "than 0.5 lower: give others"
            )

    @property
    def operation_margin_px(self) -> int:
        """How far the pixels lie that decide a pixel of the closing or opening."""
        return 0 if self.operation == "none" else 2 * (self.kernel_px // 2)

    @property
    def edge_margin_px(self) -> int:
        """How far the pixels lie that decide a pixel of the refined border."""
        return max(int(np.ceil(self.edge_px)), int(_TRUNCATE * self.edge_sigma_px + 0.5))

    @property
    def does_something(self) -> bool:
        """Whether a mask could come out otherwise than it went in."""
        return self.operation != "none" or self.min_component_px > 1 or self.edge

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides the result, JSON-able."""
        return {**asdict(self), "connectivity": 8, "refine_version": REFINE_VERSION}


def greatest(confidence: Confidence) -> Mask:
    """Return 1 + the greatest class of each pixel, of equal ones the first; 0 where nothing is known.

    Parameters
    ----------
    confidence
        float (class, y, x), NaN where nothing is known.

    Returns
    -------
    ndarray
        uint8 (y, x).
    """
    known = ~np.isnan(confidence).all(axis=0)
    best = 1 + np.argmax(np.where(np.isnan(confidence), -np.inf, confidence), axis=0)
    return np.where(known, best, 0).astype(np.uint8)


def greatest_but(confidence: Confidence, value: int) -> Mask:
    """Return as :func:`greatest` does the greatest class other than ``value - 1``; confidence (class, y, x)."""
    others = np.array(confidence, np.float32)
    others[value - 1] = np.where(np.isnan(others[value - 1]), np.nan, -np.inf)
    return greatest(others)


def opened_or_closed(mask: Mask, confidence: Confidence, background: int, spec: RefineSpec) -> Mask:
    """Close or open every region; see :class:`RefineSpec`.

    Parameters
    ----------
    mask
        uint8 (y, x).
    confidence
        float (class, y, x).
    background
        Value of the background in the mask.
    spec
        What to do.

    Returns
    -------
    ndarray
        uint8 (y, x), right but for a margin of ``spec.operation_margin_px``.
    """
    if spec.operation == "none":
        return mask
    disc = _disc(spec.kernel_px)
    first, second = (
        (ndimage.binary_dilation, ndimage.binary_erosion)
        if spec.operation == "closing"
        else (ndimage.binary_erosion, ndimage.binary_dilation)
    )
    regions = {
        value: second(first(mask == value, disc), disc) for value in _values(mask, background)
    }
    return _recombined(mask, regions, lambda value: greatest_but(confidence, value), background)


def edges_refined(mask: Mask, confidence: Confidence, background: int, spec: RefineSpec) -> Mask:
    """Draw the borders of every region again; see :class:`RefineSpec`.

    Parameters
    ----------
    mask, confidence, background, spec
        As of :func:`opened_or_closed`.

    Returns
    -------
    ndarray
        uint8 (y, x), right but for a margin of ``spec.edge_margin_px``.
    """
    known = mask > 0
    regions = {}
    for value in _values(mask, background):
        share = _smoothed(_share(confidence, value), known, spec.edge_sigma_px)
        region = mask == value
        apart = np.where(region, _distance_to(known & ~region), _distance_to(region))
        # the border runs half a pixel before the nearest pixel of the other side
        nearness = np.clip(1 - (apart - 0.5) / spec.edge_px, 0, 1)
        within = apart <= spec.edge_px
        regions[value] = np.where(within, share >= 0.5 - spec.edge_drop * nearness, region)
    return _recombined(mask, regions, lambda value: greatest_but(confidence, value), background)


def replaced(mask: Mask, dropped: Region, confidence: Confidence, background: int) -> Mask:
    """Give dropped pixels of regions to the class that is the greatest but for their own.

    Parameters
    ----------
    mask, confidence, background
        As of :func:`opened_or_closed`.
    dropped
        bool (y, x).
    """
    regions = {value: (mask == value) & ~dropped for value in _values(mask, background)}
    return _recombined(mask, regions, lambda value: greatest_but(confidence, value), background)


def _recombined(
    mask: Mask, regions: Mapping[int, Region], instead: Callable[[int], Mask], background: int
) -> Mask:
    """Bring regions, each found by itself, into one mask."""
    out = mask.copy()
    for value, region in regions.items():
        lost = (mask == value) & ~region
        if lost.any():
            out[lost] = instead(value)[lost]
    for value, region in reversed(list(regions.items())):  # of several that grow there, the first
        out[(mask == background) & region] = value
    return out


def _values(mask: Mask, background: int) -> list[int]:
    return [int(value) for value in np.unique(mask) if value not in (0, background)]


def _disc(diameter_px: int) -> Region:
    radius = diameter_px // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc: Region = y**2 + x**2 <= (diameter_px / 2) ** 2
    return disc


def _share(confidence: Confidence, value: int) -> npt.NDArray[np.float32]:
    """Return c / (c + the greatest other), float32 (y, x); 0.5 where both are 0."""
    own = confidence[value - 1].astype(np.float32)
    others = np.delete(confidence, value - 1, axis=0)
    other = others.max(axis=0, initial=0.0, where=~np.isnan(others)).astype(np.float32)
    total = own + other
    share: npt.NDArray[np.float32] = np.divide(
        own, total, out=np.full_like(total, 0.5), where=total > 0
    )
    return share


def _smoothed(
    values: npt.NDArray[np.float32], known: Region, sigma_px: float
) -> npt.NDArray[np.float32]:
    """Return the Gaussian mean over known pixels."""
    sums, weights = (
        ndimage.gaussian_filter(
            part.astype(np.float32), sigma_px, mode="constant", truncate=_TRUNCATE
        )
        for part in (np.where(known, values, 0), known)
    )
    mean: npt.NDArray[np.float32] = np.divide(
        sums, weights, out=np.zeros_like(sums), where=weights > 0
    )
    return mean


def _distance_to(region: Region) -> npt.NDArray[np.float64]:
    """Return each pixel's distance to a region [px]; infinite where there is none."""
    if not region.any():
        return np.full(region.shape, np.inf)
    distance: npt.NDArray[np.float64] = ndimage.distance_transform_edt(~region)
    return distance
