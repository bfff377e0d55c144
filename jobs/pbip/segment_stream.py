"""The streaming half of a segmentation, with the time that each slide took."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from dataflow.cluster import connect, dashboard_link
from dataflow.receipts import BlockReceipt, SlidePlan
from dataflow.stream_report import SlideResult, StreamObserver
from jobs.prepare import prepare
from jobs.progress import say
from jobs.run_config import RunConfig
from jobs.streaming import execute, shown

Seconds: TypeAlias = defaultdict[str, defaultdict[str, float]]
"""Slide id → stage → seconds."""


class SlideClock(StreamObserver):
    """Adds up seconds by slide and stage, and passes on what it is told.

    Parameters
    ----------
    seconds
        Slide id → stage → seconds, summed over threads; is filled.
    other
        Who else is told.
    """

    def __init__(self, seconds: Seconds, other: StreamObserver) -> None:
        self._seconds = seconds
        self._other = other

    def planned(self, plan: SlidePlan) -> None:
        """Count the time of finding tissue and laying tiles."""
        self._seconds[plan.slide_id]["index"] += plan.seconds
        self._other.planned(plan)

    def block(self, receipt: BlockReceipt) -> None:
        """Count the time of a block."""
        for stage, seconds in receipt.seconds.items():
            self._seconds[receipt.slide_id][stage] += seconds
        self._other.block(receipt)

    def slide(self, result: SlideResult) -> None:
        """Pass on."""
        self._other.slide(result)

    def cancelled(self) -> bool:
        """Ask the other."""
        return self._other.cancelled()


def stream_slides(
    config: RunConfig, *, quiet: bool
) -> tuple[dict[str, Any], Mapping[str, Mapping[str, float]]]:
    """Run the stream as every command does.

    Returns
    -------
    metrics
        Of the run, see :func:`jobs.summary.run_metrics`.
    seconds
        Slide id → stage → seconds, summed over threads, of what was done now.
    """
    seconds: Seconds = defaultdict(lambda: defaultdict(float))

    @contextmanager
    def clocked(n_slides: int, logger: logging.Logger) -> Iterator[StreamObserver]:
        with shown(n_slides, logger, quiet=quiet) as other:
            yield SlideClock(seconds, other)

    prepared = prepare(config)
    with connect(config.cluster.scheduler, config.cluster.spec()) as client:
        if not quiet:
            say(f"dashboard {dashboard_link(client)}")
        metrics = execute(config, prepared, client, clocked)
    return metrics, seconds
