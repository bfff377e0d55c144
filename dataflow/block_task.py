"""read → normalize → model → write for one block of tiles, on a worker; only a receipt goes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dataflow import meters, worker_cache
from dataflow.batches import run_batches
from dataflow.keyed_cache import KeyedCache
from dataflow.meters import StageMeters
from dataflow.receipts import BlockReceipt, Failure
from dataflow.stain import StainBasis, StainMethod, StainNormalizer, stain_method_array_spec
from dataflow.stored_plan import stored_plan
from dataflow.stream_spec import BlockTask, EncodeSpec, StreamSpec
from dataflow.tile_reader import TilePlan, TileReader
from store_schema import names
from store_schema.blocks import BlockGroup, open_block_group
from store_schema.errors import DeviceError, SlidestreamError
from store_schema.group_attributes import altered
from store_schema.specs import ArraySpec, TileTable
from store_schema.store import open_store

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class SlideContext:
    """What a worker keeps of one slide while its blocks pass by."""

    group: BlockGroup
    table: TileTable
    plan: TilePlan
    basis: StainBasis | None
    decoder: str


_contexts: KeyedCache[SlideContext] = KeyedCache(32)


def output_arrays(encode: EncodeSpec) -> dict[str, ArraySpec]:
    """Declare the arrays of the group: what the model says that it makes, and how each tile was normalized."""
    return {**encode.model.outputs, names.STAIN_METHOD: stain_method_array_spec()}


def group_path(spec: StreamSpec, encode: EncodeSpec, slide_id: str) -> str:
    """Path of the written group below the store's root."""
    return f"{slide_id}/{spec.grid_name}/{encode.kind}/{encode.name}"


def encode_block(spec: StreamSpec, task: BlockTask) -> BlockReceipt:
    """Make and store one block; the body of a Dask task.

    Errors that concern the slide, the block or the store come back as a failure in the receipt; anything else is
    a bug and propagates.

    Parameters
    ----------
    spec
        The run; its ``encode`` half must be set.
    task
        Which block.
    """
    if spec.encode is None:
        raise ValueError("the run has nothing to encode")
    tally = StageMeters()
    try:
        return _encode_block(spec, spec.encode, task, tally)
    except SlidestreamError as error:
        return BlockReceipt(
            task.source.slide_id,
            task.block,
            seconds=dict(tally.seconds),
            failure=Failure.of(task.source.slide_id, error, task.block),
        )
    finally:
        tally.publish()


def _encode_block(
    spec: StreamSpec, encode: EncodeSpec, task: BlockTask, tally: StageMeters
) -> BlockReceipt:
    slide_id = task.source.slide_id
    context = _contexts.get(
        (spec.store_url, slide_id, task.stamp), lambda: _open(spec, encode, task)
    )
    if context.group.is_stored(task.block):  # two runs on one store share the work
        return BlockReceipt(slide_id, task.block, already_stored=True)
    loaded = worker_cache.loaded_model(encode.model)
    device = loaded.model.device
    normalizer = StainNormalizer(encode.stain, context.basis, device)
    tiles_slice = context.group.block_slice(task.block)
    x, y = context.table.x[tiles_slice], context.table.y[tiles_slice]
    arrays = {
        name: np.empty((len(x), *array.shape), dtype=array.dtype)
        for name, array in output_arrays(encode).items()
    }
    slide = worker_cache.slide_reader(task.source.path, task.source.mpp, task.stamp)
    reader = TileReader(slide, context.plan, x, y)
    runner = _BatchRunner(loaded)
    normalizes = encode.stain.method != "none"

    def decode(start: int, pixels: npt.NDArray[np.uint8]) -> None:
        with tally.stage(meters.READ, pixels.nbytes):
            reader.read(start, start + len(pixels), pixels)

    def run(start: int, tiles: torch.Tensor) -> None:
        stop = start + tiles.shape[0]
        on_device = tiles.to(device, non_blocking=True)
        with tally.stage(meters.NORMALIZE, tiles.numel()) if normalizes else nullcontext():
            normalized, methods = normalizer(on_device, out=on_device)
        with tally.stage(meters.MODEL, tiles.numel()):
            outputs = runner(normalized)
        arrays[names.STAIN_METHOD][start:stop] = methods
        for name, values in outputs.items():
            arrays[name][start:stop] = values

    run_batches(len(x), context.plan.tile_px, loaded, decode, run)
    with tally.stage(meters.WRITE):
        tally.bytes[meters.WRITE] += context.group.write_block(task.block, arrays)
    counts = Counter(arrays[names.STAIN_METHOD].tolist())
    return BlockReceipt(
        slide_id,
        task.block,
        n_tiles=len(x),
        seconds=dict(tally.seconds),
        nbytes=dict(tally.bytes),
        stain_methods={StainMethod(code).name.lower(): n for code, n in counts.items()},
        decoders={context.decoder: len(x)},
        halvings=runner.halvings,
    )


def _open(spec: StreamSpec, encode: EncodeSpec, task: BlockTask) -> SlideContext:
    slide = open_store(spec.store_url)[task.source.slide_id]
    reader = worker_cache.slide_reader(task.source.path, task.source.mpp, task.stamp)
    group = open_block_group(spec.store_url, group_path(spec, encode, task.source.slide_id))
    return SlideContext(
        group=group,
        table=slide.tile_table(spec.grid_name),
        plan=stored_plan(reader.info, slide, spec.grid_name),
        basis=_stored_basis(group),
        decoder=reader.info.decoder,
    )


def _stored_basis(group: BlockGroup) -> StainBasis | None:
    basis = group.attrs[names.EXTRA].get(names.STAIN_BASIS)
    try:
        return None if basis is None else StainBasis.from_json(basis)
    except (KeyError, TypeError, ValueError) as error:
        raise altered(group.url, group.path, f"{names.STAIN_BASIS}: {error}") from error


class _BatchRunner:
    """Runs a model, with smaller batches once the device ran out of memory."""

    def __init__(self, loaded: worker_cache.LoadedModel) -> None:
        self._loaded = loaded
        self.halvings = 0

    def __call__(self, tiles: torch.Tensor) -> Mapping[str, npt.NDArray[np.generic]]:
        limit = self._loaded.batch_limit
        parts: list[Mapping[str, npt.NDArray[np.generic]]] = []
        start = 0
        while start < tiles.shape[0]:
            try:
                parts.append(self._loaded.model(tiles[start : start + limit]))
            except torch.OutOfMemoryError as error:
                if limit == 1:
                    raise DeviceError(
                        "The device has no memory left even for a single tile; use a smaller model, "
                        "--precision bf16 or --device cpu."
                    ) from error
                limit = self._loaded.batch_limit = max(1, limit // 2)
                self.halvings += 1
                torch.cuda.empty_cache()
            else:
                start += limit
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
