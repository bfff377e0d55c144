"""Thumbnail-scale tissue masks."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

from dataflow.area_read import read_thumbnail
from dataflow.mask_files import read_mask_file
from dataflow.pen import hue_saturation, pen_mask
from dataflow.slide import SlideReader
from store_schema.errors import InputError

TissueMethod: TypeAlias = Literal["none", "otsu", "threshold", "mask"]

ASSUMED_MPP: Final = 0.5
"""Where a slide's pixel size isn't known, the mask is made as if it were scanned at 20x."""

OTSU_CEILING: Final = 0.10
"""Otsu may not go above this saturation: pale stroma, mucin and fat lie below it, and are tissue."""

_NEAR_BLACK: Final = 30  # largest channel below which saturation is noise
_SMOOTHING_PX: Final = 1.0
_MAX_SIDE_PX: Final = 4096
_CLEANING: Final = ("min_tissue_area_um2", "min_hole_area_um2", "remove_pen")


@dataclass(frozen=True)
class TissueSpec:
    """How tissue is found: the same for all slides of a run.

    Attributes
    ----------
    method
        ``none``: all of the slide counts as tissue. ``otsu``: HSV saturation above Otsu's
        threshold, which is kept between ``saturation_floor`` and ``OTSU_CEILING``. ``threshold``:
        HSV saturation above ``threshold``. ``mask``: what a mask image or GeoJSON says.
    saturation_floor
        Least saturation of tissue, 0 to 1.
    threshold
        For ``threshold``; None is the floor.
    mask_path
        For ``mask``: a file, or a folder with one file per slide, of the slide's name.
    min_tissue_area_um2
        Smaller pieces are dropped [µm²].
    min_hole_area_um2
        Smaller holes are filled [µm²].
    mask_mpp
        Wanted size of a mask pixel [µm/px]; never finer than level 0.
    remove_pen
        Whether ink is taken out (see :mod:`dataflow.pen`).
    """

    method: TissueMethod = "otsu"
    saturation_floor: float = 0.07
    threshold: float | None = None
    mask_path: str | None = None
    min_tissue_area_um2: float = 10_000.0
    min_hole_area_um2: float = 10_000.0
    mask_mpp: float = 8.0
    remove_pen: bool = True

    def __post_init__(self) -> None:
        if self.method not in ("none", "otsu", "threshold", "mask"):
            raise InputError(
                f"the tissue method {self.method!r} isn't known; use none, otsu, threshold or mask"
            )
        if (self.method == "mask") != (self.mask_path is not None):
            raise InputError("the tissue method mask and a mask file go together: give both")
        for name in ("saturation_floor", "threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"the {name.replace('_', ' ')} {value} isn't a saturation, 0 to 1")
        if self.min_tissue_area_um2 < 0 or self.min_hole_area_um2 < 0 or self.mask_mpp <= 0:
            raise InputError(
                "tissue areas can't be negative, and the mask's pixel size must be positive"
            )

    def to_json(self) -> dict[str, Any]:
        """Return what matters to the method, JSON-able: part of the grid's fingerprint."""
        everything = asdict(self)
        used: tuple[str, ...] = {
            "none": (),
            "otsu": ("saturation_floor", *_CLEANING),
            "threshold": ("saturation_floor", "threshold", *_CLEANING),
            "mask": (),  # the file's content counts, not its place: see mask_digest
        }[self.method]
        return {key: everything[key] for key in ("method", "mask_mpp", *used)}


@dataclass(frozen=True)
class TissueMask:
    """Where tissue is, with the picture that it was found on. Both begin at the slide's origin.

    Attributes
    ----------
    mask
        uint8 (y, x), 1 is tissue.
    px_level0
        Side of a pixel of mask and thumbnail [px, level 0].
    thumbnail
        uint8 (y, x, rgb).
    """

    mask: npt.NDArray[np.uint8]
    px_level0: float
    thumbnail: npt.NDArray[np.uint8]


