"""Options that trainings of tile models share, and what they come to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobs.option_types import SEED_RANGE, FiniteRange
from jobs.options import stack

if TYPE_CHECKING:
    from models.fit_spec import FitSpec

F = TypeVar("F", bound=Callable[..., Any])

stain_options = stack(
    click.option(
        "--stain-fit",
        type=click.Choice(["slide", "tile"]),
        help="One stain basis per slide, or each tile by itself.",
    ),
    click.option(
        "--stain-target",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Reference image instead of the shipped target.",
    ),
)


def fit_options(*, lr: float, weight_decay: float, augment: str) -> Callable[[F], F]:
    """Return the options of the loop.

    Parameters
    ----------
    lr, weight_decay
        Defaults of a model.
    augment
        How its tiles are varied.
    """
    return stack(
        click.option(
            "--lr", type=FiniteRange(0, min_open=True), default=lr, show_default=True,
            help="Peak of the learning rate: linear warm-up, then a cosine to 0.",
        ),
        click.option(
            "--weight-decay", type=FiniteRange(0), default=weight_decay, show_default=True
        ),
        click.option("--warmup-epochs", type=FiniteRange(0), default=1.0, show_default=True),
        click.option(
            "--grad-clip", type=FiniteRange(0, min_open=True), help="Largest norm of the gradient."
        ),
        click.option("--amp/--no-amp", default=False, show_default=True, help="Mixed precision."),
        click.option(
            "--augment/--no-augment", default=True, show_default=True,
            help=f"{augment} in training.",
        ),
        click.option("--seed", type=SEED_RANGE, default=0, show_default=True),
        click.option(
            "--threads", type=click.IntRange(1),
            help="CPU threads; the last bits of results depend on it.  [default: all cores]",
        ),
        click.option(
            "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto",
            show_default=True,
        ),
    )  # fmt: skip


def fit_spec_of(options: dict[str, Any], *, epochs: int, patience: int | None) -> FitSpec:
    """Freeze the options of the loop."""
    from models.fit_spec import FitSpec

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return FitSpec(
        epochs=epochs,
        lr=options["lr"],
        weight_decay=options["weight_decay"],
        warmup_epochs=options["warmup_epochs"],
        patience=patience,
        grad_clip=options["grad_clip"],
        amp=options["amp"],
        device=options["device"],
        threads=options["threads"] or cores or 1,
        seed=options["seed"],
    )


def run_dir_of(command: str, options: dict[str, Any]) -> Path:
    """Return the run directory that is told, else a new one beside the store, or in ./runs."""
    from jobs.run_config import beside_store
    from jobs.run_directory import new_run_path

    if options["run_dir"] is not None:
        return Path(options["run_dir"]).expanduser().absolute()
    parent = Path("runs") if options["store"] is None else beside_store(options["store"], "runs")
    return new_run_path(parent.absolute(), command)


def absolute(path: Path | None) -> str | None:
    """Return a path as absolute text."""
    return None if path is None else str(path.expanduser().absolute())
