"""Options that ``vae train`` and ``vae finetune`` share, and what they come to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from jobs.option_types import SEED_RANGE, FiniteRange, StorePlace
from jobs.options import stack

if TYPE_CHECKING:
    from jobs.vae.config import OriginSettings, StainSettings, TrainingSettings
    from models.fit_spec import FitSpec

F = TypeVar("F", bound=Callable[..., Any])

PATH: Final = click.Path(path_type=Path)

origin_options = stack(
    click.option(
        "--store", type=StorePlace(), metavar="PATH|URL", help="A Zarr store: its slides' tiles."
    ),
    click.option("--grid", metavar="NAME", help="Grid; needed when the store has several."),
    click.option("--slides", multiple=True, metavar="ID", help="Only this slide; repeatable."),
    click.option("--labels", type=PATH, help="CSV with the columns slide_id, label[, patient_id]."),
    click.option(
        "--normal",
        multiple=True,
        metavar="LABEL",
        help="Which label means normal; repeatable.  [default: normal, negative, benign …]",
    ),
    click.option(
        "--splits", type=PATH, help="CSV with the columns train, val.  [default: drawn by patient]"
    ),
    click.option(
        "--pcam",
        type=(PATH, PATH),
        default=None,
        metavar="X.h5 Y.h5",
        help="PatchCamelyon's images and labels, instead of a store.",
    ),
    click.option(
        "--pcam-meta", type=PATH, help="PatchCamelyon's CSV with the column wsi: splits by slide."
    ),
)

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

preparation_options = stack(
    click.option(
        "--min-saturation",
        type=FiniteRange(0, 1),
        default=0.07,
        show_default=True,
        help="Leave out tiles whose blurred HSV saturation is nowhere that high; 0 keeps all.",
    ),
    click.option(
        "--val-fraction",
        type=FiniteRange(0, 0.5, min_open=True),
        default=0.15,
        show_default=True,
        help="Share of the tiles that validates, without --splits.",
    ),
    click.option(
        "--allow-other-grid",
        is_flag=True,
        help="Take tiles of another size or pixel size than the model is for.",
    ),
)


def fit_options(*, lr: float, weight_decay: float) -> Callable[[F], F]:
    """Return the options of the loop, with the defaults of a model."""
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
            help="Flips, quarter turns and light colour in training.",
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


def training_settings(
    command: str, options: dict[str, Any], *, epochs: int, patience: int | None
) -> TrainingSettings:
    """Freeze what both trainings have in common."""
    from jobs.vae.config import TrainingSettings

    return TrainingSettings(
        origin=_origin(options),
        stain=stain_settings(options),
        fit=_fit(options, epochs, patience),
        min_saturation=options["min_saturation"],
        val_fraction=options["val_fraction"],
        plot_every=options["plot_every"],
        tensorboard=options["tensorboard"],
        run_dir=str(_run_dir(command, options)),
    )


def stain_settings(options: dict[str, Any]) -> StainSettings:
    """Freeze the stain options."""
    from jobs.vae.config import StainSettings

    return StainSettings(options["stain"], options["stain_fit"], absolute(options["stain_target"]))


def absolute(path: Path | None) -> str | None:
    """Return a path as absolute text."""
    return None if path is None else str(path.expanduser().absolute())


def _origin(options: dict[str, Any]) -> OriginSettings:
    from jobs.vae.config import OriginSettings

    pcam = options["pcam"]
    return OriginSettings(
        store=options["store"],
        grid=options["grid"],
        slides=options["slides"],
        labels=absolute(options["labels"]),
        normal=options["normal"],
        splits=absolute(options["splits"]),
        truth=absolute(options.get("truth")),
        positive_from=options.get("positive_from", 0.5),
        pcam=None if pcam is None else (str(absolute(pcam[0])), str(absolute(pcam[1]))),
        pcam_meta=absolute(options["pcam_meta"]),
        images=absolute(options.get("images")),
        mpp=options.get("mpp"),
        allow_other_grid=options["allow_other_grid"],
    )


def _fit(options: dict[str, Any], epochs: int, patience: int | None) -> FitSpec:
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


def _run_dir(command: str, options: dict[str, Any]) -> Path:
    from jobs.run_config import beside_store
    from jobs.run_directory import new_run_path

    if options["run_dir"] is not None:
        return Path(options["run_dir"]).expanduser().absolute()
    parent = Path("runs") if options["store"] is None else beside_store(options["store"], "runs")
    return new_run_path(parent.absolute(), command)
