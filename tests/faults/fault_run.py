"""The run that faults are made in: tiny slides, a model that costs next to nothing and misbehaves where it is told to.

Worker processes import this module by its plain name; tests get it from the fixture ``fault_run``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal

import dask
import numpy as np
import numpy.typing as npt
import psutil
import torch
from dask.utils import parse_bytes
from distributed import Client, Scheduler, Worker

from dataflow.cluster import ClusterSpec, connected, settings
from dataflow.discover import SlideSource
from dataflow.executors import DaskExecutor, SerialExecutor
from dataflow.pyramid_tiff import write_pyramid
from dataflow.stain import StainSpec
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver, StreamReport
from dataflow.stream_spec import EncodeSpec, IndexSpec, StreamSpec
from dataflow.tissue import TissueSpec
from store_schema.errors import SlidestreamError
from store_schema.specs import ArraySpec, GridSpec
from store_schema.store import create_store

TILE_PX: Final = 32
SIDE_TILES: Final = 8
BLOCK_TILES: Final = 8
BATCH_TILES: Final = 4
BLOCKS_PER_SLIDE: Final = SIDE_TILES**2 // BLOCK_TILES
MPP: Final = 0.5
SPEC: Final = ClusterSpec(
    2, 1, memory_limit="1GiB", dashboard_port=0, task_retries=0
)  # as of `run`
_POISON: Final = np.array([255, 0, 255])  # colour of a tile that the model does its worst at

Misdeed = Literal["none", "exit", "allocate", "hoard", "raise"]
_hoarded: list[npt.NDArray[np.uint8]] = []


@dataclass(frozen=True)
class FaultModel:
    """Mean colours of tiles."""

    factory: FaultModelFactory
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = BATCH_TILES

    def __call__(self, tiles: torch.Tensor) -> Mapping[str, npt.NDArray[np.generic]]:
        """Return colours float32 (tile, feature), unless the worst is to be done."""
        if self.factory.tally is not None:
            with Path(self.factory.tally).open("ab", buffering=0) as file:
                file.write(b"." * tiles.shape[0])
        time.sleep(self.factory.seconds_per_batch)
        colours = tiles.to(torch.float64).mean(dim=(1, 2)).numpy()
        if self.factory.misdeed != "none" and (np.abs(colours - _POISON).max(axis=1) < 40).any():
            if self.factory.tally is not None:
                with Path(f"{self.factory.tally}.misdeeds").open("ab", buffering=0) as file:
                    file.write(b".")
            _do(self.factory.misdeed)
        return {"features": colours.astype(np.float32)}


def _do(misdeed: Misdeed) -> None:
    if misdeed == "exit":
        time.sleep(
            0.3
        )  # a nanny doesn't start a worker again that dies before it has heard from it
        os._exit(1)
    if misdeed == "raise":
        raise ValueError("planted")
    if (
        misdeed == "hoard"
    ):  # up to where workers of Dask's defaults would rest for ever, and keep it
        while psutil.Process().memory_info().rss < 0.96 * parse_bytes(SPEC.memory_limit):
            _hoarded.append(np.ones(1 << 22, np.uint8))
        time.sleep(0.5)  # the monitor looks several times a second
        return
    held: list[npt.NDArray[np.uint8]] = []
    while len(held) < 10_000:  # until the worker's nanny ends it
        held.append(np.ones(1 << 24, np.uint8))  # 16 MiB, touched
        time.sleep(0.005)


@dataclass(frozen=True)
class FaultModelFactory:
    """What travels to the workers; only the numbers' origin counts as provenance, not the misdeeds."""

    seconds_per_batch: float = 0.0
    tally: str | None = None  # file that grows by a byte a tile
    misdeed: Misdeed = "none"
    name: str = "colour"
    needs_gpu: bool = False

    @property
    def outputs(self) -> dict[str, ArraySpec]:
        """One array of colours."""
        return {"features": ArraySpec(("tile", "feature"), (3,), "float32")}

    @property
    def provenance(self) -> dict[str, Any]:
        """The same for all."""
        return {"model": "mean colour"}

    def load(self) -> FaultModel:
        """Return the model."""
        return FaultModel(self)


