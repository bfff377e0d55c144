"""``slidestream export``: what is in a store, as files that other programs read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.option_types import FilePath, FiniteFloat
from jobs.options import config_option, json_option, stack, store_option, verbose_option
from store_schema.names import MASK

if TYPE_CHECKING:
    from jobs.export.each_slide import Exported
    from jobs.export.h5 import Dtype
    from store_schema.store import Store

_score = click.option(
    "--score",
    metavar="RUN[/ARRAY]",
    help="Scores of tiles; all arrays of the run where none is named.",
)
_class = click.option(
    "--class", "class_name", metavar="NAME", help="Of scores by class.  [default: all]"
)
_grid = click.option("--grid", metavar="NAME", help="Grid; needed when several have the run.")
_mask = click.option("--mask", metavar="NAME", help="Mask of the store, e.g. of `calibrate`.")
_slides = click.option(
    "--slides",
    multiple=True,
    metavar="ID",
    help="Only this slide; repeatable.  [default: all that have the run]",
)
_folder = click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the files.",
)
_ending = stack(
    click.option("--overwrite", is_flag=True, help="Replace files that are there already."),
    json_option,
    verbose_option,
    config_option,
)


@click.group(help="Write what is in a store as files that other programs read.")
def export() -> None:
    """Group the export commands."""


@export.command(
    help="GeoJSON for QuPath, one file a slide: tiles with their scores as measurements, regions of a mask as "
    "annotations, in level-0 pixels."
)
@store_option
@_score
@_class
@_mask
@click.option(
    "--threshold",
    type=FiniteFloat(),
    help="Classify tiles by their score: positive above it. A --mask classifies them, too.",
)
@click.option(
    "--positive",
    default="Positive",
    show_default=True,
    metavar="NAME",
    help="What positive tiles and regions are called, e.g. Tumor.",
)
@_grid
@_slides
@_folder
@_ending
def geojson(
    store: str,
    score: str | None,
    class_name: str | None,
    mask: str | None,
    threshold: float | None,
    positive: str,
    grid: str | None,
    slides: tuple[str, ...],
    out: Path,
    overwrite: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """Export for QuPath; exit code 1 if a slide could not be exported."""
    from jobs.export.geojson import GeoJsonSettings, export_geojson
    from jobs.raster_reader import RasterChoice
    from jobs.score_reader import ScoreChoice

    settings = GeoJsonSettings(
        out,
        None if score is None else ScoreChoice.parse(score, class_name, grid),
        None if mask is None else RasterChoice(mask, MASK, grid=grid),
        threshold,
        positive,
        slides,
        overwrite,
    )
    return _run(store, as_json, lambda opened, done: export_geojson(opened, settings, done))


@export.command(
    "ome-tiff",
    help="Pyramidal OME-TIFF, one file a slide and map: scores and stitched maps as float32, masks as uint8, with "
    "their pixel size.",
)
@store_option
@click.option(
    "--score", metavar="RUN[/ARRAY]", help="Scores of tiles, a pixel a place of the tile lattice."
)
@click.option("--raster", metavar="NAME[/ARRAY]", help="A stitched map.")
@_mask
@click.option(
    "--class", "class_name", metavar="NAME", help="Of scores and maps by class.  [default: all]"
)
@click.option(
    "--outside",
    type=float,
    default=float("nan"),
    show_default="NaN",
    help="What float maps have where there is nothing, for programs that can't do with NaN.",
)
@_grid
@_slides
@_folder
@_ending
def ome_tiff(
    store: str,
    score: str | None,
    raster: str | None,
    mask: str | None,
    class_name: str | None,
    outside: float,
    grid: str | None,
    slides: tuple[str, ...],
    out: Path,
    overwrite: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """Export images; exit code 1 if a slide could not be exported."""
    from jobs.export.ome_tiff import OmeTiffSettings, export_ome_tiff
    from jobs.raster_reader import RasterChoice
    from jobs.score_reader import ScoreChoice

    settings = OmeTiffSettings(
        out,
        None if score is None else ScoreChoice.parse(score, class_name, grid),
        None if raster is None else RasterChoice.parse(raster, class_name, grid),
        None if mask is None else RasterChoice(mask, MASK, grid=grid),
        outside,
        slides,
        overwrite,
    )
    return _run(store, as_json, lambda opened, done: export_ome_tiff(opened, settings, done))


@export.command(
    help="One CSV table with a row a tile: slide, corner [px, level 0], place in the lattice, scores."
)
@store_option
@click.option(
    "--score",
    required=True,
    metavar="RUN[/ARRAY]",
    help="Which scores; all arrays of the run where none is named.",
)
@_class
@_mask
@_grid
@_slides
@click.option(
    "--out",
    required=True,
    type=FilePath(),
    help="The file.",
)
@_ending
def csv(
    store: str,
    score: str,
    class_name: str | None,
    mask: str | None,
    grid: str | None,
    slides: tuple[str, ...],
    out: Path,
    overwrite: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """Export a table; exit code 1 if a slide is not in it."""
    from jobs.export.csv_table import CsvSettings, export_csv
    from jobs.raster_reader import RasterChoice
    from jobs.score_reader import ScoreChoice

    settings = CsvSettings(
        out,
        ScoreChoice.parse(score, class_name, grid),
        None if mask is None else RasterChoice(mask, MASK, grid=grid),
        slides,
        overwrite,
    )
    return _run(store, as_json, lambda opened, done: export_csv(opened, settings, done))


@export.command(
    help="HDF5 in the layout of CLAM and TRIDENT, one file a slide: features and coords, with patch_size_level0 "
    "and the other attributes. `import h5` reads it back."
)
@store_option
@click.option("--features", required=True, metavar="NAME", help="Features of the store.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "stored"]),
    default="float32",
    show_default=True,
    help="Of the features; CLAM can't compute with float16.",
)
@_grid
@_slides
@_folder
@_ending
def h5(
    store: str,
    features: str,
    dtype: Dtype,
    grid: str | None,
    slides: tuple[str, ...],
    out: Path,
    overwrite: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """Export features; exit code 1 if a slide could not be exported."""
    from jobs.export.h5 import H5Settings, export_h5

    settings = H5Settings(out, features, grid, slides, overwrite, dtype)
    return _run(store, as_json, lambda opened, done: export_h5(opened, settings, done))


@export.command(
    help="Coordinates of tiles in the layout of slide2vec and hs2p, one .npy a slide. `index --coordinates` reads them."
)
@store_option
@_grid
@_slides
@_folder
@_ending
def coordinates(
    store: str,
    grid: str | None,
    slides: tuple[str, ...],
    out: Path,
    overwrite: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """Export coordinates; exit code 1 if a slide could not be exported."""
    from jobs.export.coordinates import CoordinatesSettings, export_coordinates

    settings = CoordinatesSettings(out, grid, slides, overwrite)
    return _run(store, as_json, lambda opened, done: export_coordinates(opened, settings, done))


def _run(
    store: str,
    as_json: bool,
    call: Callable[[Store, Callable[[Exported], None]], list[Exported]],
) -> int:
    """Export, tell of each slide, and return the exit code."""
    from jobs.one_line import one_line
    from jobs.problem_lines import problem_lines
    from jobs.run_config import absolute_url
    from store_schema.store import open_store

    def tell(exported: Exported) -> None:
        if as_json or exported.problem:  # problems come at the end, together
            return
        files = ", ".join(map(str, exported.paths))
        text = files + f"  ({exported.note})" * bool(exported.note)
        click.echo(one_line(f"{exported.slide_id}: {text}"))

    found = call(open_store(absolute_url(store)), tell)
    failed = [exported for exported in found if exported.problem]
    if as_json:
        report = {
            "store": store,
            "exported": {e.slide_id: [str(path) for path in e.paths] for e in found if e.paths},
            "notes": {e.slide_id: e.note for e in found if e.note},
            "left_out": {e.slide_id: list(e.left_out) for e in found if e.left_out},
            "failed": {e.slide_id: e.problem for e in failed},
        }
        click.echo(json.dumps(report, indent=2))
    else:
        for line in _left_out_lines(found):
            click.echo(line, err=True)
        for line in problem_lines({e.slide_id: e.problem for e in failed}):
            click.echo(line, err=True)
        click.echo(f"{len(found) - len(failed)} of {len(found)} slides exported")
    return 1 if failed else 0


def _left_out_lines(found: list[Exported]) -> list[str]:
    """Say which arrays are missing, once for all slides."""
    from jobs.counted import counted
    from jobs.one_line import one_line

    n_without = Counter(exported.left_out for exported in found if exported.left_out)
    return [
        one_line(
            f"note: without {', '.join(arrays)}, of {counted(n, 'slide')}: not one number a tile"
        )
        for arrays, n in n_without.items()
    ]
