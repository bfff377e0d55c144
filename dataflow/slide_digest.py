"""Fingerprint of a slide's content, quick enough for files of many gigabytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dataflow.companions import companion_files
from dataflow.dicom_series import series_uid
from store_schema.errors import UnreadableSlideError

_ENDS_BYTES = 1 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 1 << 16


def slide_digest(path: str | Path) -> str:
    """Digest what a slide holds.

    This is a sample, not a checksum of every byte: the size, the first and last MiB (TIFF keeps
    its directories at either end) and 64 evenly spaced samples of 64 KiB in between; at most 6 MiB
    are read. It tells slides, re-scans and conversions apart; an edit of a few bytes in the middle
    of a large file may go unnoticed. The name and folder of the slide don't matter.

    Of companion files (see :func:`dataflow.companions.companion_files`) names and sizes count. Of
    a DICOM series every file is sampled, so that it doesn't matter which one is given.

    Parameters
    ----------
    path
        The slide's file.

    Returns
    -------
    str
        32 hexadecimal digits of a blake2b.

    Raises
    ------
    UnreadableSlideError
        A file can't be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
        raise UnreadableSlideError(f"{path}: not a regular file; a slide must be one")
    digest = hashlib.blake2b(digest_size=16)
    try:
        companions = companion_files(path)
        if series_uid(path) is not None:
            for file in sorted([path, *companions]):
                _add_samples(digest, file)
            return digest.hexdigest()
        _add_samples(digest, path)
        for file in companions:
            digest.update(f"\0{file.name}\0{file.stat().st_size}".encode())
    except OSError as error:
        raise UnreadableSlideError(
            f"{error.filename or path}: can't be read ({error.strerror}); check the file"
        ) from error
    return digest.hexdigest()


def _add_samples(digest: hashlib.blake2b, path: Path) -> None:
    size = path.stat().st_size
    digest.update(size.to_bytes(8, "little"))
    last_sample = size - 2 * _ENDS_BYTES - _SAMPLE_BYTES  # offset behind the first MiB
    spaced = {_ENDS_BYTES + max(last_sample, 0) * i // (_SAMPLES - 1) for i in range(_SAMPLES)}
    with path.open("rb") as file:
        digest.update(file.read(_ENDS_BYTES))
        for offset in sorted(spaced):
            file.seek(offset)
            digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(_ENDS_BYTES, size - _ENDS_BYTES))
        digest.update(file.read(_ENDS_BYTES))
