"""Two writers on one slide at once: one result, valid, the same bits; of creators with other settings one wins."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from dataflow.executors import SerialExecutor
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver
from store_schema.errors import SettingsConflictError
from store_schema.leftovers import remove_leftovers
from store_schema.specs import ArraySpec
from store_schema.store import create_store, open_store
from store_schema.validate import validate

RACES: Final = 20
LONG_RACES: Final = 100
WRITERS: Final = 2
short_and_long: Final = pytest.mark.parametrize(
    "races",
    [RACES, pytest.param(LONG_RACES, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)


@short_and_long
def test_two_processes_make_one_store(
    races: int,
    forked: ForkServerContext,
    fault_run: ModuleType,
    tmp_path: Path,
    store_digests: Callable[[Path], dict[str, str]],
    fault_counts: Callable[..., None],
) -> None:
    slides = tmp_path / "slides"
    fault_run.make_slides(slides, 1)
    whole = tmp_path / "whole.zarr"
    create_store(whole)
    model = fault_run.FaultModelFactory()
    spec = fault_run.stream_spec(str(whole), model)
    run_stream(SerialExecutor(), spec, fault_run.sources(slides), StreamObserver())
    expected = store_digests(whole)
    chance = random.Random(0)
    pipes, writers = [], []
    for _ in range(WRITERS):
        ours, theirs = forked.Pipe()
        writers.append(forked.Process(target=fault_run.serve_races, args=(theirs, slides)))
        writers[-1].start()
        pipes.append(ours)
    twice = 0
    try:
        for race in range(races):
            store = tmp_path / f"raced{race}.zarr"
            head_start = chance.choice([0.0, 0.0, chance.uniform(0.0, 0.2)])
            for pipe, delay in zip(pipes, (0.0, head_start), strict=True):
                pipe.send((str(store), delay))
            reports = [pipe.recv() if pipe.poll(60) else None for pipe in pipes]
            assert [report and report["reasons"] for report in reports] == [[], []], f"race {race}"
            done = sum(report["blocks_done"] for report in reports if report)
            assert done >= fault_run.BLOCKS_PER_SLIDE
            twice += done - fault_run.BLOCKS_PER_SLIDE
            assert validate(str(store)) == [], f"race {race}"
            assert remove_leftovers(open_store(store, mode="r+"), min_age_s=0) == []
            assert store_digests(store) == expected, f"race {race}"
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    assert twice > 0, "the writers never met"
    fault_counts("two writers: the same run", tried=races, recovered=races)


@short_and_long
def test_of_creators_with_other_settings_one_wins(
    races: int, fault_run: ModuleType, tmp_path: Path, fault_counts: Callable[..., None]
) -> None:
    slides = tmp_path / "slides"
    fault_run.make_slides(slides, 1)
    store = str(tmp_path / "store.zarr")
    create_store(store)
    spec = replace(fault_run.stream_spec(store, fault_run.FaultModelFactory()), encode=None)
    run_stream(SerialExecutor(), spec, fault_run.sources(slides), StreamObserver())
    creators = 4
    arrays = {"features": ArraySpec(("tile", "feature"), (3,), "float32")}
    refused = 0
    for race in range(races):
        barrier = threading.Barrier(creators)

        def create(
            number: int, name: str = f"f{race}", barrier: threading.Barrier = barrier
        ) -> Any:
            slide = open_store(store, mode="r+")["s0"]
            settings = {"model": "m", "batch": {"size": number // 2}}  # two of each kind
            barrier.wait()
            try:
                return slide.create_tile_group(spec.grid_name, "features", name, arrays, settings)
            except SettingsConflictError as error:
                return error

        with ThreadPoolExecutor(creators) as pool:
            results = list(pool.map(create, range(creators)))
        lost = [result for result in results if isinstance(result, SettingsConflictError)]
        won = [result for result in results if not isinstance(result, SettingsConflictError)]
        assert len(won) == len(lost) == 2, "those who want the same all go on, the others don't"
        assert len({group.attrs["fingerprint"] for group in won}) == 1
        size = won[0].attrs["provenance"]["batch"]["size"]
        for other in lost:
            assert f"batch.size: stored {size}, asked {1 - size}" in str(other)
        refused += len(lost)
    assert {found.code for found in validate(store)} == {"missing-block"}
    fault_counts("two writers: other settings", tried=races, detected=refused // 2)


@short_and_long
def test_two_slides_of_one_id(
    races: int, fault_run: ModuleType, tmp_path: Path, fault_counts: Callable[..., None]
) -> None:
    for folder, seed in (("one", 1), ("two", 2)):
        fault_run.make_slides(tmp_path / "both", seed)
        (tmp_path / folder).mkdir()
        (tmp_path / "both" / f"s{seed - 1}.tif").rename(tmp_path / folder / "s.tif")
    detected = 0
    for race in range(races):
        store = str(tmp_path / f"store{race}.zarr")
        spec = fault_run.stream_spec(store, fault_run.FaultModelFactory())
        create_store(store)
        barrier = threading.Barrier(2)

        def run(folder: str, spec: Any = spec, barrier: threading.Barrier = barrier) -> list[str]:
            barrier.wait()
            sources = fault_run.sources(tmp_path / folder)
            report = run_stream(SerialExecutor(), spec, sources, StreamObserver())
            return [failure.reason for failure in report.failures]

        with ThreadPoolExecutor(2) as pool:
            reasons = sorted(pool.map(run, ("one", "two")))
        assert reasons == [[], ["slide-changed"]]
        assert validate(store) == []
        detected += 1
    fault_counts("two writers: other slides of one id", tried=races, detected=detected)
