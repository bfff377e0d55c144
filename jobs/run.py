"""``slidestream run``, ``index`` and ``encode``: the main job and its two halves."""

from __future__ import annotations

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
@stack(store_option, dry_run_option, grid_options, cluster_options, run_options)
def index(**options: Any) -> int:
    """Run the first half."""
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
