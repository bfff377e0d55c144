"""``slidestream run``, ``index`` and ``encode``: the main job and its two halves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

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
    beside_store,
    check_store_place,
)

T = TypeVar("T")
_Command: TypeAlias = Literal["run", "index", "encode"]
_SLIDES_HELP = "SLIDES are files, folders, globs, or a CSV with the columns slide[,slide_id,mpp]."

slides_argument = click.argument("slides", nargs=-1, required=True)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print slides, tiles, blocks and bytes; write nothing."
)


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
    config = _config(command, options)
    if options["dry_run"]:
        from jobs.dry_run import dry_run

        return dry_run(config, as_json=options["as_json"])
    if options["detach"]:
        from jobs.detached import detach

        return detach(config, as_json=options["as_json"])
    from jobs.streaming import run_here
    from jobs.summary import summary_lines

    metrics = run_here(config, quiet=options["as_json"])
    click.echo(
        json.dumps(metrics, indent=2) if options["as_json"] else "\n".join(summary_lines(metrics))
    )
    return 0 if metrics["ok"] else 1


def _config(command: _Command, options: dict[str, Any]) -> RunConfig:
    """Freeze what click parsed; nothing after this knows of options."""
    from jobs.run_directory import new_run_path

    store = options["store"]
    run_dir = options["run_dir"] or new_run_path(beside_store(store, "runs"), command)
    check_store_place(store)
    config = RunConfig(
        command=command,
        # not resolve(): the name of a link is the slide's id
        slides=tuple(os.path.abspath(Path(s).expanduser()) for s in options["slides"]),  # noqa: PTH100
        store=store,
        grid=None if command == "encode" else _settings(GridSettings, options),
        encode=None if command == "index" else _settings(EncodeSettings, options),
        cluster=_settings(ClusterSettings, options),
        grid_name=options["grid_name"] if command == "encode" else None,
        overwrite=options["overwrite"],
        run_dir=str(Path(run_dir).absolute()),
    )
    if command != "encode":
        return config
    from jobs.find_slides import only_grid

    return replace(config, grid_name=only_grid(config.store_url, config.grid_name))


def _settings(kind: Callable[..., T], options: dict[str, Any]) -> T:
    """Pick the fields of one settings class from the parsed options; paths become absolute text."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # always a dataclass
    values = {name: options[name] for name in names}
    return kind(
        **{
            k: str(v.expanduser().absolute()) if isinstance(v, Path) else v
            for k, v in values.items()
        }
    )
