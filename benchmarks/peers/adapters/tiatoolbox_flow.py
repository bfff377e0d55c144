"""TIAToolbox: its ``DeepFeatureExtractor`` in WSI mode; features go to its own zarr, which is part of the run."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.adapters.job import Floats, Job, answer, in_order


def run(job: Job) -> Callable[[], Floats]:
    """Make the engine; return what runs it."""
    import zarr
    from tiatoolbox.models.engine.deep_feature_extractor import (  # type: ignore[import-not-found]
        DeepFeatureExtractor,
    )
    from tiatoolbox.models.engine.io_config import (  # type: ignore[import-not-found]
        IOPatchPredictorConfig,
    )
    from tiatoolbox.models.models_abc import ModelABC  # type: ignore[import-not-found]

    class Model(ModelABC):  # type: ignore[misc]
        """The network as the engine takes it; bytes in, converted as whole batches."""

        def __init__(self) -> None:
            super().__init__()
            self.network = job.network()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.network(batch))

        @staticmethod
        def infer_batch(model: Any, batch_data: torch.Tensor, *, device: str) -> list[Floats]:
            del device
            with torch.inference_mode():
                return [model(batch_data).numpy()]

    engine = DeepFeatureExtractor(
        Model().eval(),
        batch_size=job.batch_size,
        num_workers=job.num_workers,
        device="cpu",
        verbose=False,
    )
    side = (job.tile_px, job.tile_px)
    settings = IOPatchPredictorConfig(
        input_resolutions=[{"units": "baseline", "resolution": 1.0}],
        patch_input_shape=side,
        stride_shape=side,
    )
    wanted = job.read_corners()
    with (
        torch.inference_mode()
    ):  # the engine has compiled the model, which happens at the first call
        engine.model(torch.zeros(job.batch_size, *side, 3, dtype=torch.uint8))

    def encode() -> Floats:
        with tempfile.TemporaryDirectory() as folder:
            out = engine.run(
                [Path(job.slide)],
                patch_mode=False,
                ioconfig=settings,
                auto_get_mask=False,
                output_type="zarr",
                save_dir=Path(folder) / "out",
                overwrite=True,
            )
            stored = zarr.open_group(str(next(iter(out.values()))), mode="r")
            coordinates, features = (np.asarray(stored[n]) for n in ("coordinates", "features"))
            rows = in_order(coordinates[:, :2].astype(np.int64), wanted)
            return features[rows].astype(np.float32)

    return encode


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    answer(version("tiatoolbox"), run)
