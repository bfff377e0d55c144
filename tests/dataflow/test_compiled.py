from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numba
import pytest
from numba.core import caching

SOURCE = """
from dataflow.compiled import compiled

@compiled("int64(int64)")
def plus(number):
    return number + 1
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that compiled code is kept in."""
    folder = tmp_path / "kept"
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
    return folder


def load(path: Path, source: str = SOURCE) -> ModuleType:
    path.write_text(source)
    os.utime(path, (1e9, 1e9))  # as a package manager may set it
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def test_is_compiled_and_kept(tmp_path: Path, kept: Path) -> None:
    assert load(tmp_path / "m.py").plus(1) == 2
    assert len(list(kept.rglob("*.nbc"))) == 1
    times = {path: path.stat().st_mtime_ns for path in kept.rglob("*.nb?")}
    again = load(tmp_path / "m.py").plus
    assert again(1) == 2
    assert sum(again.stats.cache_hits.values()) == 1
    assert times == {path: path.stat().st_mtime_ns for path in kept.rglob("*.nb?")}


def test_another_version_of_the_same_time_and_size_is_not_taken_for_it(
    tmp_path: Path, kept: Path
) -> None:
    assert load(tmp_path / "m.py").plus(1) == 2
    assert load(tmp_path / "m.py", SOURCE.replace("+ 1", "+ 7")).plus(1) == 8


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only installation and home: numba finds no place, and says so with a RuntimeError."""
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    assert load(tmp_path / "m.py").plus(1) == 2


def test_a_full_disk_keeps_nothing(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    assert load(tmp_path / "m.py").plus(1) == 2
    assert not list(kept.rglob("*.nbc"))


@pytest.mark.parametrize("ending", ["nbc", "nbi"])
def test_files_that_were_cut_short_are_no_harm(tmp_path: Path, kept: Path, ending: str) -> None:
    load(tmp_path / "m.py")
    for path in kept.rglob(f"*.{ending}"):
        for length in (path.stat().st_size // 2, 0):
            os.truncate(path, length)
            assert load(tmp_path / "m.py").plus(1) == 2


def test_other_mistakes_are_told(tmp_path: Path, kept: Path) -> None:
    with pytest.raises(numba.core.errors.TypingError):
        load(tmp_path / "m.py", SOURCE.replace("number + 1", "number.colour"))
