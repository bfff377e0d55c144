"""Jobs that go on without their client: handed to the cluster, followed through the scheduler."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from distributed import Client, fire_and_forget, worker_client

from dataflow.cluster import answering, connect_to
from dataflow.receipts import BlockReceipt
from dataflow.stream_report import SlideResult, StreamObserver
from jobs.background_cluster import background_address
from jobs.prepare import prepare
from jobs.progress import LineObserver
from jobs.run_config import RunConfig
from jobs.streaming import execute
from store_schema.errors import InputError, SlidestreamError

_METADATA: Final = "slidestream-jobs"
_PROGRESS_EVERY_S: Final = 1.0
_KNOWN_POLL_S: Final = 0.01
_FINAL: Final = ("done", "failed", "cancelled", "lost")


@dataclass(frozen=True)
class JobRecord:
    """What the scheduler knows of a job.

    Attributes
    ----------
    job_id
        Also the name of the run's directory.
    state
        ``queued``, ``running``, ``done``, ``failed`` (with failures), ``cancelled`` or ``lost`` (its workers died).
    submitted
        Seconds since the epoch.
    command, store
        Of the call.
    progress
        Slides and tiles so far.
    metrics
        Of a finished run, else None.
    error
        Sentence of a run that could not start or broke off, else None.
    """

    job_id: str
    state: str
    submitted: float
    command: str
    store: str
    progress: dict[str, Any]
    metrics: dict[str, Any] | None
    error: str | None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in _FINAL


def detach(config: RunConfig, *, as_json: bool) -> int:
    """Hand a run to a cluster that outlives this process, print its id, and return."""
    address = config.cluster.scheduler or background_address()
    prepare(config)  # what can't start is said here, not in a log on the cluster
    client = connect_to(address)
    try:
        with answering(client):
            job_id = submit(client, config)
    finally:
        client.close()
    if as_json:
        click.echo(json.dumps({"job": job_id, "scheduler": address, "run_dir": config.run_dir}))
    else:
        click.echo(
            f"job {job_id}\nfollow it with: slidestream jobs logs {job_id} --scheduler {address} --follow"
        )
    return 0


def submit(client: Client, config: RunConfig) -> str:
    """Start a run as a task of the cluster; the task submits and gathers the blocks.

    Dask runs the task again when its worker dies; the run then goes on where it was, as any resumed run does.
    """
    job_id = Path(config.run_dir).name
    for name, value in {
        "state": "queued",
        "submitted": time.time(),
        "command": config.command,
        "store": config.store,
    }.items():
        client.set_metadata([_METADATA, job_id, name], value)
    key = _task_key(job_id)
    future = client.submit(run_job, config, job_id, key=key, pure=False)
    fire_and_forget(future)
    # tasks go to the scheduler in batches: until it has this one, others would take the job for lost
    while not client.run_on_scheduler(_has_task, key=key):
        time.sleep(_KNOWN_POLL_S)
    return job_id


def _has_task(key: str, dask_scheduler: Any) -> bool:
    """Whether the scheduler knows a task; on the scheduler."""
    return key in dask_scheduler.tasks


def _task_key(job_id: str) -> str:
    return f"job-{job_id}"


def run_job(config: RunConfig, job_id: str) -> None:
    """Body of a detached job, on a worker; gives its thread back to the worker's pool."""
    with worker_client() as client:
        job = _Job(client, job_id)
        job.set("state", "running")
        try:
            metrics = execute(config, prepare(config), client, job.observer)
        except SlidestreamError as error:
            job.fail(str(error))
        except Exception as error:  # noqa: BLE001 - a bug: whoever follows the job gets to see it
            job.log(traceback.format_exc())
            job.fail(
                f"Unexpected {type(error).__name__}: {error}; please report it with the job's log."
            )
        else:
            job.set("metrics", metrics)
            job.set(
                "state",
                "cancelled" if metrics["cancelled"] else "done" if metrics["ok"] else "failed",
            )