def make_slides(
    folder: Path, n: int, poisoned: Mapping[int, tuple[int, int]] | None = None
) -> None:
    """Write ``n`` slides; ``poisoned`` says at which (column, row) of some a tile lies that the model stumbles over."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        tiles = np.random.default_rng(number).integers(60, 200, (SIDE_TILES, SIDE_TILES, 3))
        if poisoned is not None and number in poisoned:
            column, row = poisoned[number]
            tiles[row, column] = _POISON
        pixels = tiles.astype(np.uint8).repeat(TILE_PX, axis=0).repeat(TILE_PX, axis=1)
        write_pyramid(folder / f"s{number}.tif", pixels, MPP, tile_px=64, downsamples=(1, 4))


def sources(folder: Path) -> list[SlideSource]:
    """Return the slides of a folder."""
    return [SlideSource(path.stem, str(path)) for path in sorted(folder.glob("*.tif"))]


def stream_spec(store: str, model: FaultModelFactory) -> StreamSpec:
    """Return a run that indexes and encodes all of each slide."""
    tissue = TissueSpec("none")
    grid = GridSpec(TILE_PX, MPP, TILE_PX, tissue=tissue.to_json())
    index = IndexSpec(grid, tissue, block_tiles=BLOCK_TILES)
    return StreamSpec(store, grid.name, index, EncodeSpec(model.name, model, StainSpec()))


def run(client: Client, folder: Path, store: str, model: FaultModelFactory) -> StreamReport:
    """Index and encode a folder on a cluster, as ``slidestream run`` does."""
    create_store(store)
    return run_stream(
        DaskExecutor(client), stream_spec(store, model), sources(folder), StreamObserver()
    )


def set_environment(variables: Mapping[str, str]) -> None:
    """Set variables of a process that runs already."""
    os.environ.update(variables)


# The processes of a cluster one by one, so that each can be killed by itself.


def serve_scheduler(pipe: Connection) -> None:
    """Hold a scheduler; tell its address."""

    async def serve() -> None:
        async with Scheduler(
            host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0"
        ) as scheduler:
            pipe.send(scheduler.address)
            await scheduler.finished()

    _configured(serve())


def serve_worker(scheduler: str) -> None:
    """Hold a worker of one thread, whose disk is slow, so that a kill often meets a write halfway."""
    fsync = os.fsync

    def slow_fsync(descriptor: Any) -> None:
        time.sleep(0.003)
        fsync(descriptor)
        time.sleep(0.003)

    os.fsync = slow_fsync  # type: ignore[assignment]  # positional, as all its callers do

    async def serve() -> None:
        async with Worker(scheduler, nthreads=1, host="127.0.0.1", memory_limit=0) as worker:
            await worker.finished()

    _configured(serve())


def _configured(serving: Any) -> None:
    logging.disable()
    with dask.config.set(settings(SPEC)), suppress(OSError):
        asyncio.run(serving)


def serve_races(pipe: Connection, folder: Path) -> None:
    """Run in this process whenever told: (store, seconds to wait before) → what came of it."""
    logging.disable()
    while True:
        store, delay = pipe.recv()
        time.sleep(delay)
        create_store(store)
        spec = stream_spec(store, FaultModelFactory(0.002))
        pipe.send(_told(run_stream(SerialExecutor(), spec, sources(folder), StreamObserver())))


def _told(report: StreamReport) -> dict[str, Any]:
    failures = [*report.failures, *([report.stopped] if report.stopped is not None else [])]
    return {
        "ok": not failures,
        "reasons": [failure.reason for failure in failures],
        "blocks_before": sum(slide.blocks_before for slide in report.slides),
        "blocks_done": sum(slide.blocks_done for slide in report.slides),
    }


def run_client(
    scheduler: str, folder: Path, store: str, model: FaultModelFactory, report: Path
) -> None:
    """Run, write what came of it, and exit as the command does."""
    logging.disable()
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        try:
            with connected(scheduler) as client:
                done = run(client, folder, store, model)
        except SlidestreamError as error:
            report.write_text(json.dumps({"ok": False, "reasons": [error.reason]}))
            raise SystemExit(1) from None
        told = _told(done)
        report.write_text(json.dumps(told))
        raise SystemExit(0 if told["ok"] else 1)
