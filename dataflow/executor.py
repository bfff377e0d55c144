"""Where tasks run, as the stream sees it; ``executors`` has the two places."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol


class TaskFuture(Protocol):
    """What the stream needs of a future; both Dask's and ``concurrent.futures``' are such."""

    def add_done_callback(self, fn: Callable[[Any], object], /) -> object:
        """Call ``fn`` with the future once it is done."""
        ...

    def result(self) -> Any:
        """Return the task's result or raise its error."""
        ...


@dataclass(frozen=True)
class LostTask:
    """A task that its cluster did not finish.

    Attributes
    ----------
    reason
        Code of the failure, e.g. ``worker-died``.
    message
        One sentence.
    fatal
        Whether the cluster itself is gone.
    tries
        How many workers it was lost with.
    """

    reason: str
    message: str
    fatal: bool = False
    tries: int = 1


class Executor(Protocol):
    """Where tasks run: a Dask cluster, or this process for debugging."""

    @property
    def window(self) -> int:
        """How many tasks are in flight at the most."""
        ...

    @property
    def n_workers(self) -> int:
        """How many workers there were when last looked, at most some seconds ago."""
        ...

    def submit(
        self, name: str, function: Callable[..., Any], *args: object, gpu: bool
    ) -> TaskFuture:
        """Start ``function(*args)``; ``name`` is the stage that the dashboard shows."""
        ...

    def lost(self, error: BaseException) -> LostTask | None:
        """Say how the cluster lost a task, or None when the task itself raised ``error``."""
        ...

    def discard(self, futures: Iterable[TaskFuture]) -> None:
        """Cancel tasks that were not started yet."""
        ...
