"""How long a piece of work takes alone: wall and processor seconds, on one thread and on several."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """One measurement.

    Attributes
    ----------
    tiles
        Tiles that were worked on.
    wall_s
        Seconds that passed.
    cpu_s
        Processor seconds of all threads.
    """

    tiles: int
    wall_s: float
    cpu_s: float

    @property
    def tiles_per_s(self) -> float:
        """Rate."""
        return self.tiles / self.wall_s

    @property
    def cpu_s_per_tile(self) -> float:
        """Processor seconds of one tile."""
        return self.cpu_s / self.tiles


def timed(work: Callable[[], int]) -> Timing:
    """Do ``work`` once, in this thread; it returns the number of its tiles."""
    wall, cpu = time.perf_counter(), time.process_time()
    tiles = work()
    return Timing(tiles, time.perf_counter() - wall, time.process_time() - cpu)


def repeated(workers: Sequence[Callable[[int], int]], *, n_items: int, at_least_s: float) -> Timing:
    """Go through the items once at least and for ``at_least_s`` at least, with one thread a worker.

    Parameters
    ----------
    workers
        Item → tiles done; one a thread, so that each may have buffers of its own. Each is called once before the
        clock starts.
    n_items
        Items are numbered from 0 and begin anew after the last.
    at_least_s
        Time after which no item is begun any more, once all have been done.
    """
    tickets = itertools.count()  # next() on it is atomic

    def loop(worker: Callable[[int], int], begun: float) -> int:
        torch.set_num_threads(1)  # of this thread, as the stream does
        tiles = 0
        while (item := next(tickets)) < n_items or time.perf_counter() - begun < at_least_s:
            tiles += worker(item % n_items)
        return tiles

    def warm_up(worker: Callable[[int], int]) -> int:
        torch.set_num_threads(1)
        return worker(0)

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(warm_up, workers))
        begun, cpu = time.perf_counter(), time.process_time()
        tiles = sum(pool.map(loop, workers, itertools.repeat(begun)))
        return Timing(tiles, time.perf_counter() - begun, time.process_time() - cpu)
