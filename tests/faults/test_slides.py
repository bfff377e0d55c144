"""Slides that are no slides, or not any more: each is set aside with a reason, and all others are done."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dataflow import worker_cache
from dataflow.discover import discover_slides
from dataflow.executors import SerialExecutor
from dataflow.pyramid_tiff import write_pyramid
from dataflow.slide import open_slide
from dataflow.stain import StainSpec
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver
from dataflow.stream_spec import EncodeSpec, IndexSpec, StreamSpec
from dataflow.tissue import TissueSpec
from store_schema.errors import InputError, ReadFailedError, UnreadableSlideError
from store_schema.specs import GridSpec
from store_schema.store import create_store, open_store
from store_schema.validate import validate

TILE_PX, SIDE_PX = 128, 1024
HANG_S = 60.0
RUN_S = 300.0  # of a whole command with all that it starts: some 20 s on a machine of its own
MOST_BYTES = 1_500_000_000  # of the largest process, with torch in it
MAY_READ_ALL = os.geteuid() == 0


def tiff_header(width: int, height: int, *, tiles: int | None) -> bytes:
    """Return a TIFF of nothing but a header: JPEG tiles that lie nowhere, or (None) one strip."""
    short, long = 3, 4
    fields = [(256, long, [width]), (257, long, [height]), (258, short, [8, 8, 8])]
    fields += [(259, short, [7]), (262, short, [6]), (277, short, [3]), (284, short, [1])]
    if tiles is None:
        fields += [(273, long, [400]), (278, long, [height]), (279, long, [100])]
    else:
        fields += [(322, short, [256]), (323, short, [256])]
        fields += [(324, long, [0] * tiles), (325, long, [0] * tiles)]
    entries, beyond = b"", b""
    for tag, kind, values in sorted(fields):
        data = struct.pack(f"<{len(values)}{'H' if kind == short else 'I'}", *values)
        if len(data) > 4:
            place = 8 + 2 + 12 * len(fields) + 4 + len(beyond)
            beyond += data + b"\0" * (len(data) % 2)
            data = struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", 8, len(fields))
    return head + entries + bytes(4) + beyond + bytes(1000)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def in_the_middle(data: bytes, spoil: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + spoil + data[at + len(spoil) :]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a slide of one level with structure all over."""
    path = tmp_path_factory.mktemp("sound") / "sound.tif"
    coarse = np.random.default_rng(0).random((SIDE_PX // 4, SIDE_PX // 4))
    structure = np.kron(coarse, np.ones((4, 4)))[..., None]
    image = (1 - structure) * [120, 60, 150] + structure * [225, 150, 190]
    write_pyramid(path, image.astype(np.uint8), mpp=0.5, downsamples=(1,))
    return path


@pytest.fixture(scope="module")
def hospital(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return a folder with two good slides and everything that goes wrong, and slide id → reason for what does."""
    folder = tmp_path_factory.mktemp("hospital")
    data = sound.read_bytes()
    (folder / "good-1.tif").write_bytes(data)
    (folder / "good-2.tif").write_bytes(data + b"\0")  # another content, the same pixels
    spoiled = {
        "cut-01": data[: len(data) // 100],
        "cut-60": data[: len(data) * 60 // 100],
        "cut-99": data[: len(data) * 99 // 100],
        "zeroed-header": bytes(4096) + data[4096:],
        "mid-tile": in_the_middle(data, bytes(40_000)),
        "garbage-tiles": in_the_middle(data, os.urandom(40_000)),
        "text": b"not a slide at all\n" * 1000,
        "empty": b"",
        "huge-tiles": tiff_header(2**31 - 1, 2**31 - 1, tiles=1),
        "huge-strip": tiff_header(2**31 - 1, 2**31 - 1, tiles=None),
        # its index is all there, and no tile: nothing would be read, for hours
        "huge-nowhere": tiff_header(2**17, 2**17, tiles=2**18),
    }
    for name, content in spoiled.items():
        (folder / f"{name}.svs").write_bytes(content)
    os.mkfifo(folder / "fifo.tif")
    (folder / "loop.tif").symlink_to("loop.tif")
    (folder / "device.tif").symlink_to("/dev/zero")
    (folder / "dangling.tif").symlink_to("nowhere.tif")
    bad = dict.fromkeys([*spoiled, "fifo", "loop", "device", "dangling"], "unreadable")
    bad |= {"mid-tile": "read-failed", "garbage-tiles": "read-failed"}
    if not MAY_READ_ALL:
        (folder / "forbidden.tif").write_bytes(data)
        (folder / "forbidden.tif").chmod(0)
        bad["forbidden"] = "unreadable"
    return folder, bad


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    """Return arguments that are no slides, which a folder is not searched for, and id → reason."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "huge.png").write_bytes(png_header(40_000, 25_000))
    (folder / "png-as-svs.svs").write_bytes(png_header(40_000, 25_000))
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    names = ["huge.png", "png-as-svs.svs", "cut.jpg", "missing.svs"]
    bad = dict.fromkeys(["huge", "png-as-svs", "cut", "missing"], "unreadable")
    return [str(folder / name) for name in names], bad


def test_all_of_them_in_one_run(
    hospital: tuple[Path, dict[str, str]],
    beside: tuple[list[str], dict[str, str]],
    fault_run: ModuleType,
    tmp_path: Path,
    fault_counts: Callable[..., None],
) -> None:
    bad = hospital[1] | beside[1]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = discover_slides([str(hospital[0]), *beside[0]], mpp=0.5)
    assert not found.problems
    assert {source.slide_id for source in found.sources} == {*bad, "good-1", "good-2"}
    tissue = TissueSpec()
    grid = GridSpec(TILE_PX, 0.5, TILE_PX, min_tissue=0.05, tissue=tissue.to_json())
    encode = EncodeSpec("mean", fault_run.FaultModelFactory(), StainSpec(method="none"))
    spec = StreamSpec(
        str(tmp_path / "s.zarr"), grid.name, IndexSpec(grid, tissue, block_tiles=32), encode
    )
    create_store(spec.store_url)

    report = run_stream(SerialExecutor(), spec, found.sources, StreamObserver())

    reasons: dict[str, set[str]] = {}
    for failure in report.failures:
        reasons.setdefault(failure.slide_id, set()).add(failure.reason)
        assert failure.traceback is None
        assert "\n" not in failure.message
    detected = sum(reasons.get(slide_id) == {reason} for slide_id, reason in bad.items())
    fault_counts("slides of no use, one process", tried=len(bad), detected=detected)
    assert reasons == {slide_id: {reason} for slide_id, reason in bad.items()}
    store = open_store(spec.store_url)
    pixels = [store[name].tiles(grid.name)["features"].values for name in ("good-1", "good-2")]
    assert len(pixels[0]) == (SIDE_PX // TILE_PX) ** 2
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert {v.path.partition("/")[0] for v in validate(store)} <= set(bad)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MOST_BYTES / 2


# runs a command and says, last, what the largest of its processes took: the test's own children are others' too
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_on_all_of_them(
    hospital: tuple[Path, dict[str, str]],
    beside: tuple[list[str], dict[str, str]],
    tmp_path: Path,
    fault_counts: Callable[..., None],
) -> None:
    bad = hospital[1] | beside[1]
    command = [sys.executable, "-c", MEASURED, sys.executable, "-m", "jobs.cli", "run"]
    command += [str(hospital[0]), *beside[0]]
    command += ["--store", str(tmp_path / "s.zarr"), "--run-dir", str(tmp_path / "run"), "--json"]
    command += ["--encoder", "timm:test_resnet", "--random-weights", "--resize", "none"]
    command += ["--tile-px", "64", "--mpp", "1", "--slide-mpp", "0.5", "--workers", "1"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)

    assert done.returncode == 1, done.stderr[-2000:]
    said = json.loads(done.stdout)
    reasons = {failure["slide_id"]: failure["reason"] for failure in said["failures"]}
    detected = sum(reasons.get(slide_id) == reason for slide_id, reason in bad.items())
    fault_counts("slides of no use, the command", tried=len(bad), detected=detected)
    assert reasons == bad
    assert said["slides"]["complete"] == 2
    assert "Traceback" not in done.stderr
    assert int(done.stderr.splitlines()[-1]) * 1024 < MOST_BYTES


def test_bad_tiles_do_not_poison_the_handle_of_a_worker(
    hospital: tuple[Path, dict[str, str]], sound: Path, fault_counts: Callable[..., None]
) -> None:
    """Two threads, each with good and bad tiles in turn, on the one handle that their worker keeps."""
    corners = [(x, y) for y in range(0, SIDE_PX, TILE_PX) for x in range(0, SIDE_PX, TILE_PX)]
    truth = open_slide(sound, 0.5)
    failed: list[int] = []
    wrong: list[tuple[int, int]] = []

    def look(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(corners) * 4) % len(corners)
        for x, y in (corners[i] for i in order):
            reader = worker_cache.slide_reader(str(hospital[0] / "garbage-tiles.svs"), 0.5, "same")
            try:
                pixels = reader.read_level(0, x, y, TILE_PX, TILE_PX)
            except ReadFailedError:
                failed.append(y)
                continue
            if not np.array_equal(pixels, truth.read_level(0, x, y, TILE_PX, TILE_PX)):
                wrong.append((x, y))

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
        assert not thread.is_alive()
    tried = 8 * len(corners)
    fault_counts(
        "reads of a slide with bad tiles",
        tried=tried,
        detected=len(failed),
        recovered=tried - len(failed),
    )
    assert not wrong
    assert 0 < len(failed) < tried / 2


def test_a_folder_without_slides_and_a_pipe_by_name(tmp_path: Path) -> None:
    (tmp_path / "slides.svs").mkdir()
    with pytest.raises(InputError, match="no slide in"):
        discover_slides([str(tmp_path / "slides.svs")])
    for given in ("/dev/zero", "/dev/stdin"):
        (source,) = discover_slides([given]).sources
        with pytest.raises(UnreadableSlideError, match="not a regular file"):
            open_slide(source.path)
