"""The batches of a block on their way: decoded a few ahead, then run side by side on the model's threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from dataflow import worker_cache


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

    A block alone keeps all of the worker's threads busy; blocks beside each other share them. How many batches decode
    and run doesn't depend on the size of the block.

    Parameters
    ----------
    n_tiles, tile_px
        Of the block.
    loaded
        The model; ``run`` runs on the threads of its ``pool``.
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

    def advance() -> None:
        if not decoding or len(running) >= loaded.share:
            running[0].work.result()
            worker_cache.buffers.give(running.popleft().buffer)
            return
        ready = decoding[0]
        ready.work.result()
        work = loaded.pool.submit(run, ready.start, ready.tiles)
        running.append(replace(decoding.popleft(), work=work))

    try:
        with loaded.in_use():
            for start in range(0, n_tiles, batch):
                while len(decoding) + len(running) >= loaded.share + loaded.ahead:
                    advance()
                begin(start)
            while decoding or running:
                advance()
    finally:
        # after an error: wait, so that nobody reads or writes a buffer that is handed on
        for left in (*decoding, *running):
            left.work.cancel()
            if not left.work.cancelled():
                left.work.exception()
            worker_cache.buffers.give(left.buffer)
