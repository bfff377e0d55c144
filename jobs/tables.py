"""How tables look: as wide as the terminal, or as wide as they need to be where there is none."""

from __future__ import annotations

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table

_NO_TERMINAL_WIDTH = 200


def new_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table.

    Parameters
    ----------
    columns
        Headings.
    right
        Those of columns that hold numbers.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def show(*things: RenderableType) -> None:
    """Print tables and lines of rich markup to stdout; text that is not ours must be escaped."""
    console = Console(highlight=False)
    if console.is_terminal:
        for thing in things:
            console.print(thing)
        return
    click.echo(text_of(*things), nl=False)


def text_of(*things: RenderableType) -> str:
    """Return tables and lines of rich markup as plain text; text that is not ours must be escaped."""
    plain = Console(highlight=False, width=_NO_TERMINAL_WIDTH, color_system=None)
    with plain.capture() as captured:
        for thing in things:
            plain.print(thing)
    # rich pads to the full width
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
