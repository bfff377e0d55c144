"""The two places where tasks run: a Dask cluster, and this process (to debug without a cluster)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from distributed import Client, KilledWorker
from distributed.scheduler import NoValidWorkerError

from dataflow.stream import TaskFuture

_TASKS_PER_WORKER = 3  # two that overlap reading with the model, and one that waits at the door


class DaskExecutor:
    """Runs tasks on a Dask cluster.

    Parameters
    ----------
    client
        A connected client.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def window(self) -> int:
        """Tasks in flight at the most: a few for each worker that is there now."""
        return _TASKS_PER_WORKER * max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def submit(
        self, name: str, function: Callable[..., Any], *args: object, gpu: bool
    ) -> TaskFuture:
        """Start a task; on a GPU worker when it needs one, half a GPU each, so that two blocks overlap."""
        future: TaskFuture = self._client.submit(
            function,
            *args,
            key=f"{name}-{uuid.uuid4().hex}",
            pure=False,
            resources={"GPU": 0.5} if gpu else None,
        )
        return future

    def lost_reason(self, error: BaseException) -> str | None:
        """Say how a task was lost with its workers."""
        if isinstance(error, KilledWorker):
            return (
                f"The workers that tried this died {error.allowed_failures + 1} times (out of memory, or killed); "
                "run again with a smaller --batch-size or more memory."
            )
        if isinstance(error, NoValidWorkerError):
            return "No worker of the cluster has the GPU resource; start workers with --resources GPU=1."
        return None

    def discard(self, futures: Iterable[TaskFuture]) -> None:
        """Cancel what was not started."""
        self._client.cancel(list(futures))


class SerialExecutor:
    """Runs each task at once, in this process and thread."""

    window = 1

    def submit(
        self, name: str, function: Callable[..., Any], *args: object, gpu: bool
    ) -> TaskFuture:
        """Run the task and return its finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:  # noqa: BLE001 - handed on through the future, as a cluster does
            future.set_exception(error)
        return future

    def lost_reason(self, error: BaseException) -> str | None:
        """Nothing is lost in one process."""
        return None

    def discard(self, futures: Iterable[TaskFuture]) -> None:
        """Nothing is pending."""
