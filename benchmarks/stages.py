"""The stages of the stream, each alone, in this process: the very classes that a block task uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.timing import Timing, repeated
from dataflow.slide import SlideReader, open_slide
from dataflow.stain import StainBasis, StainNormalizer, StainSpec, fit_slide
from dataflow.tile_model import TileModelFactory
from dataflow.tile_reader import TilePlan, TileReader
from dataflow.tiling import make_tiles
from models.encoder import EncoderFactory
from models.precision import arithmetic
from store_schema.names import DEFAULT_BLOCK_TILES
from store_schema.specs import GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import create_store

_QUEUED = 8  # batches that are handed to a device before it is waited for
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TiledSlide:
    """An opened slide and its tiles.

    Attributes
    ----------
    reader
        The slide.
    spec, geometry, table
        Its grid.
    """

    reader: SlideReader
    spec: GridSpec
    geometry: GridGeometry
    table: TileTable

    @classmethod
    def of(cls, path: Path, spec: GridSpec) -> TiledSlide:
        """Open a slide and lay tiles on all of it."""
        reader = open_slide(path)
        geometry, table = make_tiles(reader.info, spec, None)
        return cls(reader, spec, geometry, table)

    @property
    def n_blocks(self) -> int:
        """Blocks of the default size."""
        return -(-len(self.table) // DEFAULT_BLOCK_TILES)

    def read(self, start: int, stop: int) -> Pixels:
        """Read tiles: uint8 (n, y, x, rgb)."""
        out = np.empty((stop - start, self.spec.tile_px, self.spec.tile_px, 3), np.uint8)
        self._read(slice(start, stop), out, stop - start)
        return out

    def block_reader(self, batch_size: int) -> Callable[[int], int]:
        """Return a function that reads a block by its number, batch by batch, and says how many tiles it has."""
        out = np.empty((batch_size, self.spec.tile_px, self.spec.tile_px, 3), np.uint8)

        def read(block: int) -> int:
            start = block * DEFAULT_BLOCK_TILES
            stop = min(start + DEFAULT_BLOCK_TILES, len(self.table))
            self._read(slice(start, stop), out, batch_size)
            return stop - start

        return read

    def _read(self, tiles: slice, out: Pixels, batch_size: int) -> None:
        plan = TilePlan.of(self.reader.info, self.geometry, self.spec.tile_px)
        x, y = self.table.x[tiles], self.table.y[tiles]
        reader = TileReader(self.reader, plan, x, y)
        for start in range(0, len(x), batch_size):
            stop = min(start + batch_size, len(x))
            reader.read(start, stop, out[: stop - start])


def read_stage(slide: TiledSlide, batch_size: int, n_threads: int, at_least_s: float) -> Timing:
    """Time reading; its items are blocks."""
    readers = [slide.block_reader(batch_size) for _ in range(n_threads)]
    return repeated(readers, n_items=slide.n_blocks, at_least_s=at_least_s)


def stain_stage(
    tiles: Pixels,
    spec: StainSpec,
    device: torch.device,
    batch_size: int,
    n_threads: int,
    at_least_s: float,
) -> Timing:
    """Time stain normalization of tiles that are in memory; its items are batches."""
    basis: StainBasis | None = fit_slide(tiles, spec) if spec.needs_basis else None
    batches = _batches(tiles, device, batch_size)

    def worker() -> Callable[[int], int]:
        normalizer = StainNormalizer(spec, basis, device)

        def normalize(item: int) -> int:
            normalized, _ = normalizer(batches[item])
            _wait(device)
            return len(normalized)

        return normalize

    return repeated(
        [worker() for _ in range(n_threads)], n_items=len(batches), at_least_s=at_least_s
    )


def model_stage(
    tiles: Pixels, factory: TileModelFactory, n_threads: int, at_least_s: float
) -> Timing:
    """Time the model on tiles that are in memory, from uint8 on the device to an array; its items are batches."""
    model = factory.load()
    batches = _batches(tiles, model.device, model.batch_size)

    def encode(item: int) -> int:
        model(batches[item])
        return len(batches[item])

    return repeated([encode] * n_threads, n_items=len(batches), at_least_s=at_least_s)


def random_tensor_stage(factory: EncoderFactory, px: int, at_least_s: float) -> Timing:
    """Time the network alone on random float tensors that are on its device: what the model stage can't beat.

    Parameters
    ----------
    factory
        Whose network, in what precision.
    px
        Side of the network's input.
    at_least_s
        Time after which no item is begun any more; an item is 8 batches, after which the device is waited for.
    """
    device, batch_size = torch.device(factory.device), factory.spec.batch_size
    network: nn.Module = factory.network().eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if factory.spec.compile:
        network = torch.compile(network)  # type: ignore[assignment]
    batch = torch.randn(batch_size, 3, px, px, device=device)
    batch = batch.contiguous(memory_format=torch.channels_last)

    def encode(_: int) -> int:
        with torch.inference_mode(), arithmetic(factory.precision, factory.device):
            for _ in range(_QUEUED):
                network(batch)
        _wait(device)
        return _QUEUED * batch_size

    return repeated([encode], n_items=1, at_least_s=at_least_s)


def write_stage(
    folder: Path, n_tiles: int, factory: TileModelFactory, n_threads: int, at_least_s: float
) -> Timing:
    """Time writing blocks of random numbers to a store in ``folder``; its items are blocks."""
    n_tiles = -(-n_tiles // DEFAULT_BLOCK_TILES) * DEFAULT_BLOCK_TILES  # whole blocks
    slide = create_store(folder / "write.zarr").add_slide(
        SlideRecord("written", "none", "c0ffee", "none", n_tiles, 1, 0.5, "user")
    )
    spec = GridSpec(1, 0.5, 1)
    corners = np.arange(n_tiles, dtype=np.int32)
    zeros = np.zeros(n_tiles, np.int32)
    table = TileTable(corners, zeros, zeros, corners, np.ones(n_tiles, np.float32))
    slide.create_grid(spec, GridGeometry(1, 1.0, 1, n_tiles), table, {})
    group = slide.create_tile_group(spec.name, "features", "written", factory.outputs, {})
    generator = np.random.default_rng(0)
    values = {
        name: generator.standard_normal((DEFAULT_BLOCK_TILES, *array.shape)).astype(array.dtype)
        for name, array in factory.outputs.items()
    }

    def write(block: int) -> int:
        group.write_block(block, values)
        return DEFAULT_BLOCK_TILES

    return repeated([write] * n_threads, n_items=group.n_blocks, at_least_s=at_least_s)


def _batches(tiles: Pixels, device: torch.device, batch_size: int) -> list[torch.Tensor]:
    whole = len(tiles) // batch_size * batch_size or len(tiles)
    on_device = torch.from_numpy(tiles[:whole]).to(device)
    return [on_device[start : start + batch_size] for start in range(0, whole, batch_size)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
