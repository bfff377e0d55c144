"""The command line as a user meets it, on one LocalCluster that the tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dataflow.cluster import ClusterSpec, embedded_cluster
from dataflow.pyramid_tiff import write_pyramid
from jobs.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def slidestream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """Return a function that runs ``slidestream`` with arguments, in this process."""

    def call(*args: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["slidestream", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Answer(stopped.value.code, out, err)

    return call


@pytest.fixture(scope="session")
def scheduler() -> Iterator[str]:
    """Return the address of a cluster of one worker process with two threads."""
    with embedded_cluster(ClusterSpec(n_workers=1, threads_per_worker=2, dashboard_port=0)) as it:
        yield it.scheduler_address


def stained_image(
    seed: int, side_px: int = 1200
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Draw a white slide with a purple-pink disk of structure in its middle, uint8 (y, x, rgb)."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((side_px // 12, side_px // 12))
    structure = np.kron(coarse, np.ones((12, 12)))[..., None]
    tissue = (1 - structure) * [120, 60, 150] + structure * [225, 150, 190]
    y, x = np.mgrid[:side_px, :side_px] - side_px / 2
    inside = (x**2 + y**2 < (0.4 * side_px) ** 2)[..., None]
    return np.where(inside, tissue, 244).astype(np.uint8)


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three small slides of 0.5 µm/px."""
    folder = tmp_path_factory.mktemp("slides")
    for seed, name in enumerate(["a", "b", "c"]):
        write_pyramid(folder / f"{name}.tif", stained_image(seed), mpp=0.5, downsamples=(1, 2, 4))
    return folder
