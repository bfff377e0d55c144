"""LazySlide: its tiling of the whole slide and ``tl.feature_extraction``, as its documentation has it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from benchmarks.peers.adapters.job import Floats, Job, answer, in_order


def run(job: Job) -> Callable[[], Floats]:
    """Open and tile the slide; return what extracts the features."""
    from wsidata import open_wsi  # type: ignore[import-not-found]

    wsi = open_wsi(job.slide, reader=job.reader)  # before torch, see Job

    import lazyslide as zs  # type: ignore[import-not-found]
    import lazyslide_models  # type: ignore[import-not-found]  # noqa: F401 - seconds of the first call
    import torch

    zs.pp.tile_tissues(wsi, job.tile_px, background_filter=False)
    bounds = wsi.shapes["tiles"].bounds
    rows = in_order(
        np.stack([bounds["minx"], bounds["miny"]], axis=1).astype(np.int64), job.read_corners()
    )
    network = job.network()

    def encode() -> Floats:
        features = zs.tl.feature_extraction(
            wsi,
            network,
            transform=torch.from_numpy,  # bytes to the network, which converts whole batches
            device="cpu",
            batch_size=job.batch_size,
            num_workers=job.num_workers,
            pbar=False,
            return_features=True,
        )
        return np.asarray(features[rows], dtype=np.float32)

    return encode


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    answer(version("lazyslide"), run)
