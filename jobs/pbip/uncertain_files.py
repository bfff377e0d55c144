"""Uncertain tiles as files for annotation: CSV, GeoJSON for QuPath, a contact sheet."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from jobs.evaluation.slide_level import SplitChoice
from jobs.evaluation.split_slides import slides_of_split
from jobs.export.qupath import PathClass, region_feature, tile_feature, write_features
from jobs.export.tile_columns import read_tile_columns
from jobs.export.whole_file import whole_file
from jobs.pbip.uncertain import (
    By,
    UncertainRegion,
    UncertainTile,
    uncertain_regions,
    uncertain_tiles,
)
from jobs.pbip.uncertain_sheet import draw_uncertain
from jobs.run_config import absolute_url
from jobs.score_reader import ScoreChoice
from store_schema import names
from store_schema.errors import InputError, SlidestreamError
from store_schema.store import open_store

TILES_CSV: Final = "uncertain_tiles.csv"
REGIONS_CSV: Final = "uncertain_regions.csv"
SHEET: Final = "uncertain_tiles"
GEOJSON: Final = "geojson"

UNCERTAIN: Final = PathClass("Uncertain", (230, 159, 0))


@dataclass(frozen=True)
class UncertainConfig:
    """What is listed.

    Attributes
    ----------
    store, name, grid
        Scores of ``pbip segment``; without a grid, on the only one that has them.
    by, top, per_slide
        As of :func:`jobs.pbip.uncertain.uncertain_tiles`.
    slides, splits, split
        Only these slides, or those of a part of a table of splits.
    background
        The class whose confidence the sheet doesn't show; None takes benign, normal …, or the first.
    sheet
        Whether to draw it.
    out
        Folder of the files.
    overwrite
        Replace files that are there already.
    """

    store: str
    name: str
    grid: str | None
    by: By
    top: int
    per_slide: int | None
    slides: tuple[str, ...]
    splits: Path | None
    split: SplitChoice
    background: str | None
    sheet: bool
    out: Path
    overwrite: bool


@dataclass(frozen=True)
class Uncertain:
    """What was listed.

    Attributes
    ----------
    tiles, regions
        The least sure first.
    n_tiles, n_slides
        Ranked, all there are.
    paths
        The files.
    lacking
        Slides of the split without such scores.
    problems
        Slide id → why its tiles weren't ranked, or aren't on the sheet.
    """

    tiles: tuple[UncertainTile, ...]
    regions: tuple[UncertainRegion, ...]
    n_tiles: int
    n_slides: int
    paths: tuple[Path, ...]
    lacking: tuple[str, ...]
    problems: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it JSON-able."""
        return {
            "n_tiles": self.n_tiles,
            "n_slides": self.n_slides,
            "tiles": list(tile_rows(self.tiles)),
            "regions": list(region_rows(self.regions)),
            "files": [str(path) for path in self.paths],
            "without_scores": list(self.lacking),
            "problems": dict(self.problems),
        }


def list_uncertain(config: UncertainConfig) -> Uncertain:
    """Rank the tiles of all slides, and write files; a slide that can't be read doesn't stop the others.

    Raises
    ------
    NotInStoreError, InputError
        There are no such scores, or none that tell how sure they are; or files are there already.
    """
    store = open_store(absolute_url(config.store))
    chosen = slides_of_split(
        store, names.SCORES, config.name, config.grid, config.slides, config.splits, config.split
    )
    columns, problems = [], dict[str, str]()
    for slide in chosen.judged:
        try:
            columns.append(read_tile_columns(slide, ScoreChoice(config.name, grid=config.grid)))
        except SlidestreamError as error:
            problems[slide.slide_id] = str(error)
    if not columns:
        slide_id, problem = next(iter(problems.items()))
        raise InputError(f"none of {len(problems)} slides can be ranked; {slide_id}: {problem}")
    ranked = uncertain_tiles(columns, config.by, config.top, config.per_slide)
    if not ranked:
        raise InputError(
            f"no tile of {config.name} has what it is to be ranked by ({config.by}): the slides have no tiles, "
            "or must be segmented again"
        )
    regions = uncertain_regions(ranked)
    region_of = {tile.rank: region.number for region in regions for tile in region.tiles}
    tiles = tuple(replace(tile, region=region_of[tile.rank]) for tile in ranked)
    paths = _write(config, tiles, regions)
    if config.sheet:
        drawn = draw_uncertain(
            store,
            tiles,
            config.by,
            config.background,
            config.out / SHEET,
            overwrite=config.overwrite,
        )
        paths += drawn.paths
        problems |= drawn.problems
    n_tiles = sum(len(each.table) for each in columns)
    return Uncertain(
        tiles, tuple(regions), n_tiles, len(columns), tuple(paths), chosen.without_scores, problems
    )


def tile_rows(tiles: Sequence[UncertainTile]) -> Iterator[dict[str, Any]]:
    """Yield one row a tile: where it is, and all that was measured."""
    for tile in tiles:
        x, y = tile.corner
        table = tile.columns.table
        yield {
            "rank": tile.rank,
            "slide_id": tile.slide_id,
            "grid": tile.columns.grid,
            "tile": tile.tile,
            "x": x,
            "y": y,
            "tile_level0": tile.columns.tile_level0,
            "row": int(table.row[tile.tile]),
            "col": int(table.col[tile.tile]),
            "region": tile.region,
            "uncertainty": tile.uncertainty,
            **tile.numbers(),
        }


def region_rows(regions: Sequence[UncertainRegion]) -> Iterator[dict[str, Any]]:
    """Yield one row a region: its box in level-0 pixels, and how many tiles it has."""
    for region in regions:
        left, top, right, bottom = region.shape.bounds
        yield {
            "region": region.number,
            "slide_id": region.tiles[0].slide_id,
            "x": int(left),
            "y": int(top),
            "width_level0": int(right - left),
            "height_level0": int(bottom - top),
            "tiles": len(region.tiles),
            "uncertainty": region.uncertainty,
        }


def _write(
    config: UncertainConfig, tiles: Sequence[UncertainTile], regions: Sequence[UncertainRegion]
) -> list[Path]:
    paths = [config.out / TILES_CSV, config.out / REGIONS_CSV]
    for path, rows in zip(paths, (list(tile_rows(tiles)), list(region_rows(regions))), strict=True):
        header = list(dict.fromkeys(name for row in rows for name in row))
        with (
            whole_file(path, overwrite=config.overwrite) as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, header, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    for slide_id in dict.fromkeys(tile.slide_id for tile in tiles):
        path = config.out / GEOJSON / f"{slide_id}.geojson"
        features = _features(
            [tile for tile in tiles if tile.slide_id == slide_id],
            [region for region in regions if region.tiles[0].slide_id == slide_id],
        )
        write_features(path, features, overwrite=config.overwrite)
        paths.append(path)
    return paths


def _features(
    tiles: Sequence[UncertainTile], regions: Sequence[UncertainRegion]
) -> Iterator[dict[str, Any]]:
    for region in regions:
        numbers = {"tiles": len(region.tiles), "uncertainty": region.uncertainty}
        yield region_feature(region.shape, f"uncertain {region.number}", UNCERTAIN, numbers)
    for tile in tiles:
        x, y = tile.corner
        ranked = {"rank": tile.rank, "uncertainty": tile.uncertainty}
        numbers = ranked | {f"{tile.columns.run}: {n}": v for n, v in tile.numbers().items()}
        yield tile_feature(x, y, tile.columns.tile_level0, UNCERTAIN, numbers)
