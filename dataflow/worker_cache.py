"""What a worker process keeps between blocks: slide handles, models, open groups, tile tables, pixel buffers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch
from distributed import get_worker

from dataflow.keyed_cache import KeyedCache
from dataflow.slide import SlideReader, open_slide
from dataflow.tile_model import TileModel, TileModelFactory

_MOST_DECODING = 8  # batches for a GPU: their pinned memory is not without bounds


class LoadedModel:
    """A model and the threads on which its batches run.

    A GPU takes one batch at a time. A CPU takes as many as the worker has threads, each batch on one thread: faster
    than one batch on all of them, and the kernels that torch chooses, and so the bits, don't depend on how many there
    are.
    """

    def __init__(self, model: TileModel) -> None:
        self.model = model
        self.batch_limit = model.batch_size  # halves on out-of-memory, for the life of the process
        on_cpu = model.device.type == "cpu"
        self.n_threads = process_threads() if on_cpu else 1
        # cores that a GPU leaves free decode for it; on a CPU what lies in buffers for long falls out of its caches
        self._n_decoding = self.n_threads if on_cpu else min(process_threads(), _MOST_DECODING)
        # of each thread by itself, wherever a batch runs
        self.pool = ThreadPoolExecutor(self.n_threads, "model", torch.set_num_threads, (1,))
        self._blocks = 0
        self._lock = threading.Lock()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Take part in the threads for the time of a block."""
        with self._lock:
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1

    @property
    def share(self) -> int:
        """How many batches of each block may run at one time, now."""
        return self._shared(self.n_threads)

    @property
    def ahead(self) -> int:
        """How many batches of each block may decode at one time, now, or lie decoded."""
        return self._shared(self._n_decoding)

    def _shared(self, count: int) -> int:
        return max(1, -(-count // max(1, self._blocks)))


_readers: KeyedCache[SlideReader] = KeyedCache(32)
_models: KeyedCache[LoadedModel] = KeyedCache(2)


def slide_reader(path: str, mpp: float | None, stamp: str) -> SlideReader:
    """Return this process's handle of a slide.

    Parameters
    ----------
    path
        The slide's file.
    mpp
        Physical size given by the user [µm/px, level 0], or None.
    stamp
        Digest of the slide's content (or of more), so that a replaced file gets a new handle.
    """
    return _readers.get((path, mpp, stamp), lambda: open_slide(path, mpp))


def loaded_model(factory: TileModelFactory) -> LoadedModel:
    """Return this process's instance of a model, loaded on first use."""
    return _models.get(factory, lambda: LoadedModel(factory.load()))


@cache
def process_threads() -> int:
    """Threads that this process may keep busy: those of its Dask worker, or else all cores."""
    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # not on a worker: serial executor, tests
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )


@cache
def decode_pool() -> ThreadPoolExecutor:
    """Return the threads that decode tiles, shared by all block tasks of the process."""
    return ThreadPoolExecutor(max(2, process_threads()), thread_name_prefix="decode")


class BufferPool:
    """Reused uint8 pixel buffers (tile, y, x, rgb), in pinned memory where they go to a GPU."""

    def __init__(self) -> None:
        self._free: dict[tuple[int, int, bool], list[torch.Tensor]] = {}
        self._lock = threading.Lock()

    def take(self, n_tiles: int, tile_px: int, *, pinned: bool) -> torch.Tensor:
        """Return a buffer of ``n_tiles`` tiles; its content is undefined."""
        with self._lock:
            free = self._free.get((n_tiles, tile_px, pinned))
            if free:
                return free.pop()
        return torch.empty((n_tiles, tile_px, tile_px, 3), dtype=torch.uint8, pin_memory=pinned)

    def give(self, buffer: torch.Tensor) -> None:
        """Hand a buffer back."""
        key = (buffer.shape[0], buffer.shape[1], buffer.is_pinned())
        with self._lock:
            self._free.setdefault(key, []).append(buffer)


buffers = BufferPool()
