"""Blank, black and three-pixel tiles through the stream: a flagged fallback, and never NaN in what is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dataflow.discover import SlideSource
from dataflow.executors import SerialExecutor
from dataflow.pyramid_tiff import write_pyramid
from dataflow.stain import FitScope, Method, StainMethod, StainSpec
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver, StreamReport
from dataflow.stream_spec import EncodeSpec, IndexSpec, StreamSpec
from dataflow.tissue import TissueSpec
from store_schema.specs import ArraySpec, GridSpec
from store_schema.store import create_store, open_store

KINDS = ("blank", "white", "black", "one-colour", "three-px", "stained")
TISSUE = TissueSpec(method="none")


class Moments:
    """A tile model: mean and deviation of each colour, which a NaN or an overflow would show in."""

    device = torch.device("cpu")
    batch_size = 4

    def __call__(self, tiles: torch.Tensor) -> Mapping[str, npt.NDArray[np.generic]]:
        pixels = tiles.float().flatten(1, 2)
        return {"features": torch.cat([pixels.mean(1), pixels.std(1)], dim=1).numpy()}


@dataclass(frozen=True)
class MomentsFactory:
    """Its factory."""

    name: str = "moments"
    needs_gpu: bool = False
    version: int = 1

    @property
    def outputs(self) -> Mapping[str, ArraySpec]:
        return {"features": ArraySpec(("tile", "feature"), (6,), "float32", {"long_name": "-"})}

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"model": "moments", "precision": "fp32", "version": self.version}

    def load(self) -> Moments:
        return Moments()


def picture(kind: str, tile_px: int) -> npt.NDArray[np.uint8]:
    """Draw a tile."""
    generator = np.random.default_rng(1)
    tile = np.full((tile_px, tile_px, 3), 244, np.uint8)
    if kind == "white":
        tile[:] = 255
    elif kind == "black":
        tile[:] = 0
    elif kind == "one-colour":
        tile[:] = (160, 80, 160)
    elif kind == "three-px":  # of three colours: as many as span a plane, and no more
        tile[0, 0], tile[0, 1], tile[1, 0] = (120, 60, 150), (225, 150, 190), (90, 40, 120)
    elif kind == "stained":
        mixed = generator.random((tile_px, tile_px, 1))
        tile[:] = (1 - mixed) * [120, 60, 150] + mixed * [225, 150, 190]
    return tile


@dataclass(frozen=True)
class Bench:
    """A slide, and a function that encodes it into a store."""

    slide: Path
    store: Path
    grid: GridSpec

    def run(self, stain: StainSpec, **changes: Any) -> StreamReport:
        index = IndexSpec(changes.pop("grid", self.grid), TISSUE, block_tiles=4)
        model = changes.pop("model", MomentsFactory())
        encode = EncodeSpec(changes.pop("name", "moments"), model, stain, **changes)
        create_store(self.store)
        spec = StreamSpec(str(self.store), index.grid.name, index, encode)
        return run_stream(
            SerialExecutor(), spec, [SlideSource("s", str(self.slide))], StreamObserver()
        )


@pytest.fixture(params=[64, 16])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """All kinds of tiles side by side, each 64 or 16 pixels a side; stored without loss of colour."""
    side = int(request.param)
    image = np.concatenate([picture(kind, side) for kind in KINDS], axis=1)
    path = tmp_path / "s.tif"
    write_pyramid(path, image, mpp=0.5, downsamples=(1,), quality=95)
    return Bench(path, tmp_path / "s.zarr", GridSpec(side, 0.5, side, tissue=TISSUE.to_json()))


@pytest.mark.parametrize("fit", ["slide", "tile"])
@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_all_kinds_in_one_slide(
    bench: Bench, method: Method, fit: FitScope, fault_counts: Callable[..., None]
) -> None:
    report = bench.run(StainSpec(method=method, fit=fit))

    assert not report.failures
    tiles = open_store(bench.store)["s"].tiles(bench.grid.name)
    by_place = tiles.isel(tile=np.argsort(tiles["col"].values))
    features, methods = by_place["features"].values, by_place["stain_method"].values
    assert np.isfinite(features).all()
    assert (features >= 0).all()
    assert (features[:, :3] <= 255).all()
    assert StainMethod.NONE not in methods
    if fit == "tile":
        without_evidence = methods[:4]
        assert (without_evidence == StainMethod.UNTOUCHED).all()
        fault_counts(
            f"tiles of {bench.grid.tile_px} px without stain, {method}",
            tried=5,
            detected=int((methods[:5] != StainMethod.MACENKO).sum()),
        )
        enough = bench.grid.tile_px == 64 or method == "reinhard"  # px for Macenko's evidence
        assert methods[-1] == (StainMethod[method.upper()] if enough else StainMethod.REINHARD)
    else:
        assert len(set(methods)) == 1, "one decision for the whole slide"


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("fit", ["slide", "tile"])
def test_a_slide_of_nothing_else(tmp_path: Path, kind: str, fit: FitScope) -> None:
    path = tmp_path / "s.tif"
    image = np.tile(picture(kind, 64), (2, 2, 1))
    write_pyramid(path, image, mpp=0.5, downsamples=(1,), quality=95)
    bench = Bench(path, tmp_path / "s.zarr", GridSpec(64, 0.5, 64, tissue=TISSUE.to_json()))

    report = bench.run(StainSpec(method="macenko", fit=fit))

    assert not report.failures
    tiles = open_store(bench.store)["s"].tiles(bench.grid.name)
    assert np.isfinite(tiles["features"].values).all()
    assert set(tiles["stain_method"].values) <= {StainMethod.UNTOUCHED, StainMethod.REINHARD}
    assert open_store(bench.store)["s"].grid_attrs(bench.grid.name)["n_tiles"] == 4


def test_what_changed_between_two_runs_is_named(
    bench: Bench, fault_counts: Callable[..., None]
) -> None:
    """Settings and slide: refused, the difference is named, and what is stored stays."""
    stain = StainSpec(method="macenko")
    assert not bench.run(stain).failures
    before = open_store(bench.store)["s"].tiles(bench.grid.name)["features"].values
    other_tissue = TissueSpec(method="otsu").to_json()
    changes: dict[str, tuple[dict[str, Any], str]] = {
        "stain": ({"stain": StainSpec(method="none")}, "macenko"),
        "stain fit": ({"stain": replace(stain, fit="tile")}, "fit"),
        "encoder": ({"model": MomentsFactory(version=2)}, "version"),
        "tissue": ({"grid": replace(bench.grid, tissue=other_tissue)}, "tissue"),
        "min tissue": ({"grid": replace(bench.grid, min_tissue=0.7)}, "min_tissue"),
        "edges": ({"grid": replace(bench.grid, edge="pad")}, "edge"),
    }
    refused = 0
    for what, (change, named) in changes.items():
        report = bench.run(change.pop("stain", stain), **change)
        (failure,) = report.failures
        assert failure.reason == "settings-conflict", what
        assert named in failure.message, what
        refused += 1
    for grid in (replace(bench.grid, tile_px=8, stride_px=8), replace(bench.grid, mpp=1.0)):
        assert not bench.run(stain, grid=grid).failures, "another size is another grid"
    bench.slide.write_bytes(bench.slide.read_bytes() + b"\0")
    (failure,) = bench.run(stain).failures
    assert failure.reason == "slide-changed"
    assert "another file" in failure.message
    write_pyramid(bench.slide, picture("stained", 128), mpp=0.25, downsamples=(1,))
    (failure,) = bench.run(stain).failures
    assert failure.reason == "slide-changed"
    after = open_store(bench.store)["s"].tiles(bench.grid.name, features="moments")["features"]
    np.testing.assert_array_equal(after.values, before)
    fault_counts("changed settings or slide", tried=len(changes) + 2, detected=refused + 2)
