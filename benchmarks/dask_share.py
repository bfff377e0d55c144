"""What of a run's time is Dask's own, from the scheduler's task stream and the client's processor time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psutil
from distributed import Client

_COMPUTE: Final = "compute"


@dataclass
class DaskShare:
    """Where threads of workers were between their first and their last task.

    Attributes
    ----------
    busy_s
        Inside tasks, all threads together.
    between_s
        Between a task and the next one of the same thread: messages, deserializing, waiting for a task that another
        one has to make (the blocks of a slide for its plan).
    client_cpu_s
        Processor seconds of the client's process, which is the embedded scheduler's too.
    wall_s
        Of the whole run.
    n_tasks
        Tasks that ran.
    n_threads
        Threads that had a task.
    """

    busy_s: float = 0.0
    between_s: float = 0.0
    client_cpu_s: float = 0.0
    wall_s: float = 0.0
    n_tasks: int = 0
    n_threads: int = field(default=0)

    @property
    def between(self) -> float:
        """Share of the threads' time that lies between tasks, 0 to 1."""
        whole = self.busy_s + self.between_s
        return self.between_s / whole if whole else 0.0

    def client(self, n_cores: int) -> float:
        """Share of the cores' time that client and scheduler took, 0 to 1."""
        return self.client_cpu_s / (self.wall_s * n_cores) if self.wall_s else 0.0


@contextmanager
def dask_share(client: Client, prefix: str) -> Iterator[DaskShare]:
    """Measure a run on an embedded cluster; the yielded object is filled at the end.

    Parameters
    ----------
    client
        Of the cluster; the scheduler must be in this process.
    prefix
        Only tasks whose keys begin so count, e.g. ``encode``.
    """
    share = DaskShare()
    client.get_task_stream(count=1)  # starts the recording
    process = psutil.Process()
    begun, wall, cpu = time.time(), time.perf_counter(), _cpu_s(process)
    yield share
    share.wall_s = time.perf_counter() - wall
    share.client_cpu_s = _cpu_s(process) - cpu
    records = client.get_task_stream(start=begun)
    add_records(share, (record for record in records if str(record["key"]).startswith(prefix)))


def add_records(share: DaskShare, records: Iterable[Mapping[str, Any]]) -> None:
    """Add what records of the task stream say of the time of threads."""
    spans: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        for part in record["startstops"]:
            if part["action"] == _COMPUTE:
                spans[record["worker"], record["thread"]].append((part["start"], part["stop"]))
    for tasks in spans.values():
        tasks.sort()
        share.n_tasks += len(tasks)
        share.n_threads += 1
        share.busy_s += sum(stop - start for start, stop in tasks)
        share.between_s += sum(
            max(0.0, tasks[i + 1][0] - tasks[i][1]) for i in range(len(tasks) - 1)
        )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
