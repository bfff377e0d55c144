"""Batches through the two pools of a worker: side by side, bounded, and no buffer lost when something fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dataflow import worker_cache
from dataflow.batches import run_batches
from dataflow.worker_cache import BufferPool, LoadedModel

TILE_PX, BATCH, N_THREADS = 4, 8, 3


class Nothing:
    """A model that is never called: the tests' own functions run instead."""

    device = torch.device("cpu")
    batch_size = BATCH

    def __call__(self, tiles: torch.Tensor) -> Mapping[str, npt.NDArray[np.generic]]:
        raise AssertionError


class CountedBuffers(BufferPool):
    """Knows how many buffers are out."""

    def __init__(self) -> None:
        super().__init__()
        self.out = self.most_out = 0

    def take(self, n_tiles: int, tile_px: int, *, pinned: bool) -> torch.Tensor:
        self.out += 1
        self.most_out = max(self.most_out, self.out)
        return super().take(n_tiles, tile_px, pinned=pinned)

    def give(self, buffer: torch.Tensor) -> None:
        self.out -= 1
        super().give(buffer)


@pytest.fixture
def buffers(monkeypatch: pytest.MonkeyPatch) -> CountedBuffers:
    counted = CountedBuffers()
    monkeypatch.setattr(worker_cache, "buffers", counted)
    return counted


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadedModel]:
    monkeypatch.setattr(worker_cache, "process_threads", lambda: N_THREADS)
    model = LoadedModel(Nothing())
    yield model
    model.pool.shutdown()


def fill(start: int, pixels: npt.NDArray[np.uint8]) -> None:
    pixels[:] = np.arange(start, start + len(pixels), dtype=np.uint8)[:, None, None, None]


def pass_by(start: int, pixels: object) -> None:
    pass


@pytest.mark.parametrize("n_tiles", [0, 1, BATCH, 100])
def test_every_tile_comes_by_once_and_buffers_are_few(
    n_tiles: int, loaded: LoadedModel, buffers: CountedBuffers
) -> None:
    seen = np.zeros(n_tiles, dtype=np.int64)

    def run(start: int, tiles: torch.Tensor) -> None:
        numbers = tiles[:, 0, 0, 0].numpy()
        np.testing.assert_array_equal(numbers, np.arange(start, start + len(tiles)))
        assert torch.get_num_threads() == 1
        seen[start : start + len(tiles)] += 1

    run_batches(n_tiles, TILE_PX, loaded, fill, run)

    assert (seen == 1).all()
    assert buffers.out == 0
    assert buffers.most_out <= 2 * N_THREADS


def test_one_block_keeps_all_threads_busy(loaded: LoadedModel, buffers: CountedBuffers) -> None:
    together = threading.Barrier(N_THREADS, timeout=60)

    def run(start: int, tiles: torch.Tensor) -> None:
        together.wait()

    run_batches(4 * N_THREADS * BATCH, TILE_PX, loaded, pass_by, run)
    assert not together.broken


def test_blocks_share_the_threads(loaded: LoadedModel) -> None:
    assert (loaded.share, loaded.ahead) == (N_THREADS, N_THREADS)
    with loaded.in_use(), loaded.in_use():
        assert (loaded.share, loaded.ahead) == (2, 2)
        with loaded.in_use(), loaded.in_use():
            assert (loaded.share, loaded.ahead) == (1, 1)


def test_a_gpu_takes_one_batch_and_idle_cores_decode_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_cache, "process_threads", lambda: 6)
    monkeypatch.setattr(Nothing, "device", torch.device("cuda"))
    loaded = LoadedModel(Nothing())
    with loaded.in_use(), loaded.in_use():
        assert (loaded.share, loaded.ahead) == (1, 3)


def failing(at: int) -> Callable[[int, object], None]:
    def fail(start: int, pixels: object) -> None:
        if start == at:
            raise ZeroDivisionError(f"at {start}")

    return fail


@pytest.mark.parametrize("at", [0, 5 * BATCH, 96])
@pytest.mark.parametrize("stage", ["decode", "run"])
def test_a_failure_comes_out_and_nothing_runs_on(
    stage: str, at: int, loaded: LoadedModel, buffers: CountedBuffers
) -> None:
    fail = failing(at)
    running: set[int] = set()

    def run(start: int, tiles: torch.Tensor) -> None:
        running.add(start)
        if stage == "run":
            fail(start, tiles)
        running.discard(start)

    decode = fail if stage == "decode" else pass_by
    with pytest.raises(ZeroDivisionError, match=f"at {at}$"):
        run_batches(100, TILE_PX, loaded, decode, run)
    assert running <= {at}
    assert buffers.out == 0
