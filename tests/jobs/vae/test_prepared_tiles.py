"""Tiles on disk: the same pixels as the stream's, counted, and never half of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dataflow.discover import SlideSource
from dataflow.executors import SerialExecutor
from dataflow.stain import StainSpec
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver
from dataflow.stream_spec import EncodeSpec, StreamSpec
from jobs.vae.open_origin import open_origin
from jobs.vae.prepare_tiles import prepared_tiles
from jobs.vae.prepared_tiles import PreparedTiles, TileSubset
from jobs.vae.saturation import has_colour
from jobs.vae.store_tiles import StoreTiles
from jobs.vae.tile_origin import RawTiles
from store_schema import names
from store_schema.errors import InputError, ReadFailedError
from store_schema.specs import ArraySpec
from store_schema.store import open_store

LOGGER = logging.getLogger("test")


def prepare(
    origin: Any, directory: Path, stain: StainSpec | None = None, min_saturation: float = 0.07
) -> PreparedTiles:
    directory.mkdir(exist_ok=True)
    return prepared_tiles(
        origin, stain or StainSpec(), min_saturation, directory, LOGGER, lambda _: None
    )


@dataclass(frozen=True)
class Pixels:
    """A tile model that keeps what it is given."""

    name: str = "pixels"
    needs_gpu: bool = False
    batch_size: int = 24

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def outputs(self) -> Mapping[str, ArraySpec]:
        return {"pixels": ArraySpec((names.TILE, "row", "column", "rgb"), (32, 32, 3), "uint8")}

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {}

    def load(self) -> Pixels:
        return self

    def __call__(self, tiles: torch.Tensor) -> Mapping[str, npt.NDArray[np.generic]]:
        return {"pixels": tiles.numpy()}


@pytest.mark.parametrize("fit", ["slide", "tile"])
def test_pixels_are_those_that_a_scorer_will_see(cohort: Any, tmp_path: Path, fit: Any) -> None:
    stain = StainSpec("macenko", fit)
    origin = open_origin(cohort.origin(slides=("n0", "n2")), labelled=False).tiles
    prepared = prepare(origin, tmp_path / "run", stain)
    spec = StreamSpec(cohort.store, cohort.grid, None, EncodeSpec("p", Pixels(), stain, "scores"))
    sources = [SlideSource(i, str(cohort.slides / f"{i}.tif")) for i in ("n0", "n2")]
    report = run_stream(SerialExecutor(), spec, sources, StreamObserver())
    assert all(slide.complete for slide in report.slides)
    for number, slide_id in enumerate(("n0", "n2")):
        slide = open_store(cohort.store)[slide_id]
        streamed = slide.tiles(cohort.grid, scores="p")["pixels"].values
        np.testing.assert_array_equal(prepared.pixels[64 * number :][:64], streamed)
        plain = slide.tiles(cohort.grid, scores=False).tiles.pixels().values
        assert (streamed != plain).mean() > 0.5  # it was normalized
    assert prepared.counts["stain"] == dict(report.stain_methods)


def test_glass_is_left_out_and_counted(cohort: Any, tmp_path: Path) -> None:
    origin = open_origin(cohort.origin(), labelled=False).tiles
    prepared = prepare(origin, tmp_path / "run")
    assert prepared.counts == {
        "read": 256, "without_colour": 32, "kept": 224, "stain": {"none": 224},
    }  # fmt: skip
    assert prepared.parts.count(cohort.blank) == 32
    assert len(prepare(origin, tmp_path / "all", min_saturation=0.0)) == 256
    with pytest.raises(InputError, match="None of the 256 tiles has colour"):
        prepare(origin, tmp_path / "none", min_saturation=1.0)


def test_saturation_is_that_of_hsv_blurred() -> None:
    tiles = np.full((4, 32, 32, 3), 200, np.uint8)
    tiles[1, ..., 2] = 180  # saturation 0.1 everywhere
    tiles[2, 3, 3] = (200, 0, 0)  # one pixel of noise: 1 / 64 of a square
    tiles[3] = 0  # black is not saturated
    assert has_colour(tiles, 0.07).tolist() == [False, True, False, False]
    assert has_colour(tiles, 0.11).tolist() == [False, False, False, False]
    assert has_colour(tiles, 0.0).all()


def test_prepared_once_and_anew_when_damaged(
    cohort: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = open_origin(cohort.origin(), labelled=False).tiles
    first = prepare(origin, tmp_path / "run")
    pixels = first.pixels.copy()
    reads: list[str] = []
    read = StoreTiles.read

    def counted(self: StoreTiles, part: str) -> Iterator[RawTiles]:
        reads.append(part)
        return read(self, part)

    monkeypatch.setattr(StoreTiles, "read", counted)
    again = prepare(origin, tmp_path / "run")
    assert not reads
    assert again.digest == first.digest
    assert (again.parts, again.groups, again.labels.tolist()) == (
        first.parts, first.groups, first.labels.tolist(),
    )  # fmt: skip

    path = tmp_path / "run" / "tiles.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert prepare(origin, tmp_path / "run").digest == first.digest
    assert len(reads) == 4
    prepare(origin, tmp_path / "run", min_saturation=0.0)  # something else was asked for
    assert len(reads) == 8
    np.testing.assert_array_equal(prepare(origin, tmp_path / "run").pixels, pixels)


def test_an_interrupted_preparation_leaves_nothing_that_counts(
    cohort: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = open_origin(cohort.origin(), labelled=False).tiles
    read: Callable[..., Iterator[RawTiles]] = StoreTiles.read

    def broken(self: StoreTiles, part: str) -> Iterator[RawTiles]:
        if part == "n2":
            raise ReadFailedError("n2: tile 3 can't be decoded")
        return read(self, part)

    monkeypatch.setattr(StoreTiles, "read", broken)
    with pytest.raises(ReadFailedError):
        prepare(origin, tmp_path / "run")
    monkeypatch.setattr(StoreTiles, "read", read)
    assert list((tmp_path / "run").iterdir()) == []
    assert len(prepare(origin, tmp_path / "run")) == 224


def test_a_subset_reads_its_own_tiles(cohort: Any, tmp_path: Path) -> None:
    origin = open_origin(cohort.origin(), labelled=False).tiles
    prepared = prepare(origin, tmp_path / "run")
    rows = np.array([200, 3, 77], np.int64)
    subset = TileSubset(prepared, rows)
    read = subset.read(np.array([2, 0], np.int64))
    np.testing.assert_array_equal(read, prepared.pixels[[77, 200]])
    read[:] = 0  # an array of the caller's own
    assert prepared.pixels[77].any()
    mean, std = subset.pixel_statistics()
    reference = prepared.pixels[rows].reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, reference.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, reference.std(axis=0), rtol=1e-6)
    others = [
        replace(subset, rows=rows[::-1].copy()),
        TileSubset(replace(prepared, digest="x"), rows),
    ]
    assert len({subset.fingerprint, *(each.fingerprint for each in others)}) == 3
    assert subset.fingerprint == TileSubset(prepared, rows.copy()).fingerprint


def test_the_summary_says_what_was_done(cohort: Any, tmp_path: Path) -> None:
    origin = open_origin(cohort.origin(), labelled=False).tiles
    prepare(origin, tmp_path / "run", StainSpec("reinhard", "tile"))
    summary = json.loads((tmp_path / "run" / "tiles.json").read_text())
    assert summary["described"]["stain"]["method"] == "reinhard"
    assert summary["described"]["origin"]["slides"]["n0"]["patient"] == "p0"
    table = (tmp_path / "run" / "tiles.csv").read_text().splitlines()
    assert table[0] == "part,tile,group,label,stain"
    assert table[1] == "n0,0,p0,0,reinhard"
    assert len(table) == 1 + summary["counts"]["kept"]
