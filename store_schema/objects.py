"""The bytes below the store: a local folder or any fsspec URL, as objects with a key.

Writing goes through here and nowhere else, so that every object appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import fsspec
import numpy as np
import numpy.typing as npt

from store_schema.errors import StorageError

# suffix of temporary files and folders: what a kill leaves, garbage collection finds
PARTIAL = ".partial"
METADATA = "zarr.json"

REMOTE_READ_THREADS = 16
_SERVICE_ERRORS = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)

Bytes = npt.NDArray[np.uint8]


class Objects(Protocol):
    """Keyed objects below one root. Implementations are thread-safe and picklable."""

    @property
    def url(self) -> str:
        """The path or URL of the root, absolute."""
        ...

    @property
    def read_threads(self) -> int:
        """How many reads at a time are worth it."""
        ...

    def get(self, key: str) -> bytes | None:
        """Return the object, or None if there is none."""
        ...

    def read_into(self, key: str, parts: Sequence[Bytes]) -> int | None:
        """Fill ``parts`` from the object's start; return its size, None if there is none."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write an object, durably, replacing what was there in one step."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object unless it is there already; tell whether it was written."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return key → bytes of all objects below ``prefix``."""
        ...

    def children(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders right below ``prefix``."""
        ...

    def age_s(self, key: str) -> float:
        """Return the seconds since an object was last touched; 0 where that can't be told."""
        ...

    def delete(self, key: str) -> None:
        """Delete one object if it is there."""
        ...

    def delete_group(self, prefix: str) -> None:
        """Delete all below ``prefix``; half deleted, it is never mistaken for another group."""
        ...

    def remove_empty_folders(self, min_age_s: float) -> None:
        """Remove folders that hold nothing and haven't changed for a while."""
        ...


def open_objects(url: str | os.PathLike[str]) -> Objects:
    """Return the objects below a local path or an fsspec URL; nothing is created.

    Parameters
    ----------
    url
        A path, ``file://…``, ``memory://…`` or any other fsspec URL.

    Returns
    -------
    Objects
        Local paths are made absolute, so that a worker with another working directory finds the
        same store.

    Raises
    ------
    StorageError
        Nothing installed here knows URLs of that kind.
    """
    text = os.fspath(url)
    if "://" not in text and "::" not in text:
        return LocalObjects(Path(text).expanduser().absolute())
    if text.startswith("file://"):
        return LocalObjects(Path(text.removeprefix("file://")).absolute())
    _check_protocols(text)
    return FsspecObjects(text.rstrip("/"))


def _check_protocols(url: str) -> None:
    for part in url.split("::"):
        protocol = part.split("://")[0]
        try:
            fsspec.get_filesystem_class(protocol)
        except (ValueError, ImportError) as error:
            advice = f" ({error})" if isinstance(error, ImportError) else ""
            raise StorageError(
                f"{url}: no file system for {protocol}:// is installed{advice}; give a local path, or install what "
                "fsspec needs for such URLs"
            ) from error


@contextlib.contextmanager
def _explained(action: str, url: str) -> Iterator[None]:
    try:
        yield
    except _failures() as error:
        code = error.errno if isinstance(error, OSError) else None
        if code in (errno.ENOSPC, errno.EDQUOT):
            advice = "free some space and run the same command again, it goes on where it stopped"
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS) or isinstance(error, PermissionError):
            advice = "check that this user may do that there"
        elif isinstance(error, OSError):
            advice = "check that the place can be reached and run the same command again"
        else:
            advice = "check credentials and endpoint, and run the same command again"
        what = (error.strerror if isinstance(error, OSError) else None) or str(error).rstrip(".")
        raise StorageError(f"cannot {action} {url}: {what}; {advice}") from error


def _failures() -> tuple[type[Exception], ...]:
    """Return OSError, and what the services behind fsspec raise besides it, of those that are in use here."""
    foreign = (
        getattr(sys.modules[module], name)
        for module, name in _SERVICE_ERRORS
        if module in sys.modules
    )
    return (OSError, *foreign)


