"""Disks that are full or can't be written: one sentence, what is stored stays readable, and the run goes on later."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dataflow.executors import SerialExecutor
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver, StreamReport
from store_schema.errors import StorageError
from store_schema.leftovers import remove_leftovers
from store_schema.objects import LocalObjects
from store_schema.store import create_store, open_store
from store_schema.validate import validate

N_SLIDES = 2


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mount something at a folder, or skip where this user may not."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def run(fault_run: ModuleType, slides: Path, store: str) -> StreamReport:
    spec = fault_run.stream_spec(store, fault_run.FaultModelFactory())
    return run_stream(SerialExecutor(), spec, fault_run.sources(slides), StreamObserver())


def check_readable(fault_run: ModuleType, store: str) -> int:
    """Read every block that is there; return how many there are."""
    assert {found.code for found in validate(store)} <= {
        "missing-block", "missing-array", "missing-metadata", "incomplete",
    }  # fmt: skip
    found = 0
    view = open_store(store)
    for slide_id in view:
        for grid in view[slide_id].grids:
            for name in view[slide_id].runs(grid, "features"):
                group = view[slide_id].block_group(grid, "features", name)
                missing = group.missing_blocks()
                for block in set(range(group.n_blocks)) - set(missing):
                    assert np.isfinite(group.read_block(block)["features"]).all()
                    found += 1
    return found


def test_a_small_disk(
    fault_run: ModuleType,
    tmp_path: Path,
    store_digests: Callable[[Path], dict[str, str]],
    fault_counts: Callable[..., None],
) -> None:
    fault_run.make_slides(tmp_path / "slides", N_SLIDES)
    whole = tmp_path / "whole.zarr"
    create_store(whole)
    assert run(fault_run, tmp_path / "slides", str(whole)).failures == []
    blocks = 0
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "none") as disk:
        store, ballast = disk / "store.zarr", disk / "ballast"
        create_store(store)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        needed = sum(path.stat().st_blocks * 512 for path in whole.rglob("*") if path.is_file())
        rooms = [0, needed // 4, needed // 2, 3 * needed // 4]
        for room in rooms:  # what is left besides the ballast, for the store to fill
            ballast.unlink(missing_ok=True)
            with ballast.open("wb") as file:
                file.write(b"x" * (free - room))
            report = run(fault_run, tmp_path / "slides", str(store))
            assert report.stopped is not None
            assert report.stopped.reason == "storage"
            assert "No space left on device; free some space" in report.stopped.message
            now = check_readable(fault_run, str(store))
            assert now >= blocks, "blocks were lost"
            blocks = now
        assert 0 < blocks < N_SLIDES * fault_run.BLOCKS_PER_SLIDE
        ballast.unlink()
        report = run(fault_run, tmp_path / "slides", str(store))
        assert report.failures == []
        assert sum(slide.blocks_before for slide in report.slides) == blocks
        remove_leftovers(open_store(store, mode="r+"), min_age_s=0)
        assert store_digests(store) == store_digests(whole)
    fault_counts("full disk", tried=len(rooms), detected=len(rooms), recovered=len(rooms))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_writes_that_fail_from_the_nth_on(
    code: int, fault_run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    fault_counts: Callable[..., None],
) -> None:  # fmt: skip
    """The same without mounting anything, also for users who may not."""
    fault_run.make_slides(tmp_path / "slides", 1)
    fsync, store = os.fsync, str(tmp_path / "store.zarr")
    create_store(store)
    points = (0, 3, 12, 17)
    for n in points:
        left = [n]

        def failing(descriptor: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(code, os.strerror(code))
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            report = run(fault_run, tmp_path / "slides", store)
        assert report.stopped is not None
        assert report.stopped.reason == "storage"
        assert os.strerror(code) in report.stopped.message
        check_readable(fault_run, store)
    assert run(fault_run, tmp_path / "slides", store).failures == []
    assert validate(store) == []
    name = errno.errorcode[code]
    fault_counts(
        f"writes fail: {name}", tried=len(points), detected=len(points), recovered=len(points)
    )


def test_full_disk_by_the_command(
    fault_run: ModuleType, tmp_path: Path, slidestream: Callable[..., tuple[int, str, str]]
) -> None:
    fault_run.make_slides(tmp_path / "slides", 1)
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64k", "none") as disk:
        (disk / "ballast").write_bytes(b"x" * 4096 * 16)
        code, _, err = slidestream(
            "index", tmp_path / "slides", "--store", disk / "store.zarr", "--tile-px", 32,
            "--run-dir", tmp_path / "run", "--dashboard-port", 0, "--workers", 1, "--threads", 1,
        )  # fmt: skip
    assert code == 1
    assert "No space left on device; free some space" in err
    assert "Traceback" not in err


def test_a_read_only_place(
    fault_run: ModuleType, tmp_path: Path, fault_counts: Callable[..., None]
) -> None:
    fault_run.make_slides(tmp_path / "slides", 1)
    place = tmp_path / "place"
    place.mkdir()
    store = place / "store.zarr"
    create_store(store)
    blocks = fault_run.BLOCKS_PER_SLIDE
    assert run(fault_run, tmp_path / "slides", str(store)).failures == []
    lost = next(store.rglob("features/c/0/0"))
    lost.unlink()
    with (
        mounted(place, "--bind", str(place)) as folder,
        remounted_read_only(folder),
    ):
        report = run(fault_run, tmp_path / "slides", str(store))
        assert report.stopped is not None
        assert report.stopped.reason == "storage"
        assert "Read-only file system; check that this user may" in report.stopped.message
        assert check_readable(fault_run, str(store)) == blocks - 1
        with pytest.raises(StorageError, match="Read-only file system"):
            create_store(place / "another.zarr")
    assert run(fault_run, tmp_path / "slides", str(store)).tiles_done == fault_run.BLOCK_TILES
    fault_counts("read-only store", tried=2, detected=2, recovered=1)


@contextmanager
def remounted_read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
    yield


def test_a_write_is_a_temporary_file_synced_and_then_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, link, replace = os.fsync, os.link, Path.replace

    def seen_fsync(descriptor: int) -> None:
        temporary = Path(f"/proc/self/fd/{descriptor}").resolve()
        assert temporary.name.endswith(".partial")
        assert temporary.read_bytes() == b"data", "synced before all was written"
        calls.append(f"fsync {temporary.name.split('.')[0]}")
        fsync(descriptor)

    def seen_replace(path: Path, target: Path) -> Path:
        calls.append(f"rename to {target.name}")
        return replace(path, target)

    def seen_link(path: Path, target: Path) -> None:
        calls.append(f"link to {target.name}")
        link(path, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    monkeypatch.setattr(os, "link", seen_link)
    objects = LocalObjects(tmp_path)
    objects.put("a/k", b"data")
    assert objects.put_new("a/n", b"data")
    assert not objects.put_new("a/n", b"other")
    assert calls == ["fsync k", "rename to k", "fsync n", "link to n"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["k", "n"]
