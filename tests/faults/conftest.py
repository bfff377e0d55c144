"""Faults: what was tried, detected and recovered, told by each test and printed as one table at the end."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType

import dask
import pytest
from distributed import Client

from dataflow.cluster import embedded_cluster

PRELOADED = [  # what a run of such slides imports when it comes to it
    "dataflow.reader_image",
    "dataflow.reader_jpeg_tiff",
    "dataflow.reader_openslide",
    "dataflow.resample_cpu",
]


@dataclass(frozen=True)
class FaultCounts:
    """What one fault test did: how many faults it made, how many were noticed, how many mended."""

    name: str
    tried: int
    detected: int | None
    recovered: int | None


_COUNTS = pytest.StashKey[list[FaultCounts]]()


@pytest.fixture(scope="session")
def fault_counts(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that tells the counts of a fault; what has no meaning for it is left out."""
    told = request.config.stash.setdefault(_COUNTS, [])

    def tell(
        name: str, *, tried: int, detected: int | None = None, recovered: int | None = None
    ) -> None:
        told.append(FaultCounts(name, tried, detected, recovered))

    return tell


@pytest.fixture(scope="session")
def fault_run() -> Iterator[ModuleType]:
    """Return the module of the run that faults are made in, which worker processes can import too."""
    here = str(Path(__file__).parent)
    before = os.environ.get("PYTHONPATH")
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [here, str(Path(__file__).parents[2]), before])
    )
    yield importlib.import_module("fault_run")
    sys.path.remove(here)
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session")
def forked(fault_run: ModuleType) -> ForkServerContext:
    """Return how to start processes that have imported everything: from one that did."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([fault_run.__name__, *PRELOADED])
    forkserver.ensure_running()
    return context


@pytest.fixture(scope="module")
def cluster(forked: ForkServerContext, fault_run: ModuleType) -> Iterator[Client]:
    """Return a client of two workers of one thread with nannies, as those of ``slidestream run``."""
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": forked.get_start_method()}),
        embedded_cluster(fault_run.SPEC) as it,
        Client(it, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def slidestream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs ``slidestream`` in this process: arguments → exit code, stdout, stderr."""
    monkeypatch.setenv("SLIDESTREAM_STATE_DIR", str(tmp_path / "state"))

    def call(*args: object) -> tuple[int, str, str]:
        from jobs.cli import main

        monkeypatch.setattr(sys, "argv", ["slidestream", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        assert isinstance(stopped.value.code, int)
        return (stopped.value.code, *capsys.readouterr())

    return call


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    told = config.stash.get(_COUNTS, [])
    if not told:
        return
    width = max(len(each.name) for each in told)
    terminalreporter.section("faults")
    terminalreporter.write_line(
        f"{'fault':<{width}}  {'tried':>8}  {'detected':>8}  {'recovered':>9}"
    )
    for each in told:
        terminalreporter.write_line(
            f"{each.name:<{width}}  {each.tried:>8,}  {_shown(each.detected):>8}  {_shown(each.recovered):>9}"
        )


def _shown(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"
