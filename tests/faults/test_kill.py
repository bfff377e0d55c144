"""kill -9 of worker, scheduler, client or all at random moments: the resumed store equals an undisturbed one."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from store_schema.errors import NotAStoreError
from store_schema.leftovers import remove_leftovers
from store_schema.store import open_store
from store_schema.validate import validate

ROUNDS: Final = 20
LONG_ROUNDS: Final = 200
N_SLIDES: Final = 2
N_WORKERS: Final = 2
VICTIMS: Final = ("worker", "scheduler", "client", "all")
# what isn't there yet; anything else would be torn
UNFINISHED: Final = {"missing-block", "missing-array", "missing-metadata", "incomplete", "leftover"}


@dataclass
class Harness:
    """Scheduler, workers and client as processes of their own, forked from one that has imported everything."""

    fault_run: ModuleType
    forked: ForkServerContext
    folder: Path
    slides: Path
    workers: list[ForkServerProcess] = field(default_factory=list)
    scheduler: ForkServerProcess | None = None
    address: str = ""

    @property
    def tally(self) -> Path:
        return self.folder / "tally"

    def tiles_modelled(self) -> int:
        return self.tally.stat().st_size if self.tally.exists() else 0

    def up(self) -> None:
        """Start what is not there."""
        if self.scheduler is None or not self.scheduler.is_alive():
            for (
                worker
            ) in self.workers:  # they end by themselves, or hold a block of the old scheduler
                worker.kill()
                worker.join()
            self.workers.clear()
            ours, theirs = self.forked.Pipe()
            self.scheduler = self._start(self.fault_run.serve_scheduler, theirs)
            assert ours.poll(60)
            self.address = ours.recv()
        self.workers = [worker for worker in self.workers if worker.is_alive()]
        while len(self.workers) < N_WORKERS:
            self.workers.append(self._start(self.fault_run.serve_worker, self.address))

    def client(self, store: Path) -> ForkServerProcess:
        (self.folder / "report.json").unlink(missing_ok=True)
        model = self.fault_run.FaultModelFactory(0.01, str(self.tally))
        return self._start(
            self.fault_run.run_client,
            self.address, self.slides, str(store), model, self.folder / "report.json",
        )  # fmt: skip

    def finished(self, client: ForkServerProcess) -> dict[str, object]:
        """Wait for a client and return what it reported."""
        client.join(90)
        assert client.exitcode is not None, "the run hangs"
        report = json.loads((self.folder / "report.json").read_text())  # a bug would leave none
        assert isinstance(report, dict)
        assert (client.exitcode == 0) == report["ok"]
        return report

    def kill(self, victim: str, client: ForkServerProcess, chance: random.Random) -> None:
        assert self.scheduler is not None
        doomed = {
            "worker": [chance.choice(self.workers)],
            "scheduler": [self.scheduler],
            "client": [client],
            "all": [client, self.scheduler, *self.workers],
        }[victim]
        for process in doomed:
            process.kill()
        for process in doomed:
            process.join()

    def down(self) -> None:
        for process in [self.scheduler, *self.workers]:
            if process is not None:
                process.kill()
                process.join()

    def _start(self, target: Callable[..., None], *args: object) -> ForkServerProcess:
        process = self.forked.Process(target=target, args=args, daemon=True)
        process.start()
        return process


@pytest.fixture
def harness(fault_run: ModuleType, forked: ForkServerContext, tmp_path: Path) -> Iterator[Harness]:
    fault_run.make_slides(tmp_path / "slides", N_SLIDES)
    it = Harness(fault_run, forked, tmp_path, tmp_path / "slides")
    yield it
    it.down()


def await_moment(harness: Harness, client: ForkServerProcess, chance: random.Random) -> None:
    """Wait for a random moment of the run, by the work that was done: load of the machine doesn't shift it."""
    n_tiles = N_SLIDES * harness.fault_run.SIDE_TILES**2
    if chance.random() < 0.15:  # while it connects, indexes and claims
        time.sleep(chance.uniform(0.0, 0.5))
        return
    wanted = chance.randrange(1, n_tiles)
    while harness.tiles_modelled() < wanted and client.is_alive():
        time.sleep(0.001)
    time.sleep(chance.uniform(0.0, 0.03))


def block_stamps(store: Path) -> dict[Path, tuple[int, int]]:
    """Return, of each block that is done, by the object that is written last: which file it is and of when."""
    found = {}
    for path in store.glob("*/*/features/colour/features/c/**/*"):
        if path.is_file() and not path.name.endswith(".partial"):
            stat = path.stat()
            found[path] = (stat.st_ino, stat.st_mtime_ns)
    return found


@pytest.mark.parametrize(
    "rounds",
    [ROUNDS, pytest.param(LONG_ROUNDS, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
)
def test_killed_and_resumed_runs_end_in_the_same_store(
    rounds: int,
    harness: Harness,
    tmp_path: Path,
    store_digests: Callable[[Path], dict[str, str]],
    fault_counts: Callable[..., None],
) -> None:
    harness.up()
    whole = tmp_path / "whole.zarr"
    assert harness.finished(harness.client(whole))["ok"]
    assert validate(str(whole)) == []
    expected = store_digests(whole)
    n_tiles = N_SLIDES * harness.fault_run.SIDE_TILES**2
    assert harness.tiles_modelled() == n_tiles

    chance = random.Random(0)
    midway: Counter[str] = Counter()
    recovered: Counter[str] = Counter()
    partial_files = 0
    for round_ in range(rounds):
        victim = VICTIMS[round_ % len(VICTIMS)]
        store = tmp_path / f"broken{round_}.zarr"
        harness.tally.unlink(missing_ok=True)
        harness.up()
        client = harness.client(store)
        await_moment(harness, client, chance)
        midway[victim] += client.is_alive() and harness.tiles_modelled() < n_tiles
        harness.kill(victim, client, chance)
        try:
            torn = {found.code for found in validate(str(store))} - UNFINISHED
        except NotAStoreError:
            torn = set()
        assert not torn, f"round {round_}, {victim} killed"
        before = block_stamps(store)
        harness.up()
        if victim == "worker":
            assert harness.finished(client)["ok"], "the others, or its successor, do its work"
        elif victim == "scheduler":
            harness.finished(client)  # it says so, or was through with it

        assert harness.finished(harness.client(store))["ok"], f"round {round_}, {victim} killed"

        partial_files += len(remove_leftovers(open_store(store, mode="r+"), min_age_s=0))
        assert store_digests(store) == expected, f"round {round_}, {victim} killed"
        after = block_stamps(store)
        assert {path: after[path] for path in before} == before, "stored blocks were done again"
        again = harness.tiles_modelled() - n_tiles
        in_flight = harness.fault_run.BLOCK_TILES * (1 if victim == "worker" else N_WORKERS)
        assert again <= in_flight, f"round {round_}: {again} tiles done twice, {victim} killed"
        recovered[victim] += 1
    assert midway.total() >= rounds // 2, "most kills came after the end: they tested nothing"
    for victim in VICTIMS:
        fault_counts(
            f"kill -9: {victim}",
            tried=rounds // len(VICTIMS),
            detected=midway[victim],
            recovered=recovered[victim],
        )
    fault_counts("kill -9: files left halfway", tried=partial_files, recovered=partial_files)
