"""Scores, stitched maps and masks of a store as OME-TIFF, one file a slide and map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataflow.heat_layers import TileScores
from dataflow.ome_pyramid import Bands, OmeImage, write_ome_pyramid
from jobs.export.each_slide import Exported, export_slides
from jobs.export.whole_file import whole_file
from jobs.raster_reader import RasterChoice, SlideRaster, raster_channels
from jobs.run_places import slides_with
from jobs.score_reader import ScoreChoice, SlideScore, read_score
from store_schema import names
from store_schema.errors import InputError
from store_schema.slide_view import SlideView
from store_schema.specs import SlideRecord
from store_schema.store import Store


@dataclass(frozen=True)
class OmeTiffSettings:
    """What is exported.

    Attributes
    ----------
    out
        Folder of the files, ``<slide id>_<run>_<array>.ome.tif``.
    score
        Scores of tiles, a pixel a place of the tile lattice; None exports none.
    raster
        A stitched map; of one by class all classes are channels, unless one is named. None exports none.
    mask
        A mask; None exports none.
    outside
        What floats have where there is nothing.
    slides
        Only these; empty takes all that have the first of these.
    overwrite
        Replace files that are there already.
    """

    out: Path
    score: ScoreChoice | None = None
    raster: RasterChoice | None = None
    mask: RasterChoice | None = None
    outside: float = float("nan")
    slides: tuple[str, ...] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.score is None and self.raster is None and self.mask is None:
            raise InputError("give --score, --raster or --mask: what is to be exported")


def export_ome_tiff(
    store: Store, settings: OmeTiffSettings, done: Callable[[Exported], None] = lambda _: None
) -> list[Exported]:
    """Write OME-TIFF files; a slide that can't be exported does not stop the others.

    Parameters
    ----------
    store
        Where scores, maps and masks are.
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
        choice = settings.raster or settings.mask
        assert choice is not None
        kind, run, grid = names.MASKS, choice.name, choice.grid
    slides = slides_with(store, kind, run, grid, settings.slides)
    return export_slides(slides, lambda slide: _export(slide, settings), done)


def _export(slide: SlideView, settings: OmeTiffSettings) -> Exported:
    images: dict[str, OmeImage] = {}
    if settings.score is not None:
        score = read_score(slide, settings.score)
        images[f"{score.run}_{score.array}"] = _of_score(score, settings.outside)
    for choice in (settings.raster, settings.mask):
        if choice is not None:
            channels = raster_channels(slide, choice)
            name = f"{channels[0].name}_{channels[0].array}"
            images[name] = _of_raster(channels, settings.outside)
    paths = []
    for name, image in images.items():
        path = settings.out / f"{slide.slide_id}_{name}.ome.tif"
        with whole_file(path, overwrite=settings.overwrite) as part:
            write_ome_pyramid(part, image)
        paths.append(path)
    without_size = "the slide's pixel size isn't known, nor so the file's" * (
        slide.record.mpp is None
    )
    return Exported(slide.slide_id, tuple(paths), without_size)


def _of_score(score: SlideScore, outside: float) -> OmeImage:
    """Return the tile lattice as an image: each place has the mean of the tiles that cover it."""
    geometry = score.slide.grid_attrs(score.grid)[names.GEOMETRY]
    stride = float(geometry["stride_level0"])
    beyond = max(1, round(score.tile_level0 / stride)) - 1  # tiles that overlap end there
    size = int(geometry["n_cols"]) + beyond, int(geometry["n_rows"]) + beyond
    values = score.values.astype(np.float64)
    layer = TileScores(score.table, score.tile_level0, values, score.what)
    lattice = layer.drawn(values, size, 1 / stride).astype(np.float32)
    name = f"{score.run}/{score.array}" + f" for {score.class_name}" * bool(score.class_name)
    place = _place(score.slide.record, stride, (0.0, 0.0))
    bands: list[Bands] = [lambda: iter([_filled(lattice, outside)])]
    said = f"{score.what}, a pixel a tile; {place.said}"
    return OmeImage(
        name, said, [name], bands, lattice.shape, "float32", place.px_um, place.origin_um
    )


def _of_raster(channels: list[SlideRaster], outside: float) -> OmeImage:
    first = channels[0]
    name = f"{first.name}/{first.array}"
    dtype, shape = first.values.dtype, (first.values.shape[0], first.values.shape[1])
    if dtype.kind != "f" and dtype != np.uint8:
        raise InputError(f"{name} is {dtype}: only floats and uint8 can be exported")
    place = _place(first.slide.record, first.px_level0, first.origin_level0)

    def bands_of(channel: SlideRaster) -> Bands:
        if dtype.kind != "f":
            return channel.bands
        return lambda: (_filled(band.astype(np.float32), outside) for band in channel.bands())

    return OmeImage(
        name,
        f"{first.attrs.get('long_name', first.array)}; {place.said}",
        [channel.class_name or name for channel in channels],
        [bands_of(channel) for channel in channels],
        shape,
        "float32" if dtype.kind == "f" else "uint8",
        place.px_um,
        place.origin_um,
        # whatever is flagged stays visible from afar
        "mean" if dtype.kind == "f" else "max",
    )


@dataclass(frozen=True)
class _Place:
    px_um: float | None
    origin_um: tuple[float, float]
    said: str


def _place(record: SlideRecord, px_level0: float, origin_level0: tuple[float, float]) -> _Place:
    """Return where an image lies on its slide, in µm and in words."""
    x, y = origin_level0
    said = (
        f"slide {record.slide_id}: a pixel is {px_level0:.12g} level-0 px, "
        f"the corner is at ({x:g}, {y:g})"
    )
    mpp = record.mpp or 0.0
    return _Place(None if record.mpp is None else px_level0 * mpp, (x * mpp, y * mpp), said)


def _filled(values: npt.NDArray[np.float32], outside: float) -> npt.NDArray[np.float32]:
    return np.where(np.isfinite(values), values, np.float32(outside))
