"""``mil cv``: folds and repeats as independent tasks of a cluster, and what they come to together."""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from distributed import Client, Future, KilledWorker, as_completed, span

from dataflow.cluster import (
    ClusterSpec,
    answering,
    connect,
    dashboard_link,
    gone,
    require_gpu_workers,
)
from jobs.mil.cohort import make_splits, open_bags
from jobs.mil.config import LEAKY, MilConfig
from jobs.mil.fold_metrics import CV_KIND, SCHEMA, failed_fold, summarize
from jobs.mil.fold_observers import EPOCH_TOPIC, TellingObserver, tell_cluster
from jobs.mil.predictions import read_predictions, write_predictions
from jobs.mil.report import REPORT, write_report
from jobs.mil.run_files import FREE, PREDICTIONS
from jobs.mil.splits import Split
from jobs.mil.train import finished_metrics, train_fold
from jobs.mil.train_here import check_model, check_options
from jobs.mil.training_progress import TrainingProgress, shown
from jobs.progress import say
from jobs.run_directory import RunDirectory, run_directory, write_whole
from jobs.run_lock import alone_in
from jobs.training.run_files import METRICS, check_same_settings, read_metrics
from models.determinism import resolve_device
from store_schema.errors import BusyError, ClusterError, SlidestreamError

# torch's random state and threads belong to the process: two folds in one would disturb each other's bits
_ONE_AT_A_TIME: Final = threading.Lock()


@dataclass(frozen=True)
class FoldTask:
    """One fold of a cross-validation: everything that its bits follow from.

    Attributes
    ----------
    config
        The settings, with the seed of its repeat.
    split
        Slides of its parts.
    fold
        Its number, over all repeats.
    """

    config: MilConfig
    split: Split
    fold: int

    @property
    def directory(self) -> Path:
        """Where its files go."""
        return Path(self.config.run_dir)


