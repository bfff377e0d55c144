"""A file that several threads read at once, at any place."""

from __future__ import annotations

import os
from collections.abc import Callable


class OpenFile:
    """A file descriptor, given back with the last reference: nobody reads from one that is closed.

    Not mapped into memory: reading past the end of a file that was cut short meanwhile would kill the process.

    Parameters
    ----------
    path
        The file; it is opened read-only.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        self.size = status.st_size  # [bytes], when it was opened
        # changes with the file, its content, or its place
        self.identity = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on; fewer where the file ends. OSError as the system raises it."""
        return os.pread(self._descriptor, length, start)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # os may be gone at exit
        if self._descriptor >= 0:
            close(self._descriptor)
