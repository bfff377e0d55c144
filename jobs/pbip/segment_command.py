"""``slidestream pbip segment``: trained networks on the slides of a store, to masks and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataflow.physical_size import MPP_RANGE
from jobs.option_types import FiniteRange
from jobs.options import (
    cluster_options,
    compute_options,
    json_option,
    stack,
    store_option,
    verbose_option,
)
from jobs.pbip.reference_yaml import reference_config_option

if TYPE_CHECKING:
    from dataflow.stitch_spec import Mode
    from jobs.pbip.segment import SegmentConfig

_path = click.Path(path_type=Path)
_MOST_OVERLAP = 0.75

_what = stack(
    click.option(
        "--run",
        "runs",
        required=True,
        multiple=True,
        type=_path,
        metavar="RUN",
        help="Run directory of `pbip train`, or its model.safetensors; of several the mean confidence is taken.",
    ),
    store_option,
    click.option(
        "--grid", "grid_name", metavar="NAME", help="Grid; needed when the store has several."
    ),
    click.option(
        "--slides",
        "slide_ids",
        multiple=True,
        metavar="ID",
        help="Only this slide; repeatable.  [default: all that have the grid]",
    ),
    click.option(
        "--name", metavar="NAME", help="Of scores and masks in the store.  [default: the run's]"
    ),
    click.option(
        "--out",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the files: one folder a slide, and batch_results.csv.",
    ),
)

_how = stack(
    click.option(
        "--overlap",
        type=FiniteRange(0, _MOST_OVERLAP),
        default=0.0,
        show_default=True,
        help="Share of a tile that it has in common with the next one: a grid like the given one is laid for it.",
    ),
    click.option(
        "--tissue-mask",
        type=_path,
        help="With --overlap, of a grid that was laid by masks: where these are.",
    ),
    click.option(
        "--tta",
        is_flag=True,
        help="Look at each tile turned and mirrored, eight ways, and average.",
    ),
    click.option(
        "--map-px",
        type=click.IntRange(1),
        help="Side of a tile's maps, a divisor of the tile's.  [default: a quarter of the tile's]",
    ),
    click.option(
        "--merge",
        type=click.Choice(["mean", "max", "softmax"]),
        default="softmax",
        show_default=True,
        help="How a class is made of its subclasses.",
    ),
    click.option(
        "--stitch",
        "mode",
        type=click.Choice(["mean", "gaussian"]),
        help="What is said where tiles overlap.  [default: gaussian with --overlap, else mean]",
    ),
    click.option("--mpp", type=FiniteRange(*MPP_RANGE), help="Pixel size of the result [µm]."),
    click.option(
        "--gate-by-label",
        "gate",
        type=_path,
        metavar="CSV",
        help="Slide labels (slide_id, label): other classes are taken out of a slide's mask, but for the background.",
    ),
    click.option("--crf", is_flag=True, help="Let confidence follow the edges of the slide."),
    click.option(
        "--post",
        type=click.Choice(["closing", "opening", "none"]),
        default="closing",
        show_default=True,
        help="Done to each class but the background.",
    ),
    click.option(
        "--kernel",
        "kernel_px",
        type=click.IntRange(1),
        default=3,
        show_default=True,
        help="Diameter of the disc that it is done with, odd [px of the result].",
    ),
    click.option(
        "--min-component",
        "min_component_px",
        type=click.IntRange(1),
        default=100,
        show_default=True,
        help="Smaller pieces are dropped [px of the result]; 1 keeps all.",
    ),
    click.option(
        "--edge-refinement", is_flag=True, help="Draw borders again from smoothed confidence."
    ),
    click.option(
        "--background",
        metavar="CLASS",
        help="The class that others grow into.  [default: benign, normal … where there is such a one, else the first]",
    ),
    click.option(
        "--allow-other-grid",
        is_flag=True,
        help="Take tiles of another pixel size than the networks were trained on.",
    ),
)

_where = stack(
    compute_options,
    click.option(
        "--verify/--no-verify",
        default=True,
        show_default=True,
        help="Check the checksums of what is stored already.",
    ),
    cluster_options,
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace what is stored under the same name but was made otherwise.",
    ),
    click.option(
        "--run-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of this run's log and metrics.  [default: beside the store]",
    ),
    json_option,
    verbose_option,
    reference_config_option,
)


@click.command(
    help="Segment slides: confidence of each class and masks, into the store and as PNG, NPZ and JSON. The same again "
    "does nothing, an interrupted call goes on. FILES are those of slides that have moved since they were indexed."
)
@click.argument("slides", metavar="[FILES]...", nargs=-1)
@stack(_what, _how, _where)
def segment(**options: Any) -> int:
    """Segment; exit code 1 if a slide could not be."""
    from jobs.pbip.segment import segment as run

    metrics = run(_config(options), quiet=options["as_json"])
    if options["as_json"]:
        click.echo(json.dumps(metrics, indent=2))
    else:
        _show(metrics)
    return 0 if metrics["ok"] else 1


def _config(options: dict[str, Any]) -> SegmentConfig:
    """Freeze what click parsed; nothing after this knows of options."""
    from dataflow.mask_refine import RefineSpec
    from dataflow.stitch_spec import StitchSpec
    from jobs.find_slides import only_grid
    from jobs.pbip.segment import SegmentConfig
    from jobs.pbip.segment_settings import PbipSegmentSettings
    from jobs.run_config import ClusterSettings, absolute_url, check_store_place
    from jobs.stream_call import absolute_paths, run_dir_of, settings_of
    from jobs.training.tile_checkpoint import checkpoint_of
    from models.crf import CrfSpec

    store = options["store"]
    check_store_place(store)
    first: Path = options["runs"][0].expanduser().absolute()
    default_name = first.name if first.is_dir() else first.parent.name
    networks = PbipSegmentSettings(
        checkpoints=tuple(str(checkpoint_of(str(run))) for run in options["runs"]),
        name=options["name"] or default_name,
        map_px=options["map_px"],
        tta=options["tta"],
        merge=options["merge"],
        allow_other_grid=options["allow_other_grid"],
        precision=options["precision"],
        batch_size=options["batch_size"],
        device=options["device"],
        require_gpu=options["require_gpu"],
        verify=options["verify"],
    )
    mode: Mode = options["mode"] or ("gaussian" if options["overlap"] else "mean")
    return SegmentConfig(
        store=store,
        grid=only_grid(absolute_url(store), options["grid_name"]),
        networks=networks,
        out=str(options["out"].expanduser().absolute()),
        run_dir=run_dir_of("pbip segment", options),
        slides=options["slide_ids"],
        files=absolute_paths(options["slides"]),
        overlap=options["overlap"],
        tissue_mask=_absolute(options["tissue_mask"]),
        stitch=StitchSpec(mode, mpp=options["mpp"], argmax=True),
        crf=CrfSpec() if options["crf"] else None,
        refine=RefineSpec(
            options["post"],
            options["kernel_px"],
            options["min_component_px"],
            options["edge_refinement"],
        ),
        background=options["background"],
        gate=_absolute(options["gate"]),
        cluster=settings_of(ClusterSettings, options),
        overwrite=options["overwrite"],
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())


def _show(metrics: dict[str, Any]) -> None:
    from jobs.counted import counted
    from jobs.one_line import one_line
    from jobs.summary import summary_lines

    click.echo("\n".join(summary_lines(metrics)))
    for slide_id, problem in metrics["unsegmented"].items():
        click.echo(one_line(f"failed: {slide_id}: {problem}"), err=True)
    segmented = metrics["segmented"]
    if any(found["gated_by_label"] for found in segmented.values()):
        click.echo("gated    by slide labels: classes that a label doesn't name are taken out")
    # of the last step there was: what `pbip evaluate --name` is to be given
    final = dict.fromkeys(found["mask_in_store"].rpartition("/")[0] for found in segmented.values())
    masks = " and ".join(final) or f"masks/{metrics['masks']}"
    click.echo(f"masks    {masks}: {counted(len(segmented), 'slide')} segmented")
    click.echo(f"files    {metrics['out']}")
