"""Seconds and bytes by stage, gathered across the threads of one task and shown on Dask's dashboard."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from distributed.metrics import context_meter

READ: Final = "read"
NORMALIZE: Final = "normalize"
MODEL: Final = "model"
WRITE: Final = "write"
STAGES: Final = (READ, NORMALIZE, MODEL, WRITE)


class StageMeters:
    """Tally of one block task; decode threads add to it side by side.

    Dask's own meter follows the task's thread only, so the tally is kept here and handed over once, at the end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = defaultdict(float)
        self.bytes: dict[str, int] = defaultdict(int)

    @contextmanager
    def stage(self, name: str, nbytes: int = 0) -> Iterator[None]:
        """Add the time spent inside to a stage.

        Parameters
        ----------
        name
            One of ``STAGES``.
        nbytes
            Bytes that the stage moved.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self.seconds[name] += elapsed
                self.bytes[name] += nbytes

    def publish(self) -> None:
        """Hand the tally to Dask's fine performance metrics; call in the task's own thread."""
        for name, seconds in self.seconds.items():
            context_meter.digest_metric(name, seconds, "seconds")
        for name, nbytes in self.bytes.items():
            context_meter.digest_metric(name, nbytes, "bytes")
