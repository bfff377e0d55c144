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


@pytest.mark.parametrize("misdeed", ["exit", "allocate"])
def test_a_block_that_kills_its_workers_is_given_up_alone(
    misdeed: str,
    cluster: Client,
    fault_run: ModuleType,
    tmp_path: Path,
    fault_counts: Callable[..., None],
) -> None:
    slides, store, tally = tmp_path / "slides", str(tmp_path / "store.zarr"), tmp_path / "tally"
    fault_run.make_slides(slides, N_SLIDES, poisoned={1: (3, 4)})
    model = fault_run.FaultModelFactory(0.01, str(tally), misdeed)
    total = N_SLIDES * fault_run.BLOCKS_PER_SLIDE

    report = fault_run.run(cluster, slides, store, model)

    assert report.stopped is None
    (failure,) = report.failures
    assert (failure.slide_id, failure.reason) == ("s1", "worker-died")
    assert "memory" in failure.message
    assert Path(f"{tally}.misdeeds").stat().st_size == 3, "tries"
    metrics = run_metrics(report, (), N_SLIDES, {})
    assert not metrics["ok"], "the exit code would be 0"
    assert metrics["blocks"]["done"] == total - 1
    group = open_store(store)["s1"].block_group(
        fault_run.stream_spec(store, model).grid_name, "features", "colour"
    )
    assert group.missing_blocks() == [failure.block]
    assert {found.code for found in validate(store)} == {"missing-block"}

    again = fault_run.run(cluster, slides, store, fault_run.FaultModelFactory())

    assert again.failures == []
    assert again.tiles_done == fault_run.BLOCK_TILES
    assert validate(store) == []
    fault_counts(f"worker dies of a block ({misdeed})", tried=3, detected=3, recovered=1)


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
