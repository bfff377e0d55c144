"""Workers that die of one block: three tries, then that block is given up, and nothing that was beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from distributed import Client

from jobs.summary import run_metrics
from store_schema.store import open_store
from store_schema.validate import validate

N_SLIDES = 3


ONE = {1: (3, 4)}
TWO = {0: (0, 0), 1: (3, 4)}


@pytest.mark.parametrize(("misdeed", "poisoned"), [("exit", ONE), ("exit", TWO), ("allocate", ONE)])
def test_a_block_that_kills_its_workers_is_given_up_alone(
    misdeed: str,
    poisoned: dict[int, tuple[int, int]],
    cluster: Client,
    fault_run: ModuleType,
    tmp_path: Path,
    fault_counts: Callable[..., None],
) -> None:
    slides, store, tally = tmp_path / "slides", str(tmp_path / "store.zarr"), tmp_path / "tally"
    fault_run.make_slides(slides, N_SLIDES, poisoned=poisoned)
    model = fault_run.FaultModelFactory(0.01, str(tally), misdeed)
    total = N_SLIDES * fault_run.BLOCKS_PER_SLIDE

    report = fault_run.run(cluster, slides, store, model)

    assert report.stopped is None
    lost = sorted((failure.slide_id, failure.reason) for failure in report.failures)
    assert lost == [(f"s{number}", "worker-died") for number in poisoned]
    n, tries = len(poisoned), Path(f"{tally}.misdeeds").stat().st_size
    # of two, one may die while the other waits
    assert (3 if n == 1 else 2 * n) <= tries <= 3 * n, f"{tries} tries"
    metrics = run_metrics(report, (), N_SLIDES, {})
    assert not metrics["ok"], "the exit code would be 0"
    assert metrics["blocks"]["done"] == total - len(poisoned)
    grid = fault_run.stream_spec(store, model).grid_name
    for failure in report.failures:
        assert "memory" in failure.message
        group = open_store(store)[failure.slide_id].block_group(grid, "features", "colour")
        assert group.missing_blocks() == [failure.block]
    assert {found.code for found in validate(store)} == {"missing-block"}

    again = fault_run.run(cluster, slides, store, fault_run.FaultModelFactory())

    assert again.failures == []
    assert again.tiles_done == fault_run.BLOCK_TILES * len(poisoned)
    assert validate(store) == []
    fault_counts(f"worker dies of a block ({misdeed} x {n})", tried=n, detected=n, recovered=n)


def test_a_bug_of_the_model_costs_its_block_and_no_worker(
    cluster: Client, fault_run: ModuleType, tmp_path: Path, fault_counts: Callable[..., None]
) -> None:
    slides, store = tmp_path / "slides", str(tmp_path / "store.zarr")
    fault_run.make_slides(slides, 1, poisoned={0: (0, 0)})

    report = fault_run.run(cluster, slides, store, fault_run.FaultModelFactory(misdeed="raise"))

    (failure,) = report.failures
    assert failure.reason == "internal"
    assert "planted" in str(failure.traceback)
    assert fault_run.run(cluster, slides, store, fault_run.FaultModelFactory()).failures == []
    assert validate(store) == []
    fault_counts("model raises", tried=1, detected=1, recovered=1)


@pytest.mark.timeout(120)
def test_a_worker_that_stays_near_its_limit_works_on(
    cluster: Client, fault_run: ModuleType, tmp_path: Path, fault_counts: Callable[..., None]
) -> None:
    slides, store = tmp_path / "slides", str(tmp_path / "store.zarr")
    poisoned = dict.fromkeys(range(N_SLIDES), (0, 0))  # so that both workers meet it
    fault_run.make_slides(slides, N_SLIDES, poisoned=poisoned)

    report = fault_run.run(cluster, slides, store, fault_run.FaultModelFactory(misdeed="hoard"))

    assert report.stopped is None
    assert fault_run.run(cluster, slides, store, fault_run.FaultModelFactory()).failures == []
    assert validate(store) == []
    fault_counts("worker near its memory limit", tried=1, recovered=1)
