"""Whole flows on an embedded cluster: the code path of ``slidestream run``, without its command line."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from distributed import Client

from benchmarks.dask_share import DaskShare, dask_share
from benchmarks.slide import MPP, TILE_PX
from dataflow.cluster import ClusterSpec, connect
from dataflow.discover import SlideSource
from dataflow.executors import DaskExecutor
from dataflow.stain import StainSpec
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver, StreamReport
from dataflow.stream_spec import EncodeSpec, IndexSpec, StreamSpec
from dataflow.tile_model import TileModelFactory
from dataflow.tissue import TissueSpec
from store_schema.names import DEFAULT_BLOCK_TILES
from store_schema.specs import GridSpec
from store_schema.store import create_store

WARM_UP_BLOCK_TILES: Final = 64


@dataclass(frozen=True)
class FlowTiming:
    """One run of the stream.

    Attributes
    ----------
    report
        What the stream says of it.
    share
        What of it was Dask's.
    """

    report: StreamReport
    share: DaskShare

    @property
    def seconds(self) -> float:
        """Wall time of the run."""
        return self.report.seconds

    @property
    def tiles_per_s(self) -> float:
        """Rate."""
        return self.report.tiles_done / self.seconds


def grid_spec() -> GridSpec:
    """Return the grid of all flows: 256 px at 0.5 µm/px, all over the slide."""
    return GridSpec(TILE_PX, MPP, TILE_PX, tissue=TissueSpec(method="none").to_json())


def index_spec(block_tiles: int = DEFAULT_BLOCK_TILES) -> IndexSpec:
    """Return how slides are indexed."""
    return IndexSpec(grid_spec(), TissueSpec(method="none"), block_tiles=block_tiles)


def stream_spec(
    store: Path, factory: TileModelFactory, stain: StainSpec, index: IndexSpec | None
) -> StreamSpec:
    """Return a run; without ``index`` the store must have the grid."""
    encode = EncodeSpec(factory.name, factory, stain)
    return StreamSpec(str(store), grid_spec().name, index, encode)


@contextmanager
def embedded(n_threads: int) -> Iterator[tuple[Client, float]]:
    """Start the cluster that ``slidestream run`` starts; yields (client, seconds that it took)."""
    begun = time.perf_counter()
    with connect(None, ClusterSpec(threads_per_worker=n_threads, dashboard_port=0)) as client:
        yield client, time.perf_counter() - begun


def run_flow(client: Client, spec: StreamSpec, slides: Sequence[Path]) -> FlowTiming:
    """Run the stream over slides, into a store that is made when it is missing.

    Raises
    ------
    RuntimeError
        Something of it failed.
    """
    create_store(spec.store_url)
    sources = [SlideSource(path.stem, str(path.resolve())) for path in slides]
    with dask_share(client, "encode") as share:
        report = run_stream(DaskExecutor(client), spec, sources, StreamObserver())
    if report.failures or report.stopped:
        raise RuntimeError(f"the flow failed: {report.stopped or report.failures[0]}")
    return FlowTiming(report, share)


def warm_up(
    client: Client, slide: Path, factory: TileModelFactory, stain: StainSpec, folder: Path
) -> float:
    """Have the workers import, load and compile all that a run needs; return the seconds that it took."""
    begun = time.perf_counter()
    store = folder / "warm_up.zarr"
    run_flow(client, stream_spec(store, factory, stain, index_spec(WARM_UP_BLOCK_TILES)), [slide])
    shutil.rmtree(store)
    return time.perf_counter() - begun
