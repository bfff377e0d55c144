"""``slidestream mil two-pass``: four passes with one command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jobs.mil.training_options import cv_options
from jobs.option_types import FiniteRange
from jobs.options import stack

if TYPE_CHECKING:
    from jobs.mil.two_pass import PassRecord, TwoPassConfig

# what the passes decide themselves, and what makes no sense with them
_FIXED: Final[dict[str, Any]] = {
    "selection": None, "bags_csv": None, "epochs": 1, "repeats": 1, "preset": None,
}  # fmt: skip

_own_options = stack(
    click.option(
        "--name", required=True, metavar="PREFIX", help="What the selections' names begin with."
    ),
    click.option(
        "--k",
        type=click.IntRange(1),
        help="Tiles of a slide; all, where it has fewer.  [default: 512]",
    ),
    click.option(
        "--fraction",
        type=FiniteRange(0, 1, min_open=True),
        help="Part of a slide's tiles, instead of --k.",
    ),
    click.option(
        "--alpha",
        type=FiniteRange(0, 1),
        default=0.7,
        show_default=True,
        help="Weight of the attention in the second selection; the norm has the rest.",
    ),
    click.option("--epochs1", type=click.IntRange(1), default=50, show_default=True),
    click.option("--epochs2", type=click.IntRange(1), default=100, show_default=True),
)


@click.command(
    "two-pass",
    help="Train on the best tiles: (1) select by feature norm, (2) train, (3) select by attention and norm over whole "
    "slides, (4) train. With one --splits file a single model, else a cross-validation, each fold with a selection of "
    "its own. Takes the options of `mil cv`.",
)
@_own_options
@cv_options
def two_pass(**options: Any) -> int:
    """Run the four passes; what is done already is left as it is."""
    from jobs.mil.results_table import show_results
    from jobs.mil.two_pass import two_pass as run_passes

    config, quiet = _config(options), options["as_json"]
    records = run_passes(config, quiet=quiet, trained=_nothing if quiet else show_results)
    if options["as_json"]:
        directory = config.training.run_dir
        found = {"run_dir": directory, "passes": [asdict(record) for record in records]}
        click.echo(json.dumps(found, indent=2))
    else:
        _show(records)
    return 0


two_pass.params = [param for param in two_pass.params if param.name not in _FIXED]


def _nothing(metrics: Mapping[str, Any]) -> None:
    """Show nothing."""


def _config(options: dict[str, Any]) -> TwoPassConfig:
    from jobs.mil.training_commands import config_of
    from jobs.mil.two_pass import TwoPassConfig
    from jobs.run_config import beside_store
    from store_schema.errors import InputError
    from store_schema.ids import check_name

    if options["store"] is None or options["labels"] is None:
        raise InputError("name --store and --labels: the passes read features and write selections")
    k, fraction = options["k"], options["fraction"]
    if k is not None and fraction is not None:
        raise InputError("give either --k or --fraction")
    name = check_name(options["name"], "prefix")
    one = len(options["splits"]) == 1
    # not a new folder each time: the same call goes on where it was
    place = options["run_dir"] or beside_store(options["store"], "runs") / f"two-pass-{name}"
    given = {
        **options,
        **_FIXED,
        "splits": options["splits"][0] if one else options["splits"],
        "run_dir": Path(place),
    }
    return TwoPassConfig(
        name=name,
        k=512 if k is None and fraction is None else k,
        fraction=fraction,
        alpha=options["alpha"],
        epochs=(options["epochs1"], options["epochs2"]),
        training=config_of("train" if one else "cv", given),
    )


def _show(records: list[PassRecord]) -> None:
    from rich.markup import escape

    from jobs.mil.fold_metrics import shown_mean
    from jobs.tables import new_table, show

    table = new_table(
        "pass", "what", "seconds", "device", "test AUC", "flagged", "output",
        right=("seconds", "test AUC", "flagged"),
    )  # fmt: skip
    lines = []
    for record in records:
        cells = [str(record.number), record.what, f"{record.seconds:.1f}", record.device, "", ""]
        if record.test is not None:
            cells[4:] = [shown_mean(record.test["auc"]), str(len(record.flags or ()))]
        else:  # those of trainings stand below their own tables
            lines += [
                f"[yellow]warning[/]  pass {record.number}: {escape(w)}" for w in record.warnings
            ]
        table.add_row(*cells, escape(record.output))
    table.add_row("total", "", f"{sum(record.seconds for record in records):.1f}", "", "", "", "")
    show(table, *lines)
