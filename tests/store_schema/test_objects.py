from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from store_schema.errors import StorageError
from store_schema.objects import LocalObjects, open_objects


def test_put_get_list_delete(url: str) -> None:
    objects = open_objects(url)
    assert objects.get("a/b") is None
    assert objects.sizes("") == {}
    assert objects.children("a") == []
    objects.put("a/b", b"one")
    objects.put("a/b", b"three")
    objects.put("a/c/d", b"")
    assert objects.get("a/b") == b"three"
    assert objects.sizes("a") == {"a/b": 5, "a/c/d": 0}
    assert objects.sizes("a/c") == {"a/c/d": 0}
    assert objects.children("a") == ["c"]
    assert objects.get("a") is None  # a folder is no object
    objects.delete("a/b")
    objects.delete("a/b")
    assert objects.sizes("") == {"a/c/d": 0}


def test_put_new_keeps_the_first(url: str) -> None:
    objects = open_objects(url)
    assert objects.put_new("a/zarr.json", b"first")
    assert not objects.put_new("a/zarr.json", b"second")
    assert objects.get("a/zarr.json") == b"first"
    assert list(objects.sizes("")) == ["a/zarr.json"]  # and no temporary file


def test_read_into_fills_parts_and_tells_the_size(url: str) -> None:
    objects = open_objects(url)
    objects.put("k", b"abcdef")
    parts = [np.zeros(2, np.uint8), np.zeros(8, np.uint8)]
    assert objects.read_into("k", parts) == 6
    assert parts[0].tobytes() + parts[1].tobytes() == b"abcdef\0\0\0\0"
    assert objects.read_into("none", parts) is None


def test_delete_group(url: str) -> None:
    objects = open_objects(url)
    for key in ("g/zarr.json", "g/a/zarr.json", "g/a/c/0", "h/zarr.json"):
        objects.put(key, b"x")
    objects.delete_group("g")
    objects.delete_group("g")
    assert objects.sizes("") == {"h/zarr.json": 1}


def test_same_memory_store_twice_and_after_pickling(url: str) -> None:
    objects = open_objects(url)
    objects.put("k", b"x")
    assert open_objects(url).get("k") == b"x"
    assert pickle.loads(pickle.dumps(objects)).get("k") == b"x"


def test_local_url_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_objects("here.zarr").url == str(tmp_path / "here.zarr")
    assert open_objects(f"file://{tmp_path}/x").url == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("code", "advice"), [(errno.ENOSPC, "free some space"), (errno.EIO, "run the same command")]
)
def test_a_failed_write_is_one_sentence_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    objects = LocalObjects(tmp_path)
    objects.put("k", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=advice):
        objects.put("k", b"new")
    assert objects.get("k") == b"old"
    assert list(objects.sizes("")) == ["k"]


def test_no_permission_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="Permission denied; check that this user may"):
        LocalObjects(tmp_path).put("a/b", b"")


@pytest.mark.parametrize("url", ["foo://bar", "simplecache::foo://bar"])
def test_a_kind_of_url_that_nothing_knows_is_said_at_once(url: str) -> None:
    with pytest.raises(StorageError, match="no file system for foo://"):
        open_objects(url)
