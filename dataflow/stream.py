"""The bounded window: slides are planned a few ahead, their blocks interleaved, receipts gathered, nothing kept."""

from __future__ import annotations

import queue
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from dataflow.block_task import encode_block
from dataflow.discover import SlideSource
from dataflow.executor import Executor, LostTask, TaskFuture
from dataflow.plan_task import plan_slide
from dataflow.receipts import BlockReceipt, Failure, SlidePlan
from dataflow.stream_report import SlideResult, StreamObserver, StreamReport
from dataflow.stream_spec import BlockTask, StreamSpec
from store_schema.errors import ClusterError

_POLL_S = 0.5  # how often a run looks whether it is to be cancelled
_NO_WORKERS_S = 10.0  # a worker that dies is back before that, where somebody starts it again
_TRIES = 3  # of a task whose workers die


def run_stream(
    executor: Executor, spec: StreamSpec, sources: Iterable[SlideSource], observer: StreamObserver
) -> StreamReport:
    """Run the stream to its end.

    Memory grows neither with the number of tiles nor (but for one small result a slide) with that of slides: at most
    ``executor.window`` tasks are in flight, and slides are planned only as far ahead as keeps the window full.

    Parameters
    ----------
    executor
        Where the tasks run.
    spec
        What is to be done.
    sources
        The slides, in order.
    observer
        Is told what happens, in this thread.

    Returns
    -------
    StreamReport
        Also when slides or blocks failed; only bugs raise.
    """
    return _Run(executor, spec, iter(sources), observer).run()


@dataclass(frozen=True)
class _Work:
    source: SlideSource
    task: BlockTask | None = None  # None: the plan of the slide
    tries: int = 0  # how many workers were lost with it
    alone: bool = False

    @property
    def block(self) -> int | None:
        return None if self.task is None else self.task.block


@dataclass(frozen=True)
class _InFlight:
    future: TaskFuture
    work: _Work


