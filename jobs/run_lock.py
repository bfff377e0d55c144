"""One process at a time in a run's directory."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from store_schema.errors import BusyError, StorageError

LOCK: Final = ".lock"
# workers of a command that was killed end within moments
_GRACE_S: Final = 5.0
_STEP_S: Final = 0.2


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keep others out of a directory; two trainings in one would each judge the other's weights.

    The lock is the operating system's and ends with the process, however that ends.

    Parameters
    ----------
    directory
        Is made if need be.

    Raises
    ------
    BusyError
        Another process is in it.
    StorageError
        The directory can't be made or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StorageError(
            f"The run directory {directory} can't be written ({error.strerror}); choose another --run-dir."
        ) from error
    try:
        _take(file, directory)
        yield
    finally:
        os.close(file)


def _take(file: int, directory: Path) -> None:
    deadline = time.monotonic() + _GRACE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise BusyError(
                    f"Another process works in the run directory {directory}: wait until it is done and run the same "
                    "command again, or choose another --run-dir."
                ) from error
            time.sleep(_STEP_S)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
                raise StorageError(
                    f"The run directory {directory} can't be locked ({error.strerror}); choose another --run-dir."
                ) from error
            return  # a file system without locks: nothing better is to be had there
        else:
            return
