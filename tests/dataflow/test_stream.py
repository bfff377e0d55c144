"""The window, the interleaving and the bookkeeping of the stream, on an executor that the test steers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import pytest

from dataflow import stream
from dataflow.block_task import encode_block
from dataflow.discover import SlideSource
from dataflow.executor import LostTask, TaskFuture
from dataflow.plan_task import plan_slide
from dataflow.receipts import BlockReceipt, Failure, SlidePlan
from dataflow.stream import run_stream
from dataflow.stream_report import SlideResult, StreamObserver
from dataflow.stream_spec import BlockTask, StreamSpec

SPEC = StreamSpec("memory://unused", "256px_0.500mpp", None, None)


class SteeredExecutor:
    """Finishes tasks in a random order, and answers them from tables instead of doing them."""

    n_workers = 1

    def __init__(
        self,
        blocks_of: dict[str, int],
        *,
        window: int = 4,
        seed: int = 0,
        outcome: Callable[[BlockTask], BlockReceipt] | None = None,
    ) -> None:
        self.window = window
        self.blocks_of = blocks_of
        self.done: list[tuple[str, int]] = []
        self.most_in_flight = 0
        self.discarded = 0
        self._outcome = outcome or (lambda t: BlockReceipt(t.source.slide_id, t.block, n_tiles=10))
        self._pending: list[tuple[Future[Any], object]] = []
        self._random = random.Random(seed)

    def submit(
        self, name: str, function: Callable[..., Any], *args: object, gpu: bool
    ) -> TaskFuture:
        assert function in (plan_slide, encode_block)
        future: Future[Any] = Future()
        self._pending.append((future, args[1]))
        self.most_in_flight = max(self.most_in_flight, len(self._pending))
        if len(self._pending) == self.window or name == "index":
            self._finish_one()
        return future

    def _finish_one(self) -> None:
        future, task = self._pending.pop(self._random.randrange(len(self._pending)))
        try:
            future.set_result(self._answer(task))
        except ZeroDivisionError as error:
            future.set_exception(error)

    def finish_all(self) -> None:
        while self._pending:
            self._finish_one()

    def _answer(self, task: object) -> SlidePlan | BlockReceipt:
        if isinstance(task, SlideSource):
            n = self.blocks_of[task.slide_id]
            return SlidePlan(task.slide_id, n_tiles=10 * n, n_blocks=n, missing=tuple(range(n)))
        assert isinstance(task, BlockTask)
        self.done.append((task.source.slide_id, task.block))
        return self._outcome(task)

    def lost(self, error: BaseException) -> LostTask | None:
        return None

    def discard(self, futures: Iterable[TaskFuture]) -> None:
        self.discarded += len(list(futures))


class Draining(StreamObserver):
    """Lets the executor finish what is pending whenever the stream waits."""

    def __init__(self, executor: SteeredExecutor) -> None:
        self.executor = executor
        self.closed: list[SlideResult] = []

    def slide(self, result: SlideResult) -> None:
        self.closed.append(result)

    def cancelled(self) -> bool:
        self.executor.finish_all()
        return False


def sources(blocks_of: dict[str, int]) -> list[SlideSource]:
    return [SlideSource(slide_id, f"/slides/{slide_id}.svs") for slide_id in blocks_of]


@pytest.mark.parametrize("seed", range(5))
def test_every_block_of_every_slide_is_done_once_within_the_window(seed: int) -> None:
    blocks_of = {f"s{i}": n for i, n in enumerate([3, 0, 7, 1, 12, 5])}
    executor = SteeredExecutor(blocks_of, window=5, seed=seed)
    observer = Draining(executor)

    report = run_stream(executor, SPEC, sources(blocks_of), observer)

    assert sorted(executor.done) == sorted((s, b) for s, n in blocks_of.items() for b in range(n))
    assert executor.most_in_flight <= 5
    assert report.tiles_done == 10 * sum(blocks_of.values())
    assert [slide.slide_id for slide in report.slides] == list(blocks_of)
    assert all(slide.complete for slide in report.slides)
    assert sorted(slide.slide_id for slide in observer.closed) == sorted(blocks_of)


def test_slides_are_planned_no_further_ahead_than_the_window_needs() -> None:
    blocks_of = {f"s{i}": 20 for i in range(50)}
    executor = SteeredExecutor(blocks_of, window=4)
    planned: list[str] = []
    blocks_when_planned: list[int] = []

    class Watching(Draining):
        def planned(self, plan: SlidePlan) -> None:
            planned.append(plan.slide_id)
            blocks_when_planned.append(len(executor.done))

    run_stream(executor, SPEC, sources(blocks_of), Watching(executor))

    ahead = [20 * i - done for i, done in enumerate(blocks_when_planned)]
    assert max(ahead) <= 3 * 20, "more than about two slides were ready before they were needed"


def test_a_failed_block_costs_its_slide_and_nothing_else() -> None:
    def fail_one(task: BlockTask) -> BlockReceipt:
        failure = None
        if (task.source.slide_id, task.block) == ("b", 1):
            failure = Failure("b", "read-failed", "Can't decode.", 1)
        n_tiles = 0 if failure else 10
        return BlockReceipt(task.source.slide_id, task.block, n_tiles, failure=failure)

    blocks_of = {"a": 2, "b": 3, "c": 2}
    executor = SteeredExecutor(blocks_of, outcome=fail_one)

    report = run_stream(executor, SPEC, sources(blocks_of), Draining(executor))

    assert {slide.slide_id: slide.complete for slide in report.slides} == {
        "a": True,
        "b": False,
        "c": True,
    }
    assert [(f.slide_id, f.block, f.reason) for f in report.failures] == [("b", 1, "read-failed")]
    assert report.tiles_done == 60


def test_a_bug_in_a_task_is_reported_with_its_traceback() -> None:
    def crash(task: BlockTask) -> BlockReceipt:
        raise ZeroDivisionError("planted")

    executor = SteeredExecutor({"a": 1, "b": 0}, outcome=crash)

    report = run_stream(executor, SPEC, sources({"a": 1, "b": 0}), Draining(executor))

    (failure,) = report.failures
    assert failure.reason == "internal"
    assert "planted" in failure.message
    assert failure.traceback is not None
    assert "ZeroDivisionError" in failure.traceback


def test_a_fatal_failure_stops_the_run() -> None:
    def disk_full(task: BlockTask) -> BlockReceipt:
        failure = Failure(task.source.slide_id, "storage", "Disk full.", task.block, fatal=True)
        return BlockReceipt(task.source.slide_id, task.block, failure=failure)

    blocks_of = {f"s{i}": 50 for i in range(20)}
    executor = SteeredExecutor(blocks_of, window=4, outcome=disk_full)

    report = run_stream(executor, SPEC, sources(blocks_of), Draining(executor))

    assert report.stopped is not None
    assert len(executor.done) <= 8, "blocks were still started after the disk was full"
    assert len(report.slides) < 20


def test_a_cancelled_run_lets_go_of_what_is_in_flight() -> None:
    class Cancelling(StreamObserver):
        def cancelled(self) -> bool:
            return True

    executor = SteeredExecutor({"a": 100}, window=8)

    report = run_stream(executor, SPEC, sources({"a": 100}), Cancelling())

    assert report.cancelled
    assert executor.discarded > 0


def test_a_run_without_workers_says_so_once_and_goes_on_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "_POLL_S", 0.01)
    monkeypatch.setattr(stream, "_NO_WORKERS_S", 0.05)

    class Waiting(Draining):
        said = looked = 0

        def no_workers(self) -> None:
            self.said += 1

        def cancelled(self) -> bool:
            self.looked += 1
            if self.looked == 40:  # long after it was said
                self.executor.n_workers = 1
            return super().cancelled() if self.looked > 40 else False

    executor = SteeredExecutor({"a": 3}, window=4)
    executor.n_workers = 0
    observer = Waiting(executor)

    report = run_stream(executor, SPEC, sources({"a": 3}), observer)

    assert observer.said == 1
    assert report.tiles_done == 30
    assert report.slides[0].complete