class _Run:
    def __init__(
        self,
        executor: Executor,
        spec: StreamSpec,
        sources: Iterator[SlideSource],
        observer: StreamObserver,
    ) -> None:
        self._executor = executor
        self._spec = spec
        self._sources = sources
        self._observer = observer
        self._report = StreamReport()
        self._results: dict[str, SlideResult] = {}
        self._open_blocks: Counter[str] = Counter()
        self._ready: deque[BlockTask] = deque()
        self._suspects: deque[_Work] = deque()
        self._in_flight: dict[int, _InFlight] = {}
        self._planning = 0
        self._done: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ticket = 0
        self._worker_seen = time.monotonic()
        self._said_no_workers = False

    def run(self) -> StreamReport:
        start = time.perf_counter()
        try:
            self._loop()
        except ClusterError as error:
            self._report.stopped = Failure("", error.reason, str(error), fatal=True)
        finally:
            self._executor.discard(task.future for task in self._in_flight.values())
        self._report.seconds = time.perf_counter() - start
        return self._report

    def _loop(self) -> None:
        self._fill()
        looked = time.monotonic()
        while self._in_flight:
            if time.monotonic() - looked > _POLL_S:
                looked = time.monotonic()
                if self._observer.cancelled():
                    self._report.cancelled = True
                    return
                self._look_for_workers()
            try:
                ticket = self._done.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            self._finish(self._in_flight.pop(ticket))
            self._fill()

    def _look_for_workers(self) -> None:
        if self._executor.n_workers > 0:
            self._worker_seen = time.monotonic()
            self._said_no_workers = False
        elif time.monotonic() - self._worker_seen > _NO_WORKERS_S and not self._said_no_workers:
            self._said_no_workers = True
            self._observer.no_workers()

    def _fill(self) -> None:
        window = self._executor.window
        if self._suspects and self._report.stopped is None:
            # one at a time and with nothing beside it: a worker dies with all that it has, whatever the cause
            if not self._in_flight:
                self._submit(self._suspects.popleft())
            return
        while self._report.stopped is None and len(self._in_flight) < window:
            # plan ahead while fewer blocks are ready than the window holds, so that no worker waits between slides
            if len(self._ready) < window and self._planning < max(1, window // 2):
                source = next(self._sources, None)
                if source is not None:
                    self._plan(source)
                    continue
            if not self._ready:
                return
            self._encode(self._ready.popleft())

    def _plan(self, source: SlideSource) -> None:
        self._planning += 1
        result = SlideResult(source.slide_id)
        self._results[source.slide_id] = result
        self._report.slides.append(result)
        self._submit(_Work(source))

    def _encode(self, task: BlockTask) -> None:
        self._submit(_Work(task.source, task))

    def _submit(self, work: _Work) -> None:
        self._ticket += 1
        ticket = self._ticket
        submit, spec = self._executor.submit, self._spec
        if work.task is None:
            future = submit("index", plan_slide, spec, work.source, gpu=False)
        else:
            gpu = spec.encode is not None and spec.encode.model.needs_gpu
            future = submit("encode", encode_block, spec, work.task, gpu=gpu)
        self._in_flight[ticket] = _InFlight(future, work)
        future.add_done_callback(lambda _: self._done.put(ticket))

    def _finish(self, task: _InFlight) -> None:
        work = task.work
        slide_id = work.source.slide_id
        failure: Failure | None = None
        outcome: SlidePlan | BlockReceipt | None = None
        try:
            outcome = task.future.result()
        except Exception as error:  # noqa: BLE001 - a bug or a lost worker must not stop the cohort; it is reported
            lost = self._executor.lost(error)
            if lost is not None and self._is_tried_again(work, lost):
                return
            failure = _failure_of(error, lost, slide_id, work.block)
        if work.block is None:
            self._planning -= 1
            plan = (
                outcome if isinstance(outcome, SlidePlan) else SlidePlan(slide_id, failure=failure)
            )
            self._planned(work.source, plan)
        else:
            receipt = (
                outcome
                if isinstance(outcome, BlockReceipt)
                else BlockReceipt(slide_id, work.block, failure=failure)
            )
            self._received(receipt)

    def _is_tried_again(self, work: _Work, lost: LostTask) -> bool:
        """Queue a task that was lost with its worker, unless it was tried often enough, and once by itself."""
        tries = work.tries + lost.tries
        if lost.fatal or (work.alone and tries >= _TRIES):
            return False
        self._suspects.append(replace(work, tries=tries, alone=True))
        return True

    def _planned(self, source: SlideSource, plan: SlidePlan) -> None:
        result = self._results[plan.slide_id]
        result.n_tiles, result.n_blocks = plan.n_tiles, plan.n_blocks
        result.notes = plan.notes
        result.blocks_before = plan.n_blocks - len(plan.missing)
        _add(self._report.stage_seconds, {"index": plan.seconds})
        self._observer.planned(plan)
        if plan.failure is not None:
            self._failed(result, plan.failure)
        self._open_blocks[plan.slide_id] = len(plan.missing)
        self._ready.extend(BlockTask(source, block, plan.stamp) for block in plan.missing)
        if not plan.missing:
            self._close(plan.slide_id)

    def _received(self, receipt: BlockReceipt) -> None:
        result = self._results[receipt.slide_id]
        report = self._report
        _add(report.stage_seconds, receipt.seconds)
        if receipt.failure is not None:
            self._failed(result, receipt.failure)
        elif receipt.already_stored:
            result.blocks_before += 1
        else:
            result.blocks_done += 1
            report.tiles_done += receipt.n_tiles
            report.stage_bytes.update(receipt.nbytes)
            report.stain_methods.update(receipt.stain_methods)
            report.decoders.update(receipt.decoders)
            report.halvings += receipt.halvings
        self._observer.block(receipt)
        self._open_blocks[receipt.slide_id] -= 1
        if self._open_blocks[receipt.slide_id] == 0:
            self._close(receipt.slide_id)

    def _failed(self, result: SlideResult, failure: Failure) -> None:
        result.failures.append(failure)
        if failure.fatal and self._report.stopped is None:
            self._report.stopped = failure

    def _close(self, slide_id: str) -> None:
        self._open_blocks.pop(slide_id, None)
        result = self._results.pop(slide_id)
        result.finished = True
        self._observer.slide(result)


def _failure_of(
    error: Exception, lost: LostTask | None, slide_id: str, block: int | None
) -> Failure:
    if lost is not None:
        return Failure(slide_id, lost.reason, lost.message, block, fatal=lost.fatal)
    return Failure(
        slide_id,
        "internal",
        f"Unexpected {type(error).__name__}: {error}; please report it with the run's log.",
        block,
        traceback="".join(traceback.format_exception(error)),
    )


def _add(total: dict[str, float], more: Mapping[str, float]) -> None:
    for name, seconds in more.items():
        total[name] = total.get(name, 0.0) + seconds
