"""The two places where tasks run: a Dask cluster, and this process (to debug without a cluster)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from distributed import Client, KilledWorker
from distributed.client import ClosedClientError, FutureCancelledError
from distributed.comm.core import CommClosedError

from dataflow.cluster import answering, gone
from dataflow.executor import LostTask, TaskFuture

_MIN_PER_WORKER = 2  # two overlap reading with the model, also where there is but one thread
_AT_THE_DOOR = 1  # and one more a worker, so that it need not wait for the client

_COUNT_EVERY_S = 2.0


class DaskExecutor:
    """Runs tasks on a Dask cluster.

    Parameters
    ----------
    client
        A connected client.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._window = 1
        self._n_workers = 0
        self._counted = float("-inf")

    @property
    def window(self) -> int:
        """Tasks in flight at the most: a few for each worker that was there when last looked."""
        self._count()
        return self._window

    @property
    def n_workers(self) -> int:
        """Workers that were there when last looked, at most two seconds ago.

        Raises
        ------
        ClusterError
            The scheduler is gone.
        """
        self._count()
        return self._n_workers

    def _count(self) -> None:
        if time.monotonic() - self._counted > _COUNT_EVERY_S:
            # the scheduler is asked, so that workers that come or go during the run count
            with answering(self._client):
                workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
            self._counted = time.monotonic()
            self._n_workers = len(workers)
            self._window = max(1, sum(_tasks_of(worker["nthreads"]) for worker in workers))

    def submit(
        self, name: str, function: Callable[..., Any], *args: object, gpu: bool
    ) -> TaskFuture:
        """Start a task; on a GPU worker when it needs one, half a GPU each, so that two blocks overlap.

        Raises
        ------
        ClusterError
            The scheduler is gone.
        """
        with answering(self._client):
            future: TaskFuture = self._client.submit(
                function,
                *args,
                key=f"{name}-{uuid.uuid4().hex}",
                pure=False,
                resources={"GPU": 0.5} if gpu else None,
            )
        return future

    def lost(self, error: BaseException) -> LostTask | None:
        """Say how a task was lost: with its workers, or with the scheduler."""
        if isinstance(error, KilledWorker):
            return LostTask(
                "worker-died",
                "The workers that tried this died, also with nothing beside it (out of memory, or killed); "
                "run again with a smaller --batch-size or more memory.",
                tries=error.allowed_failures + 1,
            )
        if isinstance(error, FutureCancelledError | ClosedClientError | CommClosedError):
            return LostTask("cluster", gone(self._client), fatal=True)
        return None

    def discard(self, futures: Iterable[TaskFuture]) -> None:
        """Cancel what was not started; nothing to do when the scheduler is gone."""
        pending = list(futures)
        if pending and self._client.status == "running":
            self._client.cancel(pending)


def _tasks_of(n_threads: int) -> int:
    return max(n_threads, _MIN_PER_WORKER) + _AT_THE_DOOR


class SerialExecutor:
    """Runs each task at once, in this process and thread."""

    window = 1
    n_workers = 1

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

    def lost(self, error: BaseException) -> LostTask | None:
        """Nothing is lost in one process."""
        return None

    def discard(self, futures: Iterable[TaskFuture]) -> None:
        """Nothing is pending."""
