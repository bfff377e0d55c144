"""HDF5 files on disks that may fill up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import h5py


class _Sink(FileIO):
    """A file that HDF5 writes through; after the first write that fails it only pretends to.

    HDF5 can't close a file that it can't flush: it raises while it closes, tries again when the process ends, and
    takes that down. So it is told that all went well, and who opened the sink asks it afterwards.
    """

    problem: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all, or take note that it can't be; return how much there was to write."""
        view = memoryview(data).cast("B")
        done = 0
        while self.problem is None and done < len(view):
            try:
                done += super().write(view[done:])
            except OSError as error:
                self.problem = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend, or take note that it can't be."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.problem = self.problem or error
        return size or 0


@contextmanager
def new_h5(path: Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file for writing.

    Raises
    ------
    OSError
        It can't be written to its end, e.g. since the disk is full.
    """
    with _Sink(path, "w+") as sink:
        with h5py.File(sink, "w", track_order=True) as file:
            yield file
        if sink.problem is not None:
            raise sink.problem
