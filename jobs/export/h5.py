"""Features as HDF5 in the layout of CLAM and TRIDENT, one file a slide.

Both have ``features`` (tile, feature) and ``coords`` (tile, 2), x and y of the corners [px, level 0]; the attributes of
``coords`` are TRIDENT's (``trident.IO.coords_to_h5``): ``patch_size`` and ``overlap`` [px at the target magnification],
``patch_size_level0``, ``level0_magnification``, ``target_magnification``, ``level0_width``, ``level0_height``,
``name``. Magnification is nominal, 10 / mpp: 0.25 µm/px is 40. Ours are what these can't say, so that an
import makes the same grid again, or finds it: ``stride_level0``, which need be no whole number, ``level0_mpp`` and
``target_mpp`` [µm/px], and ``grid``, its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from dataflow.physical_size import OBJECTIVE_TIMES_MPP
from jobs.counted import counted
from jobs.export.each_slide import Exported, export_slides
from jobs.export.h5_sink import new_h5
from jobs.export.whole_file import whole_file
from jobs.run_places import grid_with, lacking, slides_with
from store_schema import names
from store_schema.errors import NotInStoreError
from store_schema.slide_view import SlideView
from store_schema.store import Store

STRIDE: Final = "stride_level0"
Dtype: TypeAlias = Literal["float32", "stored"]


@dataclass(frozen=True)
class H5Settings:
    """What is exported.

    Attributes
    ----------
    out
        Folder of the files, ``<slide id>.h5``.
    features
        Name of the features.
    grid
        None takes the only grid that has them.
    slides
        Only these; empty takes all that have them.
    overwrite
        Replace files that are there already.
    dtype
        ``float32``, which every reader can compute with, or as they are ``stored``.
    """

    out: Path
    features: str
    grid: str | None = None
    slides: tuple[str, ...] = ()
    overwrite: bool = False
    dtype: Dtype = "float32"


def export_h5(
    store: Store, settings: H5Settings, done: Callable[[Exported], None] = lambda _: None
) -> list[Exported]:
    """Write one feature file a slide; a slide that can't be exported does not stop the others.

    Parameters
    ----------
    store
        Where the features are.
    settings
        What to export.
    done
        Is told of each slide, in order.

    Raises
    ------
    NotInStoreError
        A slide was named that the store hasn't, or no slide has the features.
    """
    slides = slides_with(store, names.FEATURES, settings.features, settings.grid, settings.slides)
    return export_slides(slides, lambda slide: _export(slide, settings), done)


def _export(slide: SlideView, settings: H5Settings) -> Exported:
    grid = grid_with(slide, names.FEATURES, settings.features, settings.grid)
    if grid is None:
        where, run = f"slide {slide.slide_id}", settings.features
        raise NotInStoreError(lacking(where, [slide], names.FEATURES, run, settings.grid))
    group = slide.block_group(grid, names.FEATURES, settings.features)
    group.require_complete()
    table = slide.tile_table(grid)
    spec = group.arrays[names.FEATURES]
    shape = (len(table), *spec.shape)
    path = settings.out / f"{slide.slide_id}.h5"
    with (
        whole_file(path, overwrite=settings.overwrite) as part,
        new_h5(part) as file,
    ):
        features = file.create_dataset(
            names.FEATURES,
            shape,
            np.dtype(spec.dtype if settings.dtype == "stored" else settings.dtype),
            chunks=(min(max(shape[0], 1), group.block_tiles), *spec.shape),
            maxshape=(None, *spec.shape),
        )
        for block in range(group.n_blocks):
            features[group.block_slice(block)] = group.read_array(names.FEATURES, block)
        features.attrs.update({"name": slide.slide_id, "encoder": settings.features})
        corners = np.stack([table.x, table.y], axis=1).astype(np.int64)
        coords = file.create_dataset("coords", data=corners, maxshape=(None, 2))
        coords.attrs.update(_coords_attrs(slide, grid))
    return Exported(slide.slide_id, (path,), counted(shape[0], "tile"))


def _coords_attrs(slide: SlideView, grid: str) -> dict[str, Any]:
    record, attrs = slide.record, slide.grid_attrs(grid)
    spec, geometry = attrs[names.SPEC], attrs[names.GEOMETRY]
    said: dict[str, Any] = {
        "patch_size": spec["tile_px"],
        "patch_size_level0": geometry["tile_level0"],
        "overlap": spec["tile_px"] - spec["stride_px"],
        "name": slide.slide_id,
        "level0_width": record.width,
        "level0_height": record.height,
        STRIDE: float(geometry["stride_level0"]),
        "grid": grid,
    }
    if record.mpp is not None:
        said["level0_magnification"] = _magnification(record.mpp)
        said["level0_mpp"] = record.mpp
    if spec["mpp"] is not None:
        said["target_magnification"] = _magnification(spec["mpp"])
        said["target_mpp"] = spec["mpp"]
    return said


def _magnification(mpp: float) -> float:
    """Return the magnification that a pixel size stands for, as a whole number where it is one."""
    value = OBJECTIVE_TIMES_MPP / mpp
    return round(value) if abs(value - round(value)) < 1e-9 * value else value
