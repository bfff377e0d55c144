"""Slides without tissue in every command that follows: the sensible thing is done, or one sentence says why not."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from PIL import Image

import jobs.mil.cv
import jobs.pbip.segment_stream
import jobs.streaming
from dataflow.executors import SerialExecutor
from dataflow.pyramid_tiff import write_pyramid
from jobs.cli import main
from store_schema.store import open_store

SIDE_PX, TILE_PX = 256, 64
ENCODER = "efficientnet-lite0"
TISSUE = ("a", "b", "c", "d", "e", "f")


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs ``slidestream`` with arguments, in this process and without a cluster."""

    @contextlib.contextmanager
    def no_cluster(*_: object) -> Iterator[None]:
        yield None

    @contextlib.contextmanager
    def own_cluster(*_: object) -> Iterator[Client]:
        with Client(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None
        ) as client:
            yield client

    for module in (jobs.streaming, jobs.pbip.segment_stream):
        monkeypatch.setattr(module, "connect", no_cluster)
        monkeypatch.setattr(module, "dashboard_link", lambda _: "none")
    monkeypatch.setattr(jobs.streaming, "DaskExecutor", lambda _: SerialExecutor())
    monkeypatch.setattr(jobs.mil.cv, "connect", own_cluster)

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slidestream", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, *capsys.readouterr()

    return run


