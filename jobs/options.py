"""Options that several commands share, each spelled once; and where their values may come from."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dataflow.physical_size import MPP_RANGE
from jobs.option_types import TILE_PX_RANGE, FiniteRange, MemoryLimit, StorePlace

F = TypeVar("F", bound=Callable[..., Any])


Translate = Callable[[Path, dict[Any, Any], click.Command], dict[Any, Any]]
"""Takes a file, what it says, and the command; returns it as options of the command."""


def _as_it_is(_: Path, loaded: dict[Any, Any], __: click.Command) -> dict[Any, Any]:
    return loaded


def _load_config(ctx: click.Context, value: Path, translate: Translate) -> None:
    """Take option defaults from a YAML file; the command line and the environment win over it."""
    import yaml

    try:
        loaded = yaml.safe_load(value.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.BadParameter(
            f"{value} can't be read as YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(loaded, dict):
        raise click.BadParameter(f"{value} must hold a mapping of option names to values")
    known = {
        spelling.lstrip("-").replace("-", "_"): param
        for param in ctx.command.params
        for spelling in (*param.opts, *param.secondary_opts)
        if spelling != "--config"
    }
    values = {}
    for key, item in translate(value, loaded, ctx.command).items():
        name = str(key).replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.BadParameter(f"{value}: `{ctx.command.name}` has no option {key!r}{hint}")
        if item is not None:  # `mpp:` with nothing behind it says nothing
            values[str(known[name].name)] = _checked_value(value, key, known[name], item)
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _checked_value(file: Path, key: object, param: click.Parameter, item: object) -> object:
    """Return what YAML holds for an option if click can make something of it: words, numbers or a switch."""
    if param.nargs != 1 or param.multiple:
        items = item if isinstance(item, list) else [item]
        return [_scalar(file, key, each, flag=False) for each in items]
    return _scalar(file, key, item, flag=isinstance(param, click.Option) and param.is_flag)


def _scalar(file: Path, key: object, item: object, *, flag: bool) -> object:
    if isinstance(item, bool) and not flag:
        raise click.BadParameter(
            f"{file}: {key} is {str(item).lower()}; put it in quotes if it is a word"
        )
    if not isinstance(item, str | int | float):
        raise click.BadParameter(
            f"{file}: {key} takes one value, not {item!r} (put it in quotes if it is a word)"
        )
    return item


def config_option_by(translate: Translate, kind: str) -> Callable[[F], F]:
    """Return the option ``--config``.

    Parameters
    ----------
    translate
        Makes options of what a file says.
    kind
        Of file, for the help.
    """

    def load(ctx: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
        if value is not None:
            _load_config(ctx, value, translate)
        return value

    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=load,
        help=f"{kind}; command line and SLIDESTREAM_* variables win.",
    )


config_option = config_option_by(_as_it_is, "YAML file with any of these options (long names)")

store_option = click.option(
    "--store",
    type=StorePlace(),
    required=True,
    metavar="PATH|URL",
    help="The Zarr store: a local path or any fsspec URL.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of text."
)
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Show tracebacks and details.")

scheduler_option = click.option(
    "--scheduler",
    metavar="ADDRESS|FILE",
    help="Dask scheduler to use (tcp://…, or a scheduler file); without it an embedded cluster is started.",
)


def stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Combine decorators; the first one named is shown first in the help."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


truth_options = stack(
    click.option(
        "--truth",
        type=click.Path(path_type=Path),
        help="Folder of masks of any scale, GeoJSON or ASAP XML, named after the slides; or a CSV of tile labels "
        "(slide_id, x, y, label).",
    ),
    click.option(
        "--positive-from",
        type=FiniteRange(0, 1),
        default=0.5,
        show_default=True,
        help="A tile is positive if more of its area than this is.",
    ),
)

without_truth_option = click.option(
    "--without-truth",
    type=click.Choice(["skip", "negative"]),
    default="skip",
    show_default=True,
    help="Slides without truth: leave them out, or take all of their tiles for negative.",
)


def training_file_options(counted: str) -> Callable[[F], F]:
    """Return what says how a run is written; pictures come every so many of what is counted."""
    return stack(
        click.option(
            "--plot-every",
            type=click.IntRange(0),
            default=1,
            show_default=True,
            metavar="N",
            help=f"{counted} between pictures; 0 draws only at the end.",
        ),
        click.option("--tensorboard", is_flag=True, help="Write TensorBoard event files, too."),
        click.option(
            "--run-dir",
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder of this run; an interrupted one goes on.  [default: beside the store, or ./runs]",
        ),
        json_option,
        verbose_option,
    )


training_output_options = stack(training_file_options("Epochs"), config_option)

existing_scheduler_option = click.option(
    "--scheduler",
    metavar="ADDRESS|FILE",
    help="Dask scheduler that has the jobs; without it the background cluster of this machine.",
)

cluster_options = stack(
    scheduler_option,
    click.option(
        "--workers", type=click.IntRange(1), help="Worker processes of the embedded cluster."
    ),
    click.option(
        "--threads", type=click.IntRange(1), help="Cores per worker of the embedded cluster."
    ),
    click.option(
        "--memory",
        type=MemoryLimit(),
        default="auto",
        show_default=True,
        help="Memory limit per worker, e.g. 8GiB.",
    ),
    click.option(
        "--dashboard-port",
        type=click.IntRange(0, 65535),
        help="Port of the dashboard on 127.0.0.1.",
    ),
)

grid_options = stack(
    click.option(
        "--tile-px",
        type=click.IntRange(*TILE_PX_RANGE),
        help="Tile side at --mpp.  [default: 256]",
    ),
    click.option(
        "--tile-um",
        type=FiniteRange(0, min_open=True),
        help="Tile side in µm, instead of --tile-px.",
    ),
    click.option(
        "--mpp",
        type=FiniteRange(*MPP_RANGE),
        default=0.5,
        show_default=True,
        help="Pixel size of the tiles [µm].",
    ),
    click.option(
        "--stride-px",
        type=click.IntRange(1),
        help="Distance of tiles at --mpp; less than the tile makes them overlap.  [default: tile]",
    ),
    click.option(
        "--edge",
        type=click.Choice(["drop", "pad"]),
        default="drop",
        show_default=True,
        help="Tiles that reach over the border.",
    ),
    click.option(
        "--min-tissue",
        type=FiniteRange(0, 1),
        default=0.25,
        show_default=True,
        help="Smallest tissue fraction of a tile.",
    ),
    click.option(
        "--tissue",
        type=click.Choice(["none", "otsu", "threshold", "mask"]),
        default="otsu",
        show_default=True,
        help="How tissue is found.",
    ),
    click.option(
        "--tissue-threshold",
        type=FiniteRange(0, 1, max_open=True),
        help="Saturation threshold of --tissue threshold.  [default: 0.07]",
    ),
    click.option(
        "--tissue-mask",
        type=click.Path(path_type=Path),
        help="Mask image or GeoJSON of --tissue mask, or a folder with one per slide id.",
    ),
    click.option(
        "--slide-mpp",
        type=FiniteRange(*MPP_RANGE),
        help="Pixel size of the slides [µm, level 0], over what they say.",
    ),
    click.option(
        "--grid-name",
        help="Name of the grid in the store, to keep several of one size.  [default: by size, mpp and stride]",
    ),
    click.option(
        "--block-tiles",
        type=click.IntRange(1),
        default=1024,
        show_default=True,
        help="Tiles per block: one task, one stored object.",
    ),
    click.option(
        "--qc/--no-qc",
        default=True,
        show_default=True,
        help="Draw a QC picture per slide beside the store.",
    ),
)

compute_options = stack(
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
        default="auto",
        show_default=True,
    ),
    click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
    ),
    click.option(
        "--require-gpu", is_flag=True, help="An error instead of the CPU when there is no GPU."
    ),
)

encode_options = stack(
    click.option(
        "--encoder",
        default="efficientnet-lite0",
        show_default=True,
        help="See `slidestream encoders`.",
    ),
    click.option(
        "--features-name", help="Name of the features in the store.  [default: the encoder's]"
    ),
    click.option(
        "--resize",
        type=click.Choice(["model", "fit", "none"]),
        default="model",
        show_default=True,
        help="How tiles become the encoder's input: its own resize and crop, the whole tile resized, or as they are.",
    ),
    click.option(
        "--stain",
        type=click.Choice(["none", "macenko", "reinhard"]),
        default="none",
        show_default=True,
        help="Stain normalization.",
    ),
    click.option(
        "--stain-fit",
        type=click.Choice(["slide", "tile"]),
        default="slide",
        show_default=True,
        help="One stain basis per slide, or each tile by itself.",
    ),
    click.option(
        "--stain-target",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Reference image instead of the shipped target.",
    ),
    compute_options,
    click.option(
        "--dtype",
        type=click.Choice(["float16", "float32"]),
        default="float16",
        show_default=True,
        help="Of the stored features.",
    ),
    click.option("--compile", "compile_model", is_flag=True, help="torch.compile the model."),
    click.option(
        "--random-weights",
        is_flag=True,
        help="Random weights (seeded by --seed), for tests and lower bounds.",
    ),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option(
        "--verify/--no-verify",
        default=True,
        show_default=True,
        help="Check the checksums of blocks that are stored already.",
    ),
)

run_options = stack(
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace what is stored under the same name but was made otherwise.",
    ),
    click.option(
        "--detach", is_flag=True, help="Hand the job to the cluster, print its id, and return."
    ),
    click.option(
        "--run-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of this run's log and metrics.  [default: beside the store]",
    ),
    json_option,
    verbose_option,
    config_option,
)
