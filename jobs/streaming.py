"""One run of the stream, from its frozen config to its metrics: what run, index, encode and vae score call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from distributed import Client, span
from rich.console import Console

from dataflow.cluster import connect, dashboard_link, require_gpu_workers
from dataflow.executors import DaskExecutor
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver
from jobs.prepare import Prepared, prepare
from jobs.progress import BarObserver, LineObserver, LogObserver, say
from jobs.run_config import RunConfig
from jobs.run_directory import run_directory
from jobs.summary import run_metrics
from jobs.tile_maps import tile_maps
from store_schema.store import create_store


def run_here(config: RunConfig, *, quiet: bool) -> dict[str, Any]:
    """Run on the cluster that the config names, and show progress here.

    Parameters
    ----------
    config
        The call.
    quiet
        No progress (``--json``).

    Returns
    -------
    dict
        The metrics, see :func:`jobs.summary.run_metrics`.
    """
    prepared = prepare(config)
    with connect(config.cluster.scheduler, config.cluster.spec()) as client:
        if not quiet:
            say(f"dashboard {dashboard_link(client)}")
        return execute(config, prepared, client, lambda n, logger: shown(n, logger, quiet=quiet))


@contextmanager
def shown(n_slides: int, logger: logging.Logger, *, quiet: bool) -> Iterator[StreamObserver]:
    """Show progress: a bar on a terminal, plain lines elsewhere, only the log if ``quiet``."""
    console = Console(stderr=True)
    if quiet:
        yield LogObserver(n_slides, logger)
    elif console.is_terminal:
        with BarObserver(n_slides, logger, console) as bar:
            yield bar
    else:
        yield LineObserver(n_slides, logger, say)


def execute(
    config: RunConfig,
    prepared: Prepared,
    client: Client,
    observe: Callable[[int, logging.Logger], AbstractContextManager[StreamObserver]],
) -> dict[str, Any]:
    """Run on a connected cluster; leaves a run directory and a store.

    Parameters
    ----------
    config
        The call.
    prepared
        The same, checked.
    client
        Of the cluster.
    observe
        Number of slides and the run's logger → context manager of the observer that is told what happens.

    Raises
    ------
    SlidestreamError
        The store can't be made, or the cluster has no worker that could do the work.
    """
    factory, spec = prepared.factory, prepared.spec
    dashboard = dashboard_link(client)  # asked for while the scheduler is there
    if factory is not None and factory.needs_gpu:
        require_gpu_workers(client)
    create_store(config.store_url)
    with run_directory(Path(config.run_dir), config.to_json()) as directory:
        for failure in prepared.refused:
            directory.logger.error("%s [%s]: %s", failure.slide_id, failure.reason, failure.message)
        warnings = [] if factory is None else list(factory.warnings)
        for warning in warnings:
            directory.logger.warning("of the model: %s", warning)
        n_slides = len(prepared.sources)
        with (
            observe(n_slides, directory.logger) as observer,
            span("slidestream", config.command),
        ):
            report = run_stream(DaskExecutor(client), spec, prepared.sources, observer)
        extra: dict[str, Any] = {
            "command": config.command,
            "store": config.store,
            "grid": spec.grid_name,
            "run_dir": config.run_dir,
            "dashboard": dashboard,
        }
        qc_dir = None if spec.index is None else spec.index.qc_dir
        if qc_dir is not None and Path(qc_dir).is_dir():  # not where no slide came that far
            extra["qc"] = qc_dir
        if factory is not None and spec.encode is not None:
            extra |= {
                spec.encode.kind: spec.encode.name,  # features or scores
                "device": factory.device,
                "precision": factory.precision,
                "warnings": warnings,
            }
            maps = tile_maps(factory.outputs, prepared.grid)
            extra |= {"maps": maps} if maps else {}
        metrics = run_metrics(report, prepared.refused, n_slides, extra)
        directory.write_metrics(metrics)
        _log_end(directory.logger, metrics)
        return metrics


def _log_end(logger: logging.Logger, metrics: dict[str, Any]) -> None:
    logger.log(
        logging.INFO if metrics["ok"] else logging.ERROR,
        "%d of %d slides complete, %d tiles in %.1f s",
        metrics["slides"]["complete"],
        metrics["slides"]["asked"],
        metrics["tiles"]["done"],
        metrics["wall_seconds"],
    )
