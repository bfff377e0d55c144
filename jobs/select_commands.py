"""``slidestream select top-k``: tiles that are worth training on, as a selection in the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from jobs.option_types import FiniteRange
from jobs.options import config_option, json_option, store_option, verbose_option

_SHOWN = 20


@click.group(help="Choose tiles of slides.")
def select() -> None:
    """Group the select commands."""


@select.command(
    "top-k",
    help="Rank the tiles of each slide and write the best to the store as a selection, for `mil train --selection`. "
    "Of attention by class the greatest counts; of equal tiles the first. Attention knows the slides that its --run "
    "learned from: train on such a selection only with the run's own splits, or use `mil two-pass`; anything else is "
    "flagged as leaky.",
)
@store_option
@click.option("--features", metavar="NAME", help="Needed when the store has several.")
@click.option("--grid", metavar="NAME", help="Needed when the store has several.")
@click.option("--name", required=True, metavar="NAME", help="Name of the selection.")
@click.option(
    "--rank",
    type=click.Choice(["feature-norm", "attention", "weighted"]),
    default="feature-norm",
    show_default=True,
    help="L2 norm of the features, attention of a trained model, or both, each brought to 0-1 on each slide.",
)
@click.option(
    "--alpha",
    type=FiniteRange(0, 1),
    default=0.7,
    show_default=True,
    help="Weight of the attention in --rank weighted.",
)
@click.option(
    "--k", type=click.IntRange(1), help="Tiles of a slide; all, where it has fewer.  [default: 512]"
)
@click.option(
    "--fraction",
    type=FiniteRange(0, 1, min_open=True),
    help="Part of a slide's tiles, instead of --k.",
)
@click.option(
    "--run",
    "run_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Run of `mil train` or `mil cv` that gives the attention; of a cv, a slide's own test fold, or the mean.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option("--overwrite", is_flag=True, help="Replace a selection of that name made otherwise.")
@json_option
@verbose_option
@config_option
def top_k(
    k: int | None,
    run_dir: Path | None,
    device: Literal["auto", "cpu", "cuda"],
    as_json: bool,
    verbose: bool,
    **options: Any,
) -> int:
    """Select the best tiles."""
    from jobs.mil.select import SelectConfig, select_top_k

    if k is None and options["fraction"] is None:
        k = 512
    config = SelectConfig(k=k, **options)
    source = None
    if run_dir is not None:
        from jobs.mil.run_attention import attention_of_run

        source = attention_of_run(run_dir, device)
    summary = select_top_k(config, source)
    click.echo(json.dumps(summary, indent=2) if as_json else "\n".join(_lines(summary)))
    return 0 if summary["ok"] else 1


def _lines(summary: dict[str, Any]) -> list[str]:
    slides, tiles = summary["slides"], summary["tiles"]
    lines = [
        f"selection {summary['selection']} on {summary['grid']}, by {summary['rank']} of {summary['features']}: "
        f"{tiles['selected']:,} of {tiles['of']:,} tiles of {slides['complete']} slides"
    ]
    if slides["all_tiles_kept"]:
        lines.append(f"  all tiles of {slides['all_tiles_kept']} slides, which have no more")
    if slides["without_features"]:
        lines.append(
            f"  {len(slides['without_features'])} slides of the store have no such features"
        )
    lines += [
        f"  {f['slide_id']} [{f['reason']}] {f['message']}" for f in summary["failures"][:_SHOWN]
    ]
    return lines
