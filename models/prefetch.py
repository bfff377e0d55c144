"""The next item is loaded while the present one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def prefetched(items: Iterable[A], load: Callable[[A], B]) -> Iterator[B]:
    """Yield ``load(item)`` in order, one item ahead in a thread of its own.

    Parameters
    ----------
    items
        Small: indices, names.
    load
        Reads, and does not compute with torch, whose threads and random state belong to the caller's
        thread. Called from one thread only, in order.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        ahead: Future[B] | None = None
        for item in items:
            current, ahead = ahead, thread.submit(load, item)
            if current is not None:
                yield current.result()
        if ahead is not None:
            yield ahead.result()