def fold_tasks(config: MilConfig, splits: Sequence[Split]) -> list[FoldTask]:
    """Return the tasks of a cross-validation, numbered through over the repeats."""
    a_repeat = len(splits) if config.splits.files else config.splits.folds
    tasks = []
    for i, split in enumerate(splits):
        own = config.for_fold(i % a_repeat, i // a_repeat, str(Path(config.run_dir) / f"fold_{i}"))
        tasks.append(FoldTask(replace(own, bags=own.bags.of_fold(i)), split, i))
    return tasks


def cross_validate_here(config: MilConfig, *, quiet: bool) -> dict[str, Any]:
    """Cross-validate on the cluster that the config names, and show progress here.

    Parameters
    ----------
    config
        The call.
    quiet
        No progress (``--json``).

    Returns
    -------
    dict
        The metrics of all folds, their summary, and ``run_dir``.

    Raises
    ------
    SlidestreamError
        Nothing can be started.
    """
    check_options(config)
    cohort = open_bags(config.bags.of_fold(0))
    check_model(config, cohort)
    splits = make_splits(config.splits, cohort, config.fit.seed)
    tasks = fold_tasks(config, splits)
    directory = Path(config.run_dir)
    described = {**config.to_json(), "inputs": cohort.inputs()}
    check_same_settings(directory, described, FREE)
    if not quiet:
        for note in cohort.bags.notes():
            say(f"note: {note}")
    with (
        alone_in(directory),
        run_directory(directory, described) as run,
        shown(len(tasks), config.fit.epochs, quiet=quiet) as progress,
    ):
        folds = _all_folds(config, tasks, run, progress, quiet=quiet)
        metrics = _aggregate(config, folds)
        there = all((directory / name).exists() for name in (REPORT, PREDICTIONS))
        if read_metrics(directory) != metrics or not there:
            run.write_metrics(metrics)
            _gather_predictions(directory, folds)
            write_report([directory], directory)
    return {**metrics, "run_dir": config.run_dir}


def _all_folds(
    config: MilConfig,
    tasks: Sequence[FoldTask],
    run: RunDirectory,
    progress: TrainingProgress,
    *,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Take finished folds from their directories, and train the others on the cluster."""
    found: dict[int, dict[str, Any]] = {}
    for task in tasks:
        if finished_metrics(task.directory) is not None:
            # checks settings, data and split, and returns at once
            found[task.fold] = train_fold(task.config, task.split, task.fold, task.directory)
            progress.fold(found[task.fold])
    left = [task for task in tasks if task.fold not in found]
    if not left:
        return [found[task.fold] for task in tasks]
    with connect(config.cluster.scheduler, _cluster_spec(config, len(left))) as client:
        if not quiet:
            say(f"dashboard {dashboard_link(client)}")
        with span("slidestream", "mil cv"):
            for task, metrics in run_folds(client, left, progress):
                found[task.fold] = metrics
                if metrics["status"] == "failed":
                    run.logger.error("fold %d: %s", task.fold, metrics["error"]["message"])
                    if metrics["error"]["traceback"] is not None:
                        run.logger.error("%s", metrics["error"]["traceback"])
                else:
                    run.logger.info("fold %d finished", task.fold)
                progress.fold(metrics)
    return [found[task.fold] for task in tasks]


def _cluster_spec(config: MilConfig, n_tasks: int) -> ClusterSpec:
    """Shape the embedded cluster: one process a fold, as many as cores allow; on GPUs, one for each."""
    workers = config.cluster.workers
    if workers is None and resolve_device(config.fit.device).type == "cpu":
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        workers = max(1, min(cores // config.fit.threads, n_tasks))
    return ClusterSpec(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=config.cluster.memory,
        dashboard_port=config.cluster.dashboard_port,
    )


def run_folds(
    client: Client, tasks: Sequence[FoldTask], progress: TrainingProgress
) -> Iterator[tuple[FoldTask, dict[str, Any]]]:
    """Train folds on a cluster, one at a time in each worker process, and yield them as they finish.

    Parameters
    ----------
    client
        Of the cluster.
    tasks
        The folds; not more are handed over at once than there are processes (or GPUs) for.
    progress
        Told of epochs.

    Yields
    ------
    tuple
        The task, and its metrics; those of a failed fold say why.

    Raises
    ------
    ClusterError
        The scheduler went away.
    DeviceError
        A GPU is asked for and no worker has one.
    """
    device = tasks[0].config.fit.device
    if device == "cuda":
        require_gpu_workers(client)
    with answering(client):
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        client.subscribe_topic(EPOCH_TOPIC, lambda event: progress.epoch(event[1]))
    n_gpus = sum(int(worker["resources"].get("GPU", 0)) for worker in workers)
    on_gpu = device != "cpu" and n_gpus > 0
    window = max(1, n_gpus if on_gpu else len(workers))
    waiting = iter(tasks)
    task_of: dict[Any, FoldTask] = {}
    queue = as_completed(loop=client.loop)

    def submit(task: FoldTask) -> Future[Any]:
        with answering(client):
            future = client.submit(
                _train_on_worker, task, pure=False, resources={"GPU": 1.0} if on_gpu else None
            )
        task_of[future.key] = task
        return future

    for task in tasks[:window]:
        queue.add(submit(task))
        next(waiting)
    for future in queue:
        task = task_of.pop(future.key)
        metrics = _outcome(client, future, task)
        following = next(waiting, None)
        if following is not None:
            queue.add(submit(following))
        yield task, metrics


def _train_on_worker(task: FoldTask) -> dict[str, Any]:
    telling = TellingObserver(task.fold, task.config.fit.epochs, tell_cluster, task.config.leaky)
    with _ONE_AT_A_TIME:
        return train_fold(task.config, task.split, task.fold, task.directory, [telling])


def _outcome(client: Client, future: Future[Any], task: FoldTask) -> dict[str, Any]:
    """Return a fold's metrics, or what is to be said of its failure."""
    if future.status == "finished":
        metrics: dict[str, Any] = future.result()
        return metrics
    if future.status != "error":
        raise ClusterError(gone(client))
    error = future.exception()
    trace = None
    if isinstance(error, KilledWorker):
        reason = "worker-died"
        message = "The workers that tried it died (out of memory, or killed); give --memory or fewer --workers."
    elif isinstance(error, SlidestreamError):
        reason, message = error.reason, str(error)
    else:
        reason, message = "error", f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_tb(future.traceback()))
    config = task.config
    metrics = failed_fold(
        config.model, task.fold, config.splits.repeat, config.protocol, reason, message, trace
    )
    if reason != BusyError.reason:  # then the file is another process's
        write_whole(task.directory / METRICS, json.dumps(metrics, indent=2) + "\n")
    return metrics


def _aggregate(config: MilConfig, folds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    finished = [fold for fold in folds if fold["status"] == "finished"]
    return {
        "kind": CV_KIND,
        "schema": SCHEMA,
        "status": "finished" if len(finished) == len(folds) else "failed",
        "model": config.model,
        "protocol": config.protocol,
        "leaky": config.leaky,
        "note": LEAKY if config.leaky else None,
        "class_names": finished[0]["class_names"] if finished else [],
        "task": finished[0]["task"] if finished else None,
        "summary": summarize(folds),
        "sd_ddof": 1,
        "flagged": [fold["fold"] for fold in folds if fold["flags"]],
        "failed": [fold["fold"] for fold in folds if fold["status"] == "failed"],
        "folds": list(folds),
    }


def _gather_predictions(directory: Path, folds: Sequence[dict[str, Any]]) -> None:
    """Put the out-of-fold predictions into one table."""
    tables = [
        read_predictions(directory / f"fold_{fold['fold']}" / PREDICTIONS)
        for fold in folds
        if fold["status"] == "finished"
    ]
    if tables:
        rows = [row for table in tables for row in table.rows if row.split == "test"]
        write_predictions(directory / PREDICTIONS, tables[0].class_names, rows)
