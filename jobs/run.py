"""``slidestream run``, ``index`` and ``encode``: the main job and its two halves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeAlias

import click

from jobs.options import (
    cluster_options,
    encode_options,
    grid_options,
    run_options,
    stack,
    store_option,
)
from jobs.run_config import (
    ClusterSettings,
    EncodeSettings,
    GridSettings,
    RunConfig,
    absolute_url,
    check_store_place,
)
from jobs.stream_call import (
    absolute_paths,
    dry_run_option,
    run_dir_of,
    settings_of,
    start,
    stored_grid_call,
)

_Command: TypeAlias = Literal["run", "index", "encode"]
_SLIDES_HELP = "SLIDES are files, folders, globs, or a CSV with the columns slide[,slide_id,mpp]."

slides_argument = click.argument("slides", nargs=-1, required=True)


@click.command(help=f"Index slides and encode their tiles into the store. {_SLIDES_HELP}")
@slides_argument
@stack(store_option, dry_run_option, grid_options, encode_options, cluster_options, run_options)
def run(**options: Any) -> int:
    """Run both halves."""
    return _run("run", options)


@click.command(help=f"Find tissue and lay the tile grids of slides. {_SLIDES_HELP}")
@slides_argument
@click.option(
    "--coordinates",
    type=click.Path(path_type=Path),
    help="Folder of slide2vec or hs2p coordinates (.npy, .txt), one a slide: tiles are these instead of a lattice on "
    "tissue.",
)
@stack(store_option, dry_run_option, grid_options, cluster_options, run_options)
@click.pass_context
def index(ctx: click.Context, /, coordinates: Path | None, **options: Any) -> int:
    """Run the first half, or make grids of coordinates."""
    if coordinates is not None:
        return _index_coordinates(ctx, coordinates, options)
    return _run("index", options)


@click.command(
    help="Encode the tiles of indexed slides. SLIDES name the files when they have moved."
)
@click.argument("slides", nargs=-1)
@click.option("--grid", "grid_name", help="The grid to encode; needed when the store has several.")
@stack(store_option, dry_run_option, encode_options, cluster_options, run_options)
def encode(**options: Any) -> int:
    """Run the second half."""
    return _run("encode", options)


# what else `index` can be told decides nothing of tiles that are there already
_OF_COORDINATES = frozenset((
    "slides", "coordinates", "store", "tile_px", "mpp", "slide_mpp", "grid_name", "block_tiles", "overwrite", "as_json",
    "verbose", "config",
))  # fmt: skip


def _index_coordinates(ctx: click.Context, folder: Path, options: dict[str, Any]) -> int:
    for name, param in ((param.name, param) for param in ctx.command.params):
        source = ctx.get_parameter_source(str(name))
        if source is click.core.ParameterSource.COMMANDLINE and name not in _OF_COORDINATES:
            raise click.UsageError(
                f"{param.opts[0]} decides nothing of --coordinates; leave it out."
            )
    from jobs.coordinates.call import CoordinatesConfig, index_coordinates, summary_lines
    from jobs.coordinates.lay import LaySpec

    keys = ("tile_px", "mpp", "grid_name", "block_tiles", "overwrite")
    summary = index_coordinates(
        CoordinatesConfig(
            folder=str(folder),
            slides=absolute_paths(options["slides"]),
            store=absolute_url(options["store"]),
            spec=LaySpec(**{key: options[key] for key in keys}),
            slide_mpp=options["slide_mpp"],
        )
    )
    click.echo(
        json.dumps(summary, indent=2) if options["as_json"] else "\n".join(summary_lines(summary))
    )
    return 0 if summary["ok"] else 1


def _run(command: _Command, options: dict[str, Any]) -> int:
    return start(_config(command, options), options)


def _config(command: _Command, options: dict[str, Any]) -> RunConfig:
    """Freeze what click parsed; nothing after this knows of options."""
    if command == "encode":
        options = {**options, "slide_ids": ()}  # its slides are named by their files
        return stored_grid_call(command, options, settings_of(EncodeSettings, options))
    check_store_place(options["store"])
    return RunConfig(
        command=command,
        slides=absolute_paths(options["slides"]),
        store=options["store"],
        grid=settings_of(GridSettings, options),
        encode=None if command == "index" else settings_of(EncodeSettings, options),
        cluster=settings_of(ClusterSettings, options),
        overwrite=options["overwrite"],
        run_dir=run_dir_of(command, options),
    )
