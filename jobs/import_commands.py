"""``slidestream import h5``: features that other tools made, into a store."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import click

from jobs.counted import counted
from jobs.option_types import FiniteRange
from jobs.options import config_option, json_option, store_option, verbose_option

_SHOWN = 20


@click.group("import", help="Bring what other tools made into a store.")
def import_() -> None:
    """Group the import commands."""


@import_.command(
    help="Bring feature files of CLAM or TRIDENT into a store. DIR holds one HDF5 file a slide, named by its slide "
    "id, with the datasets features and coords [px, level 0]."
)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, path_type=Path))
@store_option
@click.option(
    "--features",
    metavar="NAME",
    help="Name of the features in the store.  [default: the encoder that file or folder names, or imported]",
)
@click.option(
    "--grid-name",
    "grid",
    metavar="NAME",
    help="Name of the grid in the store.  [default: by patch size and magnification, or µm, or imported]",
)
@click.option(
    "--slides",
    multiple=True,
    metavar="PATH",
    help="Slide file, folder, glob or CSV: gives slides their size and mpp, and tiles their pixels. Repeatable.",
)
@click.option(
    "--slide-mpp",
    type=FiniteRange(0, min_open=True),
    help="Pixel size of the slides [µm, level 0], over what they say.  [default: 10 / magnification]",
)
@click.option(
    "--tile-level0",
    type=click.IntRange(1),
    help="Side of the tiles [px, level 0] where the files don't say.  [default: tiles touch]",
)
@click.option(
    "--block-tiles",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Tiles per block: one stored object.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace what is stored under the same name but was made otherwise.",
)
@json_option
@verbose_option
@config_option
def h5(folder: Path, slides: tuple[str, ...], as_json: bool, verbose: bool, **options: Any) -> int:
    """Import feature files."""
    from jobs.h5_features import find_h5

    find_h5(folder)  # before what takes seconds to load
    from jobs.import_h5 import ImportConfig, import_h5

    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    summary = import_h5(
        ImportConfig(
            folder=str(folder.absolute()),
            # not resolve(): the name of a link is the slide's id
            slides=tuple(os.path.abspath(Path(s).expanduser()) for s in slides),  # noqa: PTH100
            **options,
        )
    )
    click.echo(json.dumps(summary, indent=2) if as_json else "\n".join(_lines(summary)))
    return 0 if summary["ok"] else 1


def _what_there_was(summary: dict[str, Any]) -> list[str]:
    n_there, n_beside = summary["already_there"], summary["beside_stored"]
    lines = [f"  {counted(n_there, 'slide was', 'slides were')} already there"] * bool(n_there)
    said = "had a grid of the same tiles: the features lie beside them"
    return lines + [f"  {counted(n_beside, 'slide')} {said}"] * bool(n_beside)


def _sizes(summary: dict[str, Any]) -> list[str]:
    """Say how large tiles are, where the slides' pixel sizes are known."""
    if not summary["tile_px"]:
        return []
    lines = [f"  tiles of {' or '.join(map(str, summary['tile_px']))} px"]
    if summary["mpp"]:
        least, most = summary["mpp"][0], summary["mpp"][-1]
        lines[0] += f" at {least:.4g}{'' if most == least else f' to {most:.4g}'} µm/px"
    if summary["without_mpp"]:
        lines.append(
            f"  {summary['without_mpp']} slides of unknown pixel size: give --slide-mpp or --slides"
        )
    if len(summary["grids"]) > 1:
        lines.append(
            "  several grids, since tile sizes differ: --grid-name puts all under one name"
        )
    return lines


def _lines(summary: dict[str, Any]) -> list[str]:
    slides, blocks = summary["slides"], summary["blocks"]
    lines = [
        f"{slides['complete']} of {slides['asked']} slides, {summary['tiles']:,} tiles in {summary['store']}",
    ]
    if slides["complete"]:
        lines.append(
            f"  grid {', '.join(summary['grids'])}, features {', '.join(summary['features'])}: "
            f"{blocks['done']:,} blocks written, {blocks['already_stored']:,} were there"
        )
    lines += [*_what_there_was(summary), *_sizes(summary)]
    notes = [f"  {slide}: {note}" for slide, said in summary["notes"].items() for note in said]
    failed = [f"  {f['slide_id']} [{f['reason']}] {f['message']}" for f in summary["failures"]]
    for each in (notes, failed):
        lines += each[:_SHOWN]
        if len(each) > _SHOWN:
            lines.append(f"  … and {len(each) - _SHOWN} more (--json shows all)")
    return lines