@dataclass(frozen=True)
class LocalObjects:
    """A folder: writes are a temporary file, fsync and rename.

    The folder itself is not synced: should a power cut lose the rename, the block is missing and
    done again.
    """

    root: Path

    @property
    def url(self) -> str:
        """The absolute path."""
        return str(self.root)

    @property
    def read_threads(self) -> int:
        """Copying from the page cache is the work: one thread a core."""
        return os.cpu_count() or 1

    def get(self, key: str) -> bytes | None:
        """Return the object, or None if there is none."""
        with _explained("read", f"{self.url}/{key}"):
            try:
                return (self.root / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def read_into(self, key: str, parts: Sequence[Bytes]) -> int | None:
        """Fill ``parts`` from the object's start; return its size, None if there is none."""
        with _explained("read", f"{self.url}/{key}"):
            try:
                file = (self.root / key).open("rb", buffering=0)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
            with file:
                for part in parts:
                    _fill(file, part.data)
                return os.fstat(file.fileno()).st_size

    def put(self, key: str, data: bytes) -> None:
        """Write an object, durably, replacing what was there in one step."""
        with _explained("write to", self.url), self._temporary(key, data) as path:
            path.replace(self.root / key)

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object unless it is there already; tell whether it was written."""
        if (self.root / key).exists():
            return False
        with _explained("write to", self.url), self._temporary(key, data) as path:
            try:
                os.link(path, self.root / key)  # unlike a rename, this fails where something is
            except FileExistsError:
                return False
            return True

    @contextlib.contextmanager
    def _temporary(self, key: str, data: bytes) -> Iterator[Path]:
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        path = target.with_name(f"{target.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return key → bytes of all objects below ``prefix``."""
        found = {}
        with _explained("list", f"{self.url}/{prefix}"):
            for folder, _, files in os.walk(self.root / prefix):
                for name in files:
                    path = Path(folder, name)
                    with contextlib.suppress(FileNotFoundError):  # another process's temporary file
                        found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return found

    def children(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders right below ``prefix``."""
        with _explained("list", f"{self.url}/{prefix}"):
            try:
                entries = list(os.scandir(self.root / prefix))
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(e.name for e in entries if e.is_dir() and not e.name.endswith(PARTIAL))

    def age_s(self, key: str) -> float:
        """Return the seconds since an object was last touched (ctime: a rename counts); 0 if it has gone."""
        try:
            return max(0.0, time.time() - (self.root / key).stat().st_ctime)
        except FileNotFoundError:
            return 0.0

    def delete(self, key: str) -> None:
        """Delete one object if it is there."""
        with _explained("delete in", self.url):
            (self.root / key).unlink(missing_ok=True)

    def delete_group(self, prefix: str) -> None:
        """Delete all below ``prefix``: out of sight in one step, then away."""
        path = self.root / prefix
        with _explained("delete in", self.url):
            doomed = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
            try:
                path.rename(doomed)
            except FileNotFoundError:
                return
            shutil.rmtree(doomed)

    def remove_empty_folders(self, min_age_s: float) -> None:
        """Remove folders that hold nothing and haven't changed for a while."""
        with _explained("delete in", self.url):
            for folder, _, _ in os.walk(self.root, topdown=False):
                key = Path(folder).relative_to(self.root).as_posix()
                if key != "." and self.age_s(key) >= min_age_s:
                    with contextlib.suppress(OSError):  # not empty, which is what is asked here
                        Path(folder).rmdir()


def _fill(file: BinaryIO, view: memoryview) -> None:
    while len(view):
        count = file.readinto(view)  # type: ignore[attr-defined]  # a raw file has it
        if not count:
            return  # too short: the caller sees it by the size
        view = view[count:]


@dataclass(frozen=True)
class FsspecObjects:
    """Any fsspec URL. Object stores write an object whole or not at all."""

    url: str

    @property
    def read_threads(self) -> int:
        """Waiting is the work."""
        return REMOTE_READ_THREADS

    @property
    def _fs(self) -> Any:
        return fsspec.core.url_to_fs(self.url)[
            0
        ]  # fsspec keeps one instance per process and settings

    def _path(self, key: str) -> str:
        root = str(fsspec.core.url_to_fs(self.url)[1]).rstrip("/")
        return f"{root}/{key}" if key else root

    def get(self, key: str) -> bytes | None:
        """Return the object, or None if there is none."""
        with _explained("read", f"{self.url}/{key}"):
            try:
                return bytes(self._fs.cat_file(self._path(key)))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def read_into(self, key: str, parts: Sequence[Bytes]) -> int | None:
        """Fill ``parts`` from the object's start; return its size, None if there is none."""
        data = self.get(key)
        if data is None:
            return None
        source = np.frombuffer(data, dtype=np.uint8)
        start = 0
        for part in parts:
            piece = source[start : start + part.size]
            part[: piece.size] = piece
            start += part.size
        return len(data)

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing what was there."""
        with _explained("write to", self.url):
            self._fs.pipe_file(self._path(key), data)

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object unless it is there already; as exclusive as the file system can."""
        with _explained("write to", self.url):
            try:
                self._fs.pipe_file(self._path(key), data, mode="create")
            except FileExistsError:
                return False
            return True

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return key → bytes of all objects below ``prefix``."""
        with _explained("list", f"{self.url}/{prefix}"):
            self._fs.invalidate_cache()  # other processes write here too
            found = self._fs.find(self._path(prefix), detail=True)
        root = self._path("") + "/"
        return {path.removeprefix(root): int(info["size"]) for path, info in found.items()}

    def children(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders right below ``prefix``."""
        with _explained("list", f"{self.url}/{prefix}"):
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(self._path(prefix), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        folders = (e["name"].rstrip("/") for e in entries if e["type"] == "directory")
        return sorted(path.rsplit("/", 1)[-1] for path in folders)

    def age_s(self, key: str) -> float:
        """Return 0: there are no temporary objects here, so nothing has to be told apart by age."""
        del key
        return 0.0

    def delete(self, key: str) -> None:
        """Delete one object if it is there."""
        with _explained("delete in", self.url), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def delete_group(self, prefix: str) -> None:
        """Delete all below ``prefix``: data first and the claim last.

        Should it stop halfway, what is left still says what its blocks were made with.
        """
        keys = self.sizes(prefix)
        for key in sorted(keys, key=lambda k: (k.endswith(METADATA), -k.count("/"))):
            self.delete(key)

    def remove_empty_folders(self, min_age_s: float) -> None:
        """Do nothing: object stores have no folders."""
        del min_age_s