class _Job:
    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self._job_id = job_id

    def set(self, name: str, value: object) -> None:
        self._client.set_metadata([_METADATA, self._job_id, name], value)

    def fail(self, message: str) -> None:
        self.log(f"Error: {message}")
        self.set("error", message)
        self.set("state", "failed")

    def log(self, line: str) -> None:
        self._client.log_event(_topic(self._job_id), line)

    def cancel_wanted(self) -> bool:
        return bool(self._client.get_metadata([_METADATA, self._job_id, "cancel"], default=False))

    @contextmanager
    def observer(self, n_slides: int, logger: logging.Logger) -> Iterator[StreamObserver]:
        yield _JobObserver(self, n_slides, logger)


class _JobObserver(LineObserver):
    """Reports to the scheduler, where other terminals look."""

    def __init__(self, job: _Job, n_slides: int, logger: logging.Logger) -> None:
        super().__init__(n_slides, logger, job.log)
        self._job = job
        self._reported = 0.0

    def block(self, receipt: BlockReceipt) -> None:
        super().block(receipt)
        self._report()

    def slide(self, result: SlideResult) -> None:
        super().slide(result)
        self._report()

    def cancelled(self) -> bool:
        return self._job.cancel_wanted()

    def _report(self) -> None:
        if (
            time.monotonic() - self._reported < _PROGRESS_EVERY_S
            and self.slides_done < self.n_slides
        ):
            return
        self._reported = time.monotonic()
        self._job.set(
            "progress",
            {
                "slides_done": self.slides_done,
                "slides": self.n_slides,
                "tiles_done": self.tiles_done,
                "tiles_per_second": round(self.rate, 1),
            },
        )


def _topic(job_id: str) -> str:
    return f"slidestream-{job_id}"


def list_jobs(client: Client) -> list[JobRecord]:
    """Return all jobs that the scheduler knows, oldest first."""
    records = client.get_metadata([_METADATA], default={})
    jobs = [_record(client, job_id, fields) for job_id, fields in records.items()]
    return sorted(jobs, key=lambda job: job.submitted)


def get_job(client: Client, job_id: str) -> JobRecord:
    """Return one job.

    Raises
    ------
    InputError
        The scheduler knows no such job.
    """
    records = client.get_metadata([_METADATA], default={})
    if job_id not in records:
        known = ", ".join(sorted(records)) or "none"
        raise InputError(f"The scheduler knows no job {job_id!r} (known: {known}).")
    return _record(client, job_id, records[job_id])


def _record(client: Client, job_id: str, fields: dict[str, Any]) -> JobRecord:
    end = None
    if fields.get("state") not in _FINAL:
        end = client.run_on_scheduler(_task_end, key=_task_key(job_id))
        # it may have ended, and said so, since the fields were read
        fields = client.get_metadata([_METADATA, job_id], default=fields)
    state, error = fields.get("state", "queued"), fields.get("error")
    if end is not None and state not in _FINAL:
        state, error = end
    return JobRecord(
        job_id,
        state,
        fields.get("submitted", 0.0),
        fields.get("command", "?"),
        fields.get("store", "?"),
        fields.get("progress", {}),
        fields.get("metrics"),
        error,
    )


def _task_end(key: str, dask_scheduler: Any) -> tuple[str, str] | None:
    """Return state and error of a task that ended without saying so, or None while it lives; on the scheduler."""
    task = dask_scheduler.tasks.get(key)
    if task is None:
        return "lost", "the cluster no longer knows the job"
    if task.state != "erred":
        return None
    state = (
        "lost"
        if isinstance(task.exception_text, str) and "KilledWorker" in task.exception_text
        else "failed"
    )
    return state, task.exception_text or "the job's task failed"


def job_log(client: Client, job_id: str) -> list[tuple[float, str]]:
    """Return a job's lines with their times [s since the epoch]."""
    get_job(client, job_id)
    return [(when, str(line)) for when, line in client.get_events(_topic(job_id))]


def cancel_job(client: Client, job_id: str) -> str | None:
    """Ask a job to stop; blocks that are being worked on are finished or dropped whole.

    Returns
    -------
    str or None
        The state of a job that had ended already; None when it was asked.
    """
    job = get_job(client, job_id)
    if job.finished:
        return job.state
    client.set_metadata([_METADATA, job_id, "cancel"], True)
    return None
