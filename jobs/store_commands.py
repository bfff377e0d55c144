"""``slidestream store show|validate|finalize|gc``: look at and look after a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import click

from jobs.options import json_option, stack, verbose_option
from jobs.run_config import absolute_url

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN = 50


def _one_store(ctx: click.Context, _: click.Parameter, value: str | None) -> str:
    """Take the store from the argument or from ``--store``, and make a local path absolute."""
    path = ctx.params.pop("path", None)
    if path is not None and value is not None:
        from_command_line = (
            ctx.get_parameter_source("store") is click.core.ParameterSource.COMMANDLINE
        )
        if from_command_line and path != value:
            raise click.UsageError(f"Two stores are named, {path} and {value}; name one.")
    named = path or value
    if named is None:
        raise click.UsageError("Name the store: --store PATH|URL.")
    return absolute_url(named)


store_options = stack(
    click.argument("path", required=False, is_eager=True),
    click.option(
        "--store",
        envvar="SLIDESTREAM_STORE",
        metavar="PATH|URL",
        callback=_one_store,
        help="The store; can be given as plain argument, too.",
    ),
    json_option,
    verbose_option,
)


@click.group(help="Look at and look after a store.")
def store() -> None:
    """Group the store commands."""


@store.command(
    help="Say what the store holds and how complete it is, by listing: `store validate` reads and checks the data."
)
@click.option("--slide", "slide_id", metavar="ID", help="Only this slide.")
@store_options
def show(store: str, slide_id: str | None, as_json: bool, verbose: bool) -> int:
    """Show a store's contents."""
    from store_schema.inventory import slide_contents, slide_text, store_contents, store_text
    from store_schema.store import open_store

    opened = open_store(store)
    if as_json:
        slides = opened.slides if slide_id is None else [slide_id]
        contents = store_contents(opened) if slide_id is None else slide_contents(opened[slide_id])
        found = {
            "store": opened.url,
            "slides": [asdict(opened[name].record) for name in slides],
            "grids": [asdict(grid) for grid in contents],
            "prototypes": opened.banks,
        }
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(store_text(opened) if slide_id is None else slide_text(opened[slide_id]))
    return 0


@store.command(help="Check every object of the store against the schema; exit code 1 if any fails.")
@store_options
def validate(store: str, as_json: bool, verbose: bool) -> int:
    """List the violations."""
    from store_schema.remedies import remedies
    from store_schema.validate import validate as violations_of

    violations = violations_of(store)
    advice = remedies(violations)
    if as_json:
        found = {
            "store": store,
            "valid": not violations,
            "violations": [asdict(violation) for violation in violations],
            "remedies": advice,
        }
        click.echo(json.dumps(found, indent=2))
    elif violations:
        _list([str(violation) for violation in violations], show_all=verbose)
        click.echo(f"{_count(len(violations), 'violation')} in {store}; what to do:")
        for remedy in dict.fromkeys(advice.values()):
            codes = ", ".join(code for code, given in advice.items() if given == remedy)
            click.echo(f"  {codes}: {remedy}")
    else:
        click.echo(f"{store} is valid: structure, metadata and the checksum of every object")
    return 1 if violations else 0


@store.command(
    help="Write consolidated metadata, by which other readers open a finished store faster; "
    "what is added later drops it again."
)
@store_options
def finalize(store: str, as_json: bool, verbose: bool) -> int:
    """Consolidate the metadata."""
    from store_schema.finalize import finalize as consolidate
    from store_schema.store import open_store

    nodes = consolidate(open_store(store, mode="r+"))
    if as_json:
        click.echo(json.dumps({"store": store, "nodes": nodes}))
    else:
        click.echo(f"consolidated the metadata of {nodes:,} groups and arrays of {store}")
    return 0


@store.command(help="Remove what interrupted runs left behind and nothing refers to.")
@click.option("--dry-run", is_flag=True, help="List it; remove nothing.")
@click.option(
    "--min-age",
    "min_age_s",
    type=click.FloatRange(0),
    default=3600.0,
    show_default=True,
    help="Leave younger temporary files alone [s]: a run may be writing them.",
)
@store_options
def gc(store: str, dry_run: bool, min_age_s: float, as_json: bool, verbose: bool) -> int:
    """List leftovers, and remove them."""
    from store_schema.leftovers import remove_leftovers
    from store_schema.store import open_store

    # a dry run opens for reading, which changes nothing at all
    opened = open_store(store, mode="r" if dry_run else "r+")
    found = remove_leftovers(opened, min_age_s, dry_run=dry_run)
    size = sum(item.size for item in found)
    if as_json:
        listed = [asdict(item) for item in found]
        click.echo(
            json.dumps(
                {"store": store, "removed": not dry_run, "bytes": size, "leftovers": listed},
                indent=2,
            )
        )
        return 0
    _list([f"{item.key}  {item.size:,} bytes, {item.reason}" for item in found], show_all=verbose)
    done = "would be removed" if dry_run else "removed"
    click.echo(f"{_count(len(found), 'leftover')}, {size / 1e6:.1f} MB {done}")
    return 0


def _list(lines: list[str], *, show_all: bool) -> None:
    shown = lines if show_all else lines[:_SHOWN]
    for line in shown:
        click.echo(line)
    if len(shown) < len(lines):
        click.echo(f"… and {len(lines) - len(shown):,} more (-v shows all, --json too)")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
