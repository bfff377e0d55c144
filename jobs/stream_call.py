"""From the options of a command that streams to a run, a dry run, or a job that is handed over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobs.run_config import (
    ClusterSettings,
    RunConfig,
    absolute_url,
    beside_store,
    check_store_place,
)

if TYPE_CHECKING:
    from jobs.tile_model_settings import TileModelSettings

T = TypeVar("T")

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print slides, tiles, blocks and bytes; write nothing."
)


def start(config: RunConfig, options: dict[str, Any]) -> int:
    """Run here, or as ``--dry-run`` or ``--detach`` say; return the exit code.

    Parameters
    ----------
    config
        The call.
    options
        As click parsed them, with ``dry_run``, ``detach`` and ``as_json``.
    """
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


def stored_grid_call(command: str, options: dict[str, Any], encode: TileModelSettings) -> RunConfig:
    """Return the call of a command that sends the tiles of a grid that is in the store through a model.

    Parameters
    ----------
    command
        Its name, for metrics and the run's directory.
    options
        As click parsed them: ``slides``, ``slide_ids``, ``store``, ``grid_name``, those of ``cluster_options`` and
        ``run_options``.
    encode
        What becomes of the tiles.
    """
    from jobs.find_slides import only_grid

    store = options["store"]
    check_store_place(store)
    return RunConfig(
        command=command,
        slides=absolute_paths(options["slides"]),
        store=store,
        grid=None,
        encode=encode,
        cluster=settings_of(ClusterSettings, options),
        grid_name=only_grid(absolute_url(store), options["grid_name"]),
        overwrite=options["overwrite"],
        run_dir=run_dir_of(command, options),
        slide_ids=options["slide_ids"],
    )


def run_dir_of(command: str, options: dict[str, Any]) -> str:
    """Return where a run's files go: as ``--run-dir`` says, or into a new folder beside the store."""
    from jobs.run_directory import new_run_path

    given: Path | None = options["run_dir"]
    name = command.replace(" ", "-")
    return str((given or new_run_path(beside_store(options["store"], "runs"), name)).absolute())


def absolute_paths(slides: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of slides as workers find them."""
    # not resolve(): the name of a link is the slide's id
    return tuple(os.path.abspath(Path(slide).expanduser()) for slide in slides)  # noqa: PTH100


def settings_of(kind: Callable[..., T], options: dict[str, Any]) -> T:
    """Pick the fields of one settings class from the parsed options; paths become absolute text."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # always a dataclass
    values = {name: options[name] for name in names}
    return kind(
        **{
            k: str(v.expanduser().absolute()) if isinstance(v, Path) else v
            for k, v in values.items()
        }
    )
