"""The files of a segmented slide: mask PNG, confidence NPZ, overlay, metadata JSON."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataflow.ground import read_ground
from dataflow.heat_colours import HeatmapStyle
from dataflow.heat_layers import Outline
from dataflow.heatmap import LONG_SIDE_PX, heatmap_picture
from jobs.export.mask_classes import mask_classes
from jobs.export.whole_file import whole_file
from jobs.heat_regions import MASK_COLOUR
from jobs.heat_sources import heat_source
from jobs.pbip.confidence import Confidence
from jobs.raster_reader import RasterChoice, read_raster
from jobs.run_directory import write_whole
from store_schema import names
from store_schema.slide_view import SlideView

MASK_PNG: Final = "segmentation_mask.png"
CONFIDENCE_NPZ: Final = "confidence_maps.npz"
OVERLAY_PNG: Final = "visualization.png"
METADATA: Final = "metadata.json"
UNKNOWN: Final = 255
"""In the PNG, of pixels that no tile covers."""

_BAND_PX: Final = 1024
_WHITE: Final = (255, 255, 255)
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever it is written


@dataclass(frozen=True)
class SegmentedRasters:
    """What a slide was segmented into, in the store.

    Attributes
    ----------
    confidence
        Of the classes, stitched or refined by a CRF.
    mask_name
        Of the ``masks/<name>`` that has the final mask.
    background
        Position of the class that isn't outlined.
    """

    confidence: Confidence
    mask_name: str
    background: int

    @property
    def slide(self) -> SlideView:
        """The slide."""
        return self.confidence.slide

    @property
    def made_from(self) -> dict[str, str]:
        """Fingerprints of what is in the files."""
        attrs = self.slide.run_attrs(self.confidence.grid, names.MASKS, self.mask_name)
        return {
            "confidence": self.confidence.fingerprint,
            "mask": str(attrs[names.FINGERPRINT]),
        }

    def mask(self) -> npt.NDArray[np.uint8]:
        """Return the mask, uint8 (y, x): 0 where there is nothing, else 1 + class."""
        choice = RasterChoice(self.mask_name, names.MASK, grid=self.confidence.grid)
        values: npt.NDArray[np.uint8] = read_raster(self.slide, choice).read()[0]
        return values


def stored_metadata(folder: Path, rasters: SegmentedRasters) -> dict[str, Any] | None:
    """Return the metadata of a slide whose files are all there and made of just this; else None."""
    if not all((folder / name).is_file() for name in (MASK_PNG, CONFIDENCE_NPZ, OVERLAY_PNG)):
        return None
    try:
        found = json.loads((folder / METADATA).read_text())
    except (OSError, ValueError):  # not there, or damaged: files are made anew
        return None
    matches = isinstance(found, dict) and found.get("made_from") == rasters.made_from
    return found if matches else None


def write_files(folder: Path, rasters: SegmentedRasters, said: Mapping[str, Any]) -> dict[str, Any]:
    """Write the files of a slide; the metadata comes last, and tells that the others are whole.

    Parameters
    ----------
    folder
        Of the slide.
    rasters
        What is written.
    said
        Further metadata, JSON-able.

    Returns
    -------
    dict
        The metadata.

    Raises
    ------
    InputError, StorageError
        A file can't be written.
    """
    started = time.perf_counter()
    mask = rasters.mask()
    counts = np.bincount(mask.ravel(), minlength=1 + len(rasters.confidence.class_names))
    with whole_file(folder / MASK_PNG, overwrite=True) as part:
        _mask_picture(mask, rasters).save(part, "PNG")
    with whole_file(folder / CONFIDENCE_NPZ, overwrite=True) as part:
        write_npz(part, rasters.confidence)
    with whole_file(folder / OVERLAY_PNG, overwrite=True) as part:
        _overlay(mask, counts, rasters).save(part, "PNG")
    stages = {**said["seconds"], "files": round(time.perf_counter() - started, 3)}
    metadata = {
        **said,
        "seconds": stages,
        "processing_time_sec": round(sum(stages.values()), 3),
        **_facts(counts, rasters),
        "made_from": rasters.made_from,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_whole(folder / METADATA, json.dumps(metadata, indent=2) + "\n")
    return metadata


def write_npz(path: Path, confidence: Confidence) -> None:
    """Write confidence as a compressed NPZ, band by band.

    ``class_0``, ``class_1`` … are float16 (y, x) as stored, NaN where nothing is known.
    """
    shape = confidence.shape
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(len(confidence.class_names)):
            entry = zipfile.ZipInfo(f"class_{number}.npy", _ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for top in range(0, shape[0], _BAND_PX):
                    rows = slice(top, min(top + _BAND_PX, shape[0]))
                    band = confidence.read_class((rows, slice(0, shape[1])), number)
                    file.write(band.astype("<f2").tobytes())


def _mask_picture(mask: npt.NDArray[np.uint8], rasters: SegmentedRasters) -> Image.Image:
    """Return the mask with class indices as values and a palette to look at it."""
    picture = Image.fromarray(mask - np.uint8(1))  # 0, nothing, becomes 255
    picture.putpalette(
        [
            level
            for value in range(256)
            for level in (_WHITE if value == UNKNOWN else _colour(rasters, value))
        ]
    )
    return picture


def _colour(rasters: SegmentedRasters, number: int) -> tuple[int, int, int]:
    path_class = mask_classes(rasters.confidence.mask_spec().attrs, "")(number + 1)
    return _WHITE if path_class is None else path_class.colour


def _overlay(
    mask: npt.NDArray[np.uint8], counts: npt.NDArray[np.int64], rasters: SegmentedRasters
) -> Image.Image:
    """Draw the confidence of the class that covers most, background aside, and the outlines of all such classes."""
    confidence = rasters.confidence
    regions = [n for n in range(len(confidence.class_names)) if n != rasters.background]
    shown = max(regions or [rasters.background], key=lambda n: int(counts[n + 1]))
    choice = RasterChoice(
        confidence.name, names.CONFIDENCE, confidence.class_names[shown], confidence.grid
    )
    source = heat_source(rasters.slide, choice, LONG_SIDE_PX)
    px = confidence.px_level0
    outlines = [
        Outline(
            (mask == number + 1).astype(np.uint8),
            (px, px),
            # the one region there is, as masks on heatmaps
            MASK_COLOUR if len(regions) == 1 else _colour(rasters, number),
            confidence.class_names[number],
            cased=True,
        )
        for number in regions
        if counts[number + 1]
    ]
    known = max(1, int(counts[1:].sum()))
    shares = ",  ".join(
        f"{name} {counts[n + 1] / known:.1%}" for n, name in enumerate(confidence.class_names)
    )
    lines = [source.numbers, f"{names.MASKS}/{rasters.mask_name}:  {shares} of what was segmented"]
    ground = read_ground(rasters.slide.record, LONG_SIDE_PX)
    style = HeatmapStyle(limits=(0.0, 1.0))
    title = rasters.slide.slide_id
    return heatmap_picture(title, lines, ground, source.layer, outlines, style)


def _facts(counts: npt.NDArray[np.int64], rasters: SegmentedRasters) -> dict[str, Any]:
    confidence, record = rasters.confidence, rasters.slide.record
    areas: dict[str, float] | None = None
    if record.mpp is not None:
        mm2 = (confidence.px_level0 * record.mpp / 1000) ** 2
        areas = {
            name: round(float(counts[n + 1]) * mm2, 6)
            for n, name in enumerate(confidence.class_names)
        }
    rows, columns = confidence.shape
    return {
        "class_order": list(confidence.class_names),
        "background": confidence.class_names[rasters.background],
        "pixels": {name: int(counts[n + 1]) for n, name in enumerate(confidence.class_names)},
        "area_mm2": areas,
        "shape": [rows, columns],
        "px_level0": confidence.px_level0,
        "mpp": None if record.mpp is None else confidence.px_level0 * record.mpp,
        "outside": UNKNOWN,
        "segmentation_mask": MASK_PNG,
        "confidence_maps": CONFIDENCE_NPZ,
        "visualization": OVERLAY_PNG,
        "mask_in_store": f"{names.MASKS}/{rasters.mask_name}/{names.MASK}",
        "confidence_in_store": f"{names.MASKS}/{confidence.name}/{names.CONFIDENCE}",
    }