def tissue_mask(reader: SlideReader, spec: TissueSpec) -> TissueMask:
    """Find the tissue of a slide.

    Parameters
    ----------
    reader
        The slide. Where its mpp isn't known, ``ASSUMED_MPP`` stands in for it.
    spec
        How.

    Returns
    -------
    TissueMask
        All zero for a slide without tissue.

    Raises
    ------
    ReadFailedError
        The thumbnail can't be read.
    InputError
        The mask file is missing, unreadable, or not of this slide.
    """
    info = reader.info
    mpp = info.mpp if info.mpp is not None else ASSUMED_MPP
    px_level0 = max(1.0, spec.mask_mpp / mpp, max(info.width, info.height) / _MAX_SIDE_PX)
    if spec.method == "mask":
        path = _mask_file(spec, info.path)
        given, px_level0 = read_mask_file(path, info.width, info.height, px_level0)
        thumbnail = read_thumbnail(reader, px_level0)
        rows, columns = thumbnail.shape[:2]
        # the given mask may be a pixel larger or smaller than what covers the slide
        mask = np.pad(given, ((0, rows), (0, columns)))[:rows, :columns]
        return TissueMask(mask, px_level0, thumbnail)
    thumbnail = read_thumbnail(reader, px_level0)
    if spec.method == "none":
        return TissueMask(np.ones(thumbnail.shape[:2], dtype=np.uint8), px_level0, thumbnail)
    tissue = find_tissue(thumbnail, spec, px_area_um2=(px_level0 * mpp) ** 2)
    return TissueMask(tissue.astype(np.uint8), px_level0, thumbnail)


def find_tissue(
    thumbnail: npt.NDArray[np.uint8], spec: TissueSpec, px_area_um2: float
) -> npt.NDArray[np.bool_]:
    """Find tissue on a thumbnail by saturation.

    Parameters
    ----------
    thumbnail
        uint8 (y, x, rgb).
    spec
        Its method is ``otsu`` or ``threshold``.
    px_area_um2
        Area of a pixel [µm²].

    Returns
    -------
    array
        bool (y, x).
    """
    _, saturation = hue_saturation(thumbnail)
    excluded = thumbnail.max(axis=2) < _NEAR_BLACK
    if spec.remove_pen:
        excluded |= pen_mask(thumbnail)
    saturation[excluded] = 0.0
    # widens strong tissue by about a pixel; a median would not, but loses pale, torn fragments
    saturation = ndimage.gaussian_filter(saturation, _SMOOTHING_PX)
    if spec.method == "threshold":
        threshold = spec.saturation_floor if spec.threshold is None else spec.threshold
    else:
        threshold = otsu_between(saturation[~excluded], spec.saturation_floor)
    tissue = (saturation > threshold) & ~excluded
    tissue = ~_without_small(~tissue, spec.min_hole_area_um2 / px_area_um2) & ~excluded
    return _without_small(tissue, spec.min_tissue_area_um2 / px_area_um2)


def otsu_between(saturation: npt.NDArray[np.float32], floor: float) -> float:
    """Otsu's threshold where it separates tissue from glass, else the floor.

    N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9(1), 1979. It always splits
    in two, whatever there is: on a slide full of tissue it would part dark tissue from pale, and
    on an almost empty one it would cut through the noise of the glass. So it is only believed when
    the lower class looks like glass (its mean is below the floor), and only between the floor and
    ``OTSU_CEILING``.

    Parameters
    ----------
    saturation
        float32, any shape: the pixels to be parted.
    floor
        Least saturation of tissue.

    Returns
    -------
    float
        The threshold.
    """
    if saturation.size == 0 or saturation.min() == saturation.max():
        return floor
    threshold = float(threshold_otsu(saturation))  # type: ignore[no-untyped-call]
    if float(saturation[saturation <= threshold].mean()) >= floor:
        return floor
    return min(max(threshold, floor), max(floor, OTSU_CEILING))


def _without_small(mask: npt.NDArray[np.bool_], min_px: float) -> npt.NDArray[np.bool_]:
    """Drop 4-connected pieces of fewer pixels."""
    labels, n_pieces = ndimage.label(mask)
    if n_pieces == 0:
        return mask
    keep = np.bincount(labels.ravel()) >= math.ceil(min_px)
    keep[0] = False
    kept: npt.NDArray[np.bool_] = keep[labels]
    return kept


def mask_digest(spec: TissueSpec, slide_path: str) -> str | None:
    """Return the digest of a slide's mask file, or None when the method uses none; part of the grid's fingerprint.

    Raises
    ------
    InputError
        The mask file is missing or can't be read.
    """
    if spec.method != "mask":
        return None
    path = _mask_file(spec, slide_path)
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise InputError(f"the mask {path} can't be read: {error.strerror}") from error


def _mask_file(spec: TissueSpec, slide_path: str) -> Path:
    path = Path(spec.mask_path or "")
    if not path.is_dir():
        return path
    stem = Path(slide_path).stem
    found = [p for p in sorted(path.iterdir()) if p.is_file() and p.stem == stem]
    if len(found) != 1:
        raise InputError(
            f"the folder {path} has {len(found) or 'no'} mask{'s' * (len(found) > 1)} for the slide "
            f"{stem}; it needs one, such as {stem}.png or {stem}.geojson"
        )
    return found[0]
