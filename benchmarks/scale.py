"""What cohorts cost: 10, 100, 1,000 small slides, one run each into a fresh store.

    uv run python -m benchmarks.scale [--slides 10 100 1000]

Slides are generated, of different pixels, 36 tiles of 256 px each; the encoder is near-free, the cluster embedded and
fresh for each cohort, and warm before the clock starts. Memory is the peak of the resident bytes of a process, sampled
ten times a second: the client's process has the scheduler in it, as of ``slidestream run``.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from distributed import Client

from benchmarks.flow_run import embedded, index_spec, run_flow, stream_spec, warm_up
from benchmarks.machine import machine, n_cores
from benchmarks.near_free import NearFreeFactory
from benchmarks.slide import benchmark_slide, default_work, small_slides
from dataflow.discover import SlideSource
from dataflow.plan_task import plan_slide
from dataflow.stain import StainSpec
from store_schema.store import create_store

_SAMPLE_EVERY_S = 0.1
_PROFILED_SLIDES = 50
_TOP = 30


@dataclass
class Memory:
    """Peaks of resident bytes.

    Attributes
    ----------
    client, workers
        Of the client's process with the scheduler, and of all workers (and their nannies) together.
    """

    client: int = 0
    workers: int = 0


@dataclass
class MemorySampler:
    """Samples this process and its descendants in a thread of its own while the context is open."""

    peak: Memory = field(default_factory=Memory)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self.peak

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        root = psutil.Process()
        while not self._stop.wait(_SAMPLE_EVERY_S):
            workers = 0
            for process in root.children(recursive=True):
                try:
                    workers += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak.client = max(self.peak.client, root.memory_info().rss)
            self.peak.workers = max(self.peak.workers, workers)


@dataclass(frozen=True)
class Cohort:
    """One measured run.

    Attributes
    ----------
    n_slides, n_tiles
        What was done.
    seconds
        Wall time.
    memory
        Peaks.
    n_objects, store_bytes
        Files of the store and what they hold.
    client_share
        Of the cores' time, what client and scheduler took, 0 to 1.
    """

    n_slides: int
    n_tiles: int
    seconds: float
    memory: Memory
    n_objects: int
    store_bytes: int
    client_share: float

    def row(self, before: Cohort | None) -> str:
        """Return the row of the table; ratios are to ``before``."""
        time_ratio = memory_ratio = ""
        if before is not None:
            time_ratio = f" (x{self.seconds / before.seconds:.1f})"
            whole, whole_before = (m.client + m.workers for m in (self.memory, before.memory))
            memory_ratio = f" (x{whole / whole_before:.2f})"
        mib = [f"{n / 2**20:,.0f}" for n in (self.memory.client, self.memory.workers)]
        both = f"{(self.memory.client + self.memory.workers) / 2**20:,.0f}"
        return (
            f"| {self.n_slides:,} | {self.n_tiles:,} | {self.seconds:.1f}{time_ratio} "
            f"| {self.seconds / self.n_slides * 1e3:.0f} | {self.n_tiles / self.seconds:,.0f} | {mib[0]} | {mib[1]} "
            f"| {both}{memory_ratio} | {self.n_objects:,} | {self.store_bytes / 2**20:,.1f} | {self.client_share:.1%} |"
        )


def run_cohort(client: Client, slides: list[Path], folder: Path, cores: int) -> Cohort:
    """Run the stream over a cohort and measure it; its store is deleted afterwards."""
    store = folder / f"cohort{len(slides)}.zarr"
    spec = stream_spec(store, NearFreeFactory(), StainSpec(), index_spec())
    with MemorySampler() as memory:
        flow = run_flow(client, spec, slides)
    objects = [Path(place, name) for place, _, files in os.walk(store) for name in files]
    size = sum(path.stat().st_size for path in objects)
    shutil.rmtree(store)
    return Cohort(
        len(slides),
        flow.report.tiles_done,
        flow.seconds,
        memory,
        len(objects),
        size,
        flow.share.client(cores),
    )


def profile_plans(slides: list[Path], folder: Path) -> None:
    """Print where the time of making slides ready goes, in this process and thread."""
    spec = stream_spec(folder / "profile.zarr", NearFreeFactory(), StainSpec(), index_spec())
    create_store(spec.store_url)
    sources = [SlideSource(path.stem, str(path.resolve())) for path in slides]
    plan_slide(spec, sources[0])
    profile = cProfile.Profile()
    profile.enable()
    for source in sources[1:]:
        plan_slide(spec, source)
    profile.disable()
    print(f"\nplan_slide of {len(sources) - 1} slides")
    statistics = pstats.Stats(profile)
    statistics.sort_stats("tottime").print_stats(_TOP)
    statistics.sort_stats("cumulative").print_stats("(dataflow|store_schema)", _TOP)


def main() -> None:
    """Measure each cohort and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--work", type=Path, default=default_work(), help="keeps slides")
    parser.add_argument("--threads", type=int, help="instead of all cores")
    parser.add_argument(
        "--profile", action="store_true", help="only show where plan_slide spends its time"
    )
    args = parser.parse_args()
    cores = args.threads or n_cores()
    args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        folder = Path(scratch)
        if args.profile:
            profile_plans(small_slides(args.work, _PROFILED_SLIDES), folder)
            return
        print(machine())
        print(
            "| slides | tiles | s | ms a slide | tiles/s | client MiB | workers MiB | all MiB | objects | store MiB "
            "| client and scheduler |\n|---|---|---|---|---|---|---|---|---|---|---|"
        )
        warm_slide = benchmark_slide(args.work, 256)
        before: Cohort | None = None
        for n_slides in args.slides:
            slides = small_slides(args.work, n_slides)
            with embedded(cores) as (client, _):
                warm_up(client, warm_slide, NearFreeFactory(), StainSpec(), folder)
                cohort = run_cohort(client, slides, folder, cores)
            print(cohort.row(before), flush=True)
            before = cohort


if __name__ == "__main__":
    main()
