"""Tiles and regions of a store as GeoJSON for QuPath, one file a slide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from dataflow.heat_colours import DEFAULT_STYLE, colours_of, scaled
from dataflow.mask_polygons import Region, mask_regions
from jobs.counted import counted
from jobs.export.each_slide import Exported, export_slides
from jobs.export.mask_classes import NEGATIVE, POSITIVE, mask_classes
from jobs.export.qupath import PathClass, region_feature, tile_feature, write_features
from jobs.export.tile_columns import TileColumns, read_tile_columns
from jobs.mask_tiles import mask_of_tiles, tile_points
from jobs.raster_reader import RasterChoice, SlideRaster, read_raster
from jobs.run_places import slides_with
from jobs.same_scores import check_same_scores
from jobs.score_reader import ScoreChoice
from store_schema import names
from store_schema.errors import InputError
from store_schema.slide_view import SlideView
from store_schema.store import Store


@dataclass(frozen=True)
class GeoJsonSettings:
    """What is exported.

    Attributes
    ----------
    out
        Folder of the files, ``<slide id>.geojson``.
    score
        Tiles with the numbers of this run; None exports no tiles. Without an array all of the run's.
    mask
        Regions of this mask of the store; None exports none. With both, tiles get the class of the mask.
    threshold
        Classify tiles by their main score instead: positive above it.
    class_name
        What positive is called.
    slides
        Only these; empty takes all that have the run, or the mask where there is no run.
    overwrite
        Replace files that are there already.
    """

    out: Path
    score: ScoreChoice | None = None
    mask: RasterChoice | None = None
    threshold: float | None = None
    class_name: str = POSITIVE.name
    slides: tuple[str, ...] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.score is None and self.mask is None:
            raise InputError("give --score for tiles, --mask for regions, or both")
        if self.threshold is not None and (self.score is None or self.mask is not None):
            raise InputError("--threshold classifies tiles by --score, where no --mask does")


def export_geojson(
    store: Store, settings: GeoJsonSettings, done: Callable[[Exported], None] = lambda _: None
) -> list[Exported]:
    """Write one GeoJSON file a slide; a slide that can't be exported does not stop the others.

    Parameters
    ----------
    store
        Where runs and masks are.
    settings
        What to export.
    done
        Is told of each slide, in order.

    Raises
    ------
    NotInStoreError
        A slide was named that the store hasn't, or no slide has the run.
    """
    if settings.score is not None:
        kind, run, grid = names.SCORES, settings.score.run, settings.score.grid
    else:
        assert settings.mask is not None
        kind, run, grid = names.MASKS, settings.mask.name, settings.mask.grid
    slides = slides_with(store, kind, run, grid, settings.slides)
    return export_slides(slides, lambda slide: _export(slide, settings), done)


def _export(slide: SlideView, settings: GeoJsonSettings) -> Exported:
    tiles = None if settings.score is None else read_tile_columns(slide, settings.score)
    mask = None if settings.mask is None else read_raster(slide, settings.mask)
    if tiles is not None and mask is not None:
        check_same_scores(mask, slide, tiles.grid, tiles.run)
    n_tiles = 0 if tiles is None else len(tiles.table)
    regions = [] if mask is None else _regions(mask)
    path = settings.out / f"{slide.slide_id}.geojson"
    # regions first: QuPath draws what comes later above
    features = _features(tiles, mask, regions, settings)
    write_features(path, features, overwrite=settings.overwrite)
    said = [counted(len(regions), "region")] * (mask is not None)
    said += [counted(n_tiles, "tile")] * (tiles is not None)
    return Exported(slide.slide_id, (path,), ", ".join(said))


def _features(
    tiles: TileColumns | None,
    mask: SlideRaster | None,
    regions: list[Region],
    settings: GeoJsonSettings,
) -> Iterator[dict[str, Any]]:
    if mask is not None:
        classes = mask_classes(mask.attrs, settings.class_name)
        measured = _measured(regions, mask, tiles)
        for i, region in enumerate(regions):
            path_class = classes(region.value)
            assert path_class is not None  # 0 makes no region
            yield region_feature(region.shape, f"{mask.name} {i + 1}", path_class, measured[i])
    if tiles is None:
        return
    looks = _looks(tiles, mask, settings)
    table, numbers = tiles.table, tiles.measurements
    columns = {
        "tissue fraction": table.tissue,
        **{f"{tiles.run}: {n}": v for n, v in numbers.items()},
    }
    exact = {name: _exactly(values) for name, values in columns.items()}
    for i, (x, y) in enumerate(zip(table.x.tolist(), table.y.tolist(), strict=True)):
        measurements = {name: values[i] for name, values in exact.items()}
        yield tile_feature(x, y, tiles.tile_level0, looks[i], measurements)


def _exactly(values: npt.NDArray[np.floating]) -> list[float]:
    """Return the shortest decimal numbers that are the same as these in their own dtype."""
    return [float(str(value)) for value in values]


def _looks(
    tiles: TileColumns, mask: SlideRaster | None, settings: GeoJsonSettings
) -> list[PathClass | tuple[int, ...] | None]:
    """Return the classes of tiles, or where nothing classifies them the colours of a heatmap; none without a score."""
    if mask is not None:
        classes = mask_classes(mask.attrs, settings.class_name)
        values = mask_of_tiles(mask, tiles.grid, tiles.table, tiles.tile_level0)
        return [classes(int(value)) for value in values]
    known = np.isfinite(tiles.main)
    if settings.threshold is not None:
        positive = PathClass(settings.class_name, POSITIVE.colour)
        above = tiles.main > settings.threshold
        return [
            (positive if high else NEGATIVE) if there else None
            for high, there in zip(above, known, strict=True)
        ]
    scale = scaled(tiles.main, tiles.valid, "", DEFAULT_STYLE)
    colours = np.rint(colours_of(scale.values, scale.limits, DEFAULT_STYLE.cmap)).astype(int)
    return [
        tuple(colour) if there else None
        for colour, there in zip(colours.tolist(), known, strict=True)
    ]


def _regions(mask: SlideRaster) -> list[Region]:
    values, px_level0 = mask.read()
    if values.dtype.kind not in "iub":
        raise InputError(
            f"{mask.name}/{mask.array} of slide {mask.slide.slide_id} is no mask but {values.dtype}: name a mask"
        )
    return mask_regions(values.astype(np.uint8), px_level0, mask.origin_level0)


def _measured(
    regions: list[Region], mask: SlideRaster, tiles: TileColumns | None
) -> list[dict[str, float]]:
    """Return the measurements of regions: their area, and the scores of the tiles in them."""
    mpp = mask.slide.record.mpp
    areas = [region.shape.area for region in regions]
    measured: list[dict[str, float]] = [
        {} if mpp is None else {"area mm^2": area * (mpp / 1000) ** 2} for area in areas
    ]
    if tiles is None or not regions:
        return measured
    x, y = tile_points(mask, tiles.grid, tiles.table, tiles.tile_level0)
    tree = shapely.STRtree(shapely.points(x, y))
    for region, numbers in zip(regions, measured, strict=True):
        inside = tree.query(region.shape, predicate="contains")
        numbers["tiles"] = len(inside)
        for name, values in tiles.measurements.items():
            known = values[inside][np.isfinite(values[inside])]
            if known.size:
                numbers[f"{tiles.run}: {name} mean"] = float(known.mean(dtype=np.float64))
                numbers[f"{tiles.run}: {name} max"] = float(str(known.max()))
    return measured
