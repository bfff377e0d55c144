"""Options that ``vae train`` and ``vae finetune`` share, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jobs.option_types import FiniteRange, StorePlace
from jobs.options import stack
from jobs.training.options import absolute, fit_spec_of, run_dir_of

if TYPE_CHECKING:
    from jobs.training.stain_settings import StainSettings
    from jobs.vae.config import OriginSettings, TrainingSettings

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


def training_settings(
    command: str, options: dict[str, Any], *, epochs: int, patience: int | None
) -> TrainingSettings:
    """Freeze what both trainings have in common."""
    from jobs.vae.config import TrainingSettings

    return TrainingSettings(
        origin=_origin(options),
        stain=stain_settings(options),
        fit=fit_spec_of(options, epochs=epochs, patience=patience),
        min_saturation=options["min_saturation"],
        val_fraction=options["val_fraction"],
        plot_every=options["plot_every"],
        tensorboard=options["tensorboard"],
        run_dir=str(run_dir_of(command, options)),
    )


def stain_settings(options: dict[str, Any]) -> StainSettings:
    """Freeze the stain options."""
    from jobs.training.stain_settings import StainSettings

    return StainSettings(options["stain"], options["stain_fit"], absolute(options["stain_target"]))


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
