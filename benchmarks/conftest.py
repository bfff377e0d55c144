"""Inputs of the benchmarks: of full size when they are timed, small when they run as ordinary tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.flow_run import grid_spec
from benchmarks.slide import benchmark_slide, default_work
from benchmarks.stages import TiledSlide

Result = TypeVar("Result")
Timed = Callable[..., Any]


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether times are taken."""
    return bool(request.config.getoption("benchmark_enable")) or not request.config.getoption(
        "benchmark_disable"
    )


@pytest.fixture(scope="session")
def slide(full: bool, tmp_path_factory: pytest.TempPathFactory) -> TiledSlide:
    """Return a slide of 1,024 tiles, or of 36."""
    folder = default_work() if full else tmp_path_factory.mktemp("slides")
    return TiledSlide.of(benchmark_slide(folder, 1024 if full else 36), grid_spec())


@pytest.fixture(scope="session")
def slide_path(slide: TiledSlide) -> Path:
    """Return the same slide's file."""
    return Path(slide.reader.info.path)


@pytest.fixture(scope="session")
def tiles(full: bool, slide: TiledSlide) -> npt.NDArray[np.uint8]:
    """Return uint8 (n, 256, 256, rgb), read from the slide."""
    return slide.read(0, 256 if full else 8)


@pytest.fixture
def timed(benchmark: BenchmarkFixture) -> Timed:
    """Return a function (work, n_tiles, nbytes=0) → the work's result; rates go to ``extra_info``."""

    def run(work: Callable[[], Result], n_tiles: int, nbytes: int = 0) -> Result:
        result: Result = benchmark(work)
        if benchmark.stats is not None:  # None where nothing is timed
            best_s = benchmark.stats.stats.min
            benchmark.extra_info["tiles"] = n_tiles
            benchmark.extra_info["tiles_per_s"] = round(n_tiles / best_s, 1)
            if nbytes:
                benchmark.extra_info["gb_per_s"] = round(nbytes / best_s / 1e9, 3)
        return result

    return run