@dataclass(frozen=True)
class Cohort:
    """Slides, their truth and labels in one folder; those called ``empty…`` are white."""

    folder: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, names: tuple[str, ...]) -> Cohort:
        (folder / "slides").mkdir(parents=True)
        (folder / "masks").mkdir()
        for number, name in enumerate(names):
            coarse = np.random.default_rng(number).random((SIDE_PX // 4, SIDE_PX // 4))
            structure = np.kron(coarse, np.ones((4, 4)))[..., None]
            image = (1 - structure) * [120, 60, 150] + structure * [225, 150, 190]
            mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
            mask[:, : SIDE_PX // 2] = 255
            if name.startswith("empty"):
                image[:], mask[:] = 244, 0
                image[0, 0] = number  # another content than the other white ones
            pixels = image.astype(np.uint8)
            write_pyramid(folder / "slides" / f"{name}.tif", pixels, 0.5, downsamples=(1,))
            Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
        kinds = itertools.cycle(["normal", "tumor"])
        lines = ["slide_id,label", *(f"{n},{k}" for n, k in zip(names, kinds, strict=False))]
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        return cls(folder, names)

    def split(self, train: str, val: str, test: str) -> None:
        columns = (part.split() for part in (train, val, test))
        rows = [",".join(row) for row in itertools.zip_longest(*columns, fillvalue="")]
        (self.folder / "splits.csv").write_text("\n".join(["train,val,test", *rows]) + "\n")

    def __call__(self, command: str) -> list[object]:
        """Return a command's words: ``@x`` is a path in the folder, and the store is given wherever one is taken."""
        words: list[object] = []
        for word in command.split():
            before, at, path = word.partition("@")
            words.append(f"{before}{self.folder / path}" if at else word)
        return words if "report" in words else [*words, "--store", self.folder / "s.zarr"]


def check(call: Call, cohort: Cohort, steps: list[tuple[str, int, str]]) -> None:
    """Run commands one after the other; list all that don't end as they should."""
    wrong = []
    for command, code, phrase in steps:
        found, out, err = call(*cohort(command))
        said = " ".join((out + err).split())
        if found != code or "Traceback" in err or phrase not in said:
            wrong.append((command, found, said[-600:]))
        if code and len([line for line in err.splitlines() if line.startswith("Error")]) != 1:
            wrong.append((command, found, err))
    assert not wrong


INDEX = f"--tile-px {TILE_PX} --mpp 0.5 --block-tiles 8"
NETWORK = "--epochs 1 --device cpu"
TRAIN = f"--labels @labels.csv --splits @splits.csv {NETWORK}"
FEATURES = f"--features {ENCODER}"
PBIP_TRAIN = f"{TRAIN} --backbone tf_efficientnet_lite0 --backbone-weights none --batch-size 2 --validation-interval 1"

MAKE = [
    (f"index @slides {INDEX}", 0, "empty: no tissue: the grid is empty"),
    (f"run @slides {INDEX} --encoder {ENCODER} --resize none --stain macenko", 0, ""),
    (f"encode --encoder {ENCODER} --resize none --features-name again", 0, ""),
    (f"select top-k {FEATURES} --name top --k 5", 0, ""),
]
# of a store in which one slide of several has no tissue
AMONG_OTHERS = [
    *MAKE,
    (f"mil train {FEATURES} {TRAIN} --run-dir @mil", 0, "left out: empty"),
    ("mil report @mil --resamples 10", 0, "report.html"),
    ("mil score --run @mil --name mil --device cpu", 0, "have no tiles: empty"),
    (f"select top-k {FEATURES} --name att --k 5 --rank attention --run @mil", 0, ""),
    (
        f"vae train --labels @labels.csv --allow-other-grid {NETWORK} --run-dir @vae --latent-channels 4 --stain none",
        0,
        "slides without tiles were left out (empty)",
    ),
    ("vae score --run @vae --name vae --device cpu", 0, "7 of 7 complete"),
    (
        f"pbip prototypes --labels @labels.csv --splits @splits.csv --encoder {ENCODER} --k 1 --device cpu",
        0,
        "",
    ),
    (
        f"pbip train {PBIP_TRAIN} --run-dir @pbip --allow-other-grid --allow-other-stain",
        0,
        "2 slides",
    ),
]
JUDGE = [
    (
        "calibrate --score vae/l1 --threshold 1 --name cal2 --run-dir @cal2",
        0,
        "no tile has a score",
    ),
    ("stitch --score vae/l1 --name st", 0, "0 failed"),
    ("evaluate --score vae/l1 --truth @masks --out @ev --resamples 10", 0, "empty"),
    ("evaluate --score vae/l1 --raster st --slides empty --truth @masks --out @ev2", 0, "empty"),
    ("evaluate --score vae/l1 --slides empty --truth @masks --out @ev3", 0, "empty 0 0"),
    ("heatmap --score vae/l1 --out @heat --slides empty --percentile", 0, "1 of 1 heatmaps"),
    ("heatmap --raster st --out @heat2 --slides empty --mask cal2", 0, "1 of 1 heatmaps"),
    ("export geojson --score vae/l1 --out @gj", 0, "empty.geojson (0 tiles)"),
    ("export geojson --mask cal2 --out @gj2", 0, "empty.geojson (0 regions)"),
    ("export ome-tiff --raster st --out @ot", 0, "slides exported"),
    ("export ome-tiff --score vae/l1 --out @ot2", 0, "slides exported"),
    ("export csv --score vae --out @x.csv", 0, "x.csv (0 tiles)"),
    (f"export h5 {FEATURES} --out @h5", 0, "empty.h5 (0 tiles)"),
    ("store show", 0, "complete"),
    ("store validate", 0, "is valid"),
    ("store finalize", 0, "consolidated"),
    ("store validate", 0, "is valid"),
    ("store gc", 0, "0 leftovers"),
]
SEGMENT = "pbip segment --device cpu --allow-other-grid --map-px 16"


@pytest.mark.timeout(900)
def test_one_of_many_and_all_of_them(
    call: Call, tmp_path: Path, request: pytest.FixtureRequest, fault_counts: Callable[..., None]
) -> None:
    slow = request.config.getoption("--slow")
    cohort = Cohort.of(tmp_path / "among", (*TISSUE, "empty"))
    cohort.split("a b empty", "c d", "e f")
    steps = [
        *AMONG_OTHERS,
        (f"{SEGMENT} --run @pbip --name seg --out @seg", 0, "7 slides segmented"),
        ("pbip evaluate --name seg --truth tumor=@masks --split all --out @pe", 0, "empty 0 0"),
        ("pbip uncertain --name seg --out @unc", 0, "of 6 slides of 7"),
        (
            "calibrate --score vae/l1 --splits @splits.csv --truth @masks --name cal --run-dir @cal",
            0,
            "7 slides written",
        ),
        *JUDGE,
    ]
    if slow:
        cv = f"mil cv {FEATURES} --labels @labels.csv --folds 3 {NETWORK} --run-dir @cv"
        of_top = f"mil train {FEATURES} {TRAIN} --selection top --run-dir @mil2"
        steps += [(cv, 0, "left out: empty"), (of_top, 0, "left out: empty")]
    check(call, cohort, steps)
    scores = open_store(cohort.folder / "s.zarr")["empty"].tiles(scores="vae", features=ENCODER)
    assert scores.sizes["tile"] == 0

    nothing = Cohort.of(tmp_path / "nothing", ("empty1", "empty2", "empty3", "empty"))
    nothing.split("empty1 empty2", "empty3", "empty")
    there = "../among/"
    none_has_tiles = "has a tile: index them with less --min-tissue"
    steps_of_nothing = [
        *MAKE,
        (f"mil train {FEATURES} {TRAIN} --run-dir @mil", 1, none_has_tiles),
        (f"mil cv {FEATURES} --labels @labels.csv --folds 2 --run-dir @cv", 1, none_has_tiles),
        (f"mil score --run @{there}mil --name mil --device cpu", 1, none_has_tiles),
        (f"select top-k {FEATURES} --name att --rank attention --run @{there}mil", 0, "0 of 0"),
        (
            f"vae train --labels @labels.csv --allow-other-grid {NETWORK} --run-dir @vae",
            1,
            "has tiles to learn from",
        ),
        (f"vae score --run @{there}vae --name vae --device cpu", 0, "4 of 4 complete"),
        (
            f"pbip prototypes --labels @labels.csv --encoder {ENCODER} --k 1 --device cpu",
            1,
            "has no tiles",
        ),
        (f"pbip train {PBIP_TRAIN} --run-dir @pbip", 1, "has no bank of prototypes"),
        (f"{SEGMENT} --run @{there}pbip --name seg --out @seg", 0, "4 slides segmented"),
        ("pbip evaluate --name seg --truth tumor=@masks --split all --out @pe", 0, "empty 0 0"),
        ("pbip uncertain --name seg --out @unc", 1, "the slides have no tiles"),
        (
            "calibrate --score vae/l1 --splits @splits.csv --truth @masks --name cal --run-dir @cal",
            1,
            "take it out of the splits",
        ),
        *(JUDGE if slow else [("store validate", 0, "is valid")]),
    ]
    check(call, nothing, steps_of_nothing)
    n = len(steps) + len(steps_of_nothing)
    fault_counts("commands on slides without tissue", tried=n, detected=n, recovered=n)
