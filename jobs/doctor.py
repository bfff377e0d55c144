"""``slidestream doctor``: whether this machine, this slide folder, this store are fit for a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from jobs.options import json_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobs.checks import Check, Status
    from jobs.slide_checks import SlideCheck

_MARKS: dict[Status, str] = {
    "ok": "[green]✓[/]",
    "warn": "[yellow]![/]",
    "fail": "[bold red]✗[/]",
}


@click.command(
    help="Look at this machine, at SLIDES (files, folders, globs, a CSV) and at a store; "
    "exit code 1 when something would stop a run."
)
@click.argument("slides", nargs=-1)
@click.option(
    "--store", envvar="SLIDESTREAM_STORE", metavar="PATH|URL", help="A store to look at, too."
)
@json_option
def doctor(slides: tuple[str, ...], store: str | None, as_json: bool) -> int:
    """Run all checks."""
    from jobs.library_checks import library_checks
    from jobs.machine_checks import machine_checks

    checks = [*library_checks(), *machine_checks(store)]
    if store is not None:
        from jobs.store_checks import store_check

        checks.append(store_check(store))
    looked_at: list[SlideCheck] = []
    if slides:
        problem = _look_at(slides, looked_at)
        checks += problem
    statuses = Counter([check.status for check in checks] + [slide.status for slide in looked_at])
    if as_json:
        found = {
            "ok": statuses["fail"] == 0,
            "checks": [asdict(check) for check in checks],
            "slides": [asdict(slide) for slide in looked_at],
        }
        click.echo(json.dumps(found, indent=2))
    else:
        _show(checks, looked_at, statuses)
    return 1 if statuses["fail"] else 0


def _look_at(slides: Sequence[str], looked_at: list[SlideCheck]) -> list[Check]:
    from jobs.checks import Check
    from jobs.slide_checks import slide_checks
    from store_schema.errors import InputError

    try:
        looked_at += slide_checks(slides)
    except InputError as error:
        return [Check("slides", "fail", str(error))]
    return []


def _show(checks: list[Check], slides: list[SlideCheck], statuses: Counter[Status]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from jobs.tables import show

    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for check in checks:
        grid.add_row(_MARKS[check.status], check.name, escape(check.says))
    parts: list[RenderableType] = [grid]
    if slides:
        parts += ["", *_slide_lines(slides)]
    show(*parts, "", _verdict(statuses))


def _slide_lines(slides: list[SlideCheck]) -> list[RenderableType]:
    from rich.markup import escape

    from jobs.tables import new_table

    table = new_table("", "slide", "vendor", "size [px]", "levels", "µm/px", right=("size [px]",))
    for slide in slides:
        table.add_row(_MARKS[slide.status], escape(slide.slide_id), *_facts(slide))
    lines: list[RenderableType] = [table]
    lines += [
        f"{_MARKS[slide.status]} {escape(slide.slide_id)}: {escape(slide.says)}"
        for slide in slides
        if slide.says
    ]
    return lines


def _facts(slide: SlideCheck) -> tuple[str, ...]:
    if slide.downsamples is None:
        return ("can't be read",)
    mpp = "?" if slide.mpp is None else f"{slide.mpp:.4g} ({slide.mpp_source})"
    return (
        slide.vendor or "",
        f"{slide.width:,} x {slide.height:,}",
        " ".join(f"{downsample:g}" for downsample in slide.downsamples),
        mpp,
    )


def _verdict(statuses: Counter[Status]) -> str:
    if statuses["fail"]:
        return f"[bold red]{statuses['fail']} of {statuses.total()} checks failed.[/]"
    if statuses["warn"]:
        return f"[yellow]Fit for a run; {statuses['warn']} to know about.[/]"
    return "[green]All is well.[/]"
