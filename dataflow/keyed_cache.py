"""A small cache that threads share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class KeyedCache(Generic[T]):
    """A small least-recently-used cache whose values are made once, also when many threads ask at once.

    Parameters
    ----------
    size
        How many values are kept.
    discard
        Called with a value that falls out, e.g. to close it. Nobody may be using it any more: sizes are chosen well
        above what the tasks of a worker hold at one time.
    """

    def __init__(self, size: int, discard: Callable[[T], None] | None = None) -> None:
        self._size = size
        self._discard = discard
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of ``key``, made by ``make`` if it isn't there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:
                    return self._values[key]
            value = make()
            dropped: list[T] = []
            with self._lock:
                self._values[key] = value
                self._making.pop(key, None)
                while len(self._values) > self._size:
                    dropped.append(self._values.popitem(last=False)[1])
        if self._discard is not None:
            for old in dropped:
                self._discard(old)
        return value
