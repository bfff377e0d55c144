"""The batches of a block on their way: decoded a few ahead, then run side by side on the model's threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dataflow import worker_cache

_AHEAD = 2  # batches that decode while the model's threads are busy, per block


@dataclass(frozen=True)
class _Batch:
    start: int
    tiles: torch.Tensor
    buffer: torch.Tensor
    work: Future[None]


def run_batches(
    n_tiles: int,
    tile_px: int,
    loaded: worker_cache.LoadedModel,
    decode: Callable[[int, npt.NDArray[np.uint8]], None],
    run: Callable[[int, torch.Tensor], None],
) -> None:
    """Take all tiles of a block through ``decode`` and ``run``, in batches of the model's size.

    A block alone keeps all of the worker's threads busy; blocks beside each other share them. The number of batches in
    memory doesn't grow with the block.

    Parameters
    ----------
    n_tiles, tile_px
        Of the block.
    loaded
        Its ``pool`` is where ``run`` runs.
    decode
        Number of the first tile, and uint8 (n, y, x, rgb) to fill; on threads that decode.
    run
        Number of the first tile, and the same pixels, in pinned memory for a GPU. They are overwritten after ``run``
        has returned. Calls come in any order and side by side.

    Raises
    ------
    Exception
        What ``decode`` or ``run`` raise; by then nothing runs any more.
    """
    batch = loaded.model.batch_size
    pinned = loaded.model.device.type == "cuda"
    decoders = worker_cache.decode_pool()
    decoding: deque[_Batch] = deque()
    running: deque[_Batch] = deque()

    def begin(start: int) -> None:
        buffer = worker_cache.buffers.take(batch, tile_px, pinned=pinned)
        tiles = buffer[: min(batch, n_tiles - start)]
        decoding.append(_Batch(start, tiles, buffer, decoders.submit(decode, start, tiles.numpy())))

    def hand_on() -> None:
        ready = decoding[0]
        ready.work.result()
        work = loaded.pool.submit(run, ready.start, ready.tiles)
        decoding.popleft()
        running.append(_Batch(ready.start, ready.tiles, ready.buffer, work))
        if len(running) > loaded.n_threads:
            finish()

    def finish() -> None:
        running[0].work.result()
        worker_cache.buffers.give(running.popleft().buffer)

    try:
        for start in range(0, n_tiles, batch):
            begin(start)
            if len(decoding) > _AHEAD:
                hand_on()
        while decoding:
            hand_on()
        while running:
            finish()
    finally:
        # after an error: wait, so that nobody reads or writes a buffer that is handed on
        for left in (*decoding, *running):
            left.work.cancel()
            if not left.work.cancelled():
                left.work.exception()
            worker_cache.buffers.give(left.buffer)
