"""``slidestream mil train`` and ``mil cv``: options → frozen config → training → table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from jobs.mil.training_options import cv_options, parse_settings, train_options

if TYPE_CHECKING:
    from jobs.mil.config import MilConfig, ThresholdRule


@click.command(
    help="Train a slide model on the features of a store, and judge it on held-out slides."
)
@train_options
def train(**options: Any) -> int:
    """Train one fold here."""
    from jobs.mil.train_here import train_here

    return _finish(train_here(config_of("train", options), quiet=options["as_json"]), options)


@click.command(help="Cross-validate a slide model: every fold is a task of the cluster.")
@cv_options
def cv(**options: Any) -> int:
    """Train all folds on a cluster."""
    from jobs.mil.cv import cross_validate_here

    return _finish(cross_validate_here(config_of("cv", options), quiet=options["as_json"]), options)


def _finish(metrics: dict[str, Any], options: dict[str, Any]) -> int:
    from jobs.mil.fold_metrics import FOLD_KIND, has_failed
    from jobs.mil.results_table import show_results

    if options["as_json"]:
        click.echo(json.dumps(metrics, indent=2))
    else:
        show_results(metrics)
    folds = [metrics] if metrics["kind"] == FOLD_KIND else metrics["folds"]
    return 1 if any(has_failed(fold) for fold in folds) else 0


def config_of(command: Literal["train", "cv"], options: dict[str, Any]) -> MilConfig:
    """Freeze what click parsed; nothing after this knows of options."""
    from jobs.mil.config import BagSettings, MilConfig, SplitSettings
    from jobs.run_config import ClusterSettings
    from models.bag_losses import LossSpec
    from models.fit import FitSpec

    files = options["splits"] if command == "cv" else filter(None, [options["splits"]])
    leaky = options["protocol"] == "published"
    # the protocol of the paper fixes both
    monitor = "val_accuracy_at_own_threshold" if leaky else options["monitor"]
    threshold: ThresholdRule = "youden" if leaky else options["threshold"]
    store = options["store"]
    return MilConfig(
        command=command,
        bags=BagSettings(
            store=store,
            features=options["features"],
            grid=options["grid"],
            labels=_absolute(options["labels"]),
            bags_csv=_absolute(options["bags_csv"]),
            selection=options["selection"],
            bag_level=options["bag_level"],
            allow_incomplete=options["allow_incomplete"],
        ),
        splits=SplitSettings(
            files=tuple(str(Path(f).expanduser().absolute()) for f in files),
            folds=options["folds"],
            repeats=options.get("repeats", 1),
            val_fraction=options["val_fraction"],
            fold=options.get("fold", 0),
        ),
        model=options["model"],
        model_settings=parse_settings(options["settings"]),
        loss=LossSpec(
            kind=options["loss"],
            class_weights=options["class_weights"],
            label_smoothing=options["label_smoothing"],
        ),
        fit=FitSpec(
            epochs=options["epochs"],
            lr=options["lr"],
            weight_decay=options["weight_decay"],
            warmup_epochs=options["warmup_epochs"],
            monitor=monitor,
            # of all that validation gives, only losses and errors are better when they are less
            mode="min" if monitor.endswith(("loss", "_ece")) else "max",
            patience=options["early_stopping"],
            amp=options["amp"],
            device=options["device"],
            threads=options["threads"],
            seed=options["seed"],
        ),
        balanced_sampling=options["balanced_sampling"],
        bag_size=options["bag_size"],
        batch_size=options["batch_size"],
        l2_normalize=options["l2_normalize"],
        standardize=options["standardize"],
        threshold=threshold,
        protocol=options["protocol"],
        preset=options["preset"],
        plot_every=options["plot_every"],
        tensorboard=options["tensorboard"],
        run_dir=str(_run_dir(command, options)),
        cluster=ClusterSettings(
            scheduler=options.get("scheduler"),
            workers=options.get("workers"),
            threads=None,
            memory=options.get("memory", "auto"),
            dashboard_port=options.get("dashboard_port"),
        ),
    )


def _run_dir(command: str, options: dict[str, Any]) -> Path:
    from jobs.run_config import beside_store
    from jobs.run_directory import new_run_path

    if options["run_dir"] is not None:
        return Path(options["run_dir"]).expanduser().absolute()
    parent = Path("runs") if options["store"] is None else beside_store(options["store"], "runs")
    return new_run_path(parent.absolute(), f"mil-{command}")


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())
