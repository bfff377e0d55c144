"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store_schema.errors import InputError


@contextmanager
def whole_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a path to write to; what was written there gets its name at the end, or is removed after an error.

    Parameters
    ----------
    path
        Where the file shall be; folders are made as needed.
    overwrite
        Replace one that is there already.

    Raises
    ------
    InputError
        The file is there already, or can't be written.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already: give --overwrite, or another --out")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)
