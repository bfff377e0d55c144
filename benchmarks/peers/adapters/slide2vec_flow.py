"""slide2vec: its reader and collator with supertiles, its DataLoader settings, its forward loop.

Its public ``Pipeline`` takes encoders of its registry only, and does the same as here: ``TileIndexDataset``,
``OnTheFlyBatchTileCollator``, ``run_forward_pass``. Bytes go to the network, which converts whole batches.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.adapters.job import Floats, Job, answer


def tiling(job: Job) -> Any:
    """Return the list of tiles as slide2vec's tiling would have left it."""
    import openslide
    from hs2p import TilingResult  # type: ignore[import-not-found]
    from hs2p.tiling.result import TileGeometry  # type: ignore[import-not-found]

    corners = job.read_corners()
    with openslide.OpenSlide(job.slide) as slide:
        size, downsamples = slide.dimensions, slide.level_downsamples
        mpp = float(slide.properties[openslide.PROPERTY_NAME_MPP_X])
    geometry = TileGeometry(
        x=corners[:, 0],
        y=corners[:, 1],
        tissue_fractions=np.ones(len(corners)),
        requested_tile_size_px=job.tile_px,
        requested_spacing_um=mpp,
        read_level=0,
        read_tile_size_px=job.tile_px,
        read_spacing_um=mpp,
        tile_size_lv0=job.tile_px,
        is_within_tolerance=True,
        base_spacing_um=mpp,
        slide_dimensions=list(size),
        level_downsamples=list(downsamples),
        overlap=0.0,
        min_tissue_fraction=0.0,
    )
    settings: dict[str, Any] = {
        "tiles": geometry,
        "sample_id": Path(job.slide).stem,
        "image_path": job.slide,
        "backend": job.reader,
        "requested_backend": job.reader,
        "step_px_lv0": job.tile_px,
    }
    # nothing was segmented or filtered: the settings of that are not looked at by the reader
    unused = [
        f.name
        for f in dataclasses.fields(TilingResult)
        if f.name not in settings and f.default is dataclasses.MISSING
    ]
    return TilingResult(**settings, **dict.fromkeys(unused))


class BytesEncoder:
    """The network behind the method that slide2vec calls."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network

    def encode_tiles(self, batch: torch.Tensor) -> torch.Tensor:
        """Encode uint8 (n, rgb, y, x)."""
        return torch.as_tensor(self._network(batch))


def run(job: Job) -> Callable[[], Floats]:
    """Lay the tiles; return what reads and encodes them."""
    from slide2vec.data.dataset import TileIndexDataset  # type: ignore[import-not-found]
    from slide2vec.data.tile_reader import (  # type: ignore[import-not-found]
        OnTheFlyBatchTileCollator,
    )
    from slide2vec.runtime.batching import (  # type: ignore[import-not-found]
        dataloader_kwargs,
        run_forward_pass,
    )
    from slide2vec.runtime.types import LoadedModel  # type: ignore[import-not-found]

    result = tiling(job)
    device = torch.device("cpu")
    loaded = LoadedModel(
        name=job.encoder,
        level="tile",
        model=BytesEncoder(job.network()),
        transforms=None,
        feature_dim=0,
        device=device,
    )

    def encode() -> Floats:
        collator = OnTheFlyBatchTileCollator(
            image_path=Path(job.slide),
            tiling_result=result,
            backend=job.reader,
            num_cucim_workers=1 if job.num_workers else 2,
        )
        order = collator.ordered_indices
        loader = torch.utils.data.DataLoader(
            TileIndexDataset(order),
            collate_fn=collator,
            batch_sampler=collator.build_batch_sampler(
                batch_size=job.batch_size, dataset_indices=order
            ),
            **dataloader_kwargs(device=device, num_workers=job.num_workers, prefetch_factor=4),
        )
        indices, features = run_forward_pass(
            loader,
            loaded,
            contextlib.nullcontext(),
            batch_preprocessor=lambda batch: batch,
            total_items=len(order),
        )
        out = np.empty(features.shape, np.float32)
        out[indices.numpy()] = features.numpy()
        return out

    return encode


if __name__ == "__main__":
    answer(version("slide2vec"), run)
