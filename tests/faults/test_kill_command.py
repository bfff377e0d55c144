"""kill -9 of a whole run at random moments, resumed each time: the store must equal an uninterrupted one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROUNDS = 20


def command(slides: Path, store: Path) -> list[str]:
    return [
        sys.executable, "-m", "jobs.cli", "run", str(slides), "--store", str(store),
        "--tile-px", "96", "--mpp", "0.972", "--block-tiles", "16", "--stain", "macenko",
        "--batch-size", "8", "--resize", "none", "--dashboard-port", "0",
    ]  # fmt: skip


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants, without giving any of them a chance to clean up."""
    found, queue = [pid], [pid]
    while queue:
        children = Path(f"/proc/{queue[0]}/task/{queue.pop(0)}/children")
        try:
            more = [int(child) for child in children.read_text().split()]
        except FileNotFoundError:
            more = []
        found += more
        queue += more
    for each in found:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_and_resumed_runs_end_in_the_same_store(
    test_data: Path, tmp_path: Path, store_digests: Callable[[Path], dict[str, str]]
) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    for path in sorted((test_data / "cohort" / "slides").glob("*.tif"))[::4]:
        (slides / path.name).symlink_to(path)
    whole, broken = tmp_path / "whole.zarr", tmp_path / "broken.zarr"
    start = time.monotonic()
    subprocess.run(command(slides, whole), check=True, capture_output=True)
    seconds = time.monotonic() - start

    moments = random.Random(0)
    killed_midway = 0
    for round_ in range(ROUNDS):
        process = subprocess.Popen(
            command(slides, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0.2, 1.0) * seconds)
        killed_midway += process.poll() is None
        kill_tree(process.pid)
        process.wait()
        if round_ == ROUNDS // 2:  # so that early and late moments meet partial stores alike
            subprocess.run(["rm", "-rf", str(broken)], check=True)

    done = subprocess.run(command(slides, broken), check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert killed_midway >= ROUNDS // 2, "most kills came after the end: they tested nothing"
    left = {key: value for key, value in store_digests(broken).items() if ".partial" not in key}
    assert left == store_digests(whole)
