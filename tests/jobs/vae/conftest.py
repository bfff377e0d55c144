"""Slides of real stained tissue in a store, small enough that a VAE trains on them in seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from dataflow.discover import SlideSource
from dataflow.index import index_slide
from dataflow.pyramid_tiff import write_pyramid
from dataflow.stream_spec import IndexSpec
from dataflow.tissue import TissueSpec
from jobs.training.stain_settings import StainSettings
from jobs.vae.config import OriginSettings, TrainingSettings, VaeTrainConfig
from models.fit_spec import FitSpec
from models.vae import VaeConfig
from models.vae_loss import VaeLossSpec
from models.vae_training import VaeTrainingSpec
from store_schema.specs import GridSpec
from store_schema.store import create_store

SIDE_PX = 256
TILE_PX = 32
MPP = 0.972


@dataclass(frozen=True)
class TileCohort:
    """Six slides of 64 tiles: four normal ones of three patients, two with tumour in their left half.

    ``blank`` is the normal slide whose lower half is glass.
    """

    store: str
    grid: str
    labels: Path
    masks: Path
    slides: Path
    normal: tuple[str, ...] = ("n0", "n1", "n2", "n3")
    blank: str = "n3"

    def origin(self, **changes: Any) -> OriginSettings:
        """Return the settings of its normal slides."""
        settings = OriginSettings(store=self.store, labels=str(self.labels), allow_other_grid=True)
        return replace(settings, **changes)

    def config(self, run_dir: Path, **changes: Any) -> VaeTrainConfig:
        """Return the settings of a small and short training."""
        origin = changes.pop("origin", None) or self.origin()
        fit = FitSpec(epochs=2, lr=1e-3, device="cpu", threads=1)
        common = TrainingSettings(
            origin,
            changes.pop("stain", StainSettings()),
            replace(fit, **changes),
            run_dir=str(run_dir),
        )
        network = VaeConfig(latent_channels=8, widths=(8, 8, 16, 16, 16), groups=2)
        loss = VaeLossSpec(beta=0.0)  # so short a training would collapse, and a head see nothing
        return VaeTrainConfig(common, network, VaeTrainingSpec(loss, batch_size=32))


@pytest.fixture(scope="session")
def _indexed(tmp_path_factory: pytest.TempPathFactory) -> TileCohort:
    folder = tmp_path_factory.mktemp("cohort")
    slides, masks = folder / "slides", folder / "masks"
    slides.mkdir()
    masks.mkdir()
    image = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
    spec = GridSpec(
        tile_px=TILE_PX, mpp=MPP, stride_px=TILE_PX, tissue=TissueSpec("none").to_json()
    )
    index = IndexSpec(spec, TissueSpec("none"), block_tiles=16)
    store = create_store(str(folder / "cohort.zarr"))
    rows = ["slide_id,label,patient_id"]
    corners = ((0, 0), (256, 0), (0, 256), (256, 256), (128, 128), (60, 190))
    for number, (x, y) in enumerate(corners):
        tumor = number >= 4
        name = f"t{number - 4}" if tumor else f"n{number}"
        pixels = image[y : y + SIDE_PX, x : x + SIDE_PX].copy()
        pixels[..., 1] = pixels[..., 1] * 0.8  # so that all of it has colour
        if name == "n3":
            pixels[SIDE_PX // 2 :] = 244
        if tumor:  # as stripes: what a head learns in a few epochs, from an encoder that has seen hardly more
            left = np.arange(SIDE_PX // 2)
            pixels[:, left[left // 4 % 2 == 0]] //= 4
            mask = np.zeros((8, 8), np.uint8)
            mask[:, :4] = 255
            Image.fromarray(mask).save(masks / f"{name}.png")
        write_pyramid(slides / f"{name}.tif", pixels, MPP, downsamples=(1, 2))
        index_slide(store, index, SlideSource(name, str(slides / f"{name}.tif")))
        patient = "p0" if name in ("n0", "n1") else f"p{number}"
        rows.append(f"{name},{'tumor' if tumor else 'normal'},{patient}")
    labels = folder / "labels.csv"
    labels.write_text("\n".join(rows) + "\n")
    return TileCohort(store.url, spec.name, labels, masks, slides)


@pytest.fixture
def cohort(_indexed: TileCohort, tmp_path: Path) -> TileCohort:
    """Return the slides in a store of the test's own."""
    copy = tmp_path / "cohort.zarr"
    shutil.copytree(_indexed.store, copy)
    return replace(_indexed, store=str(copy))


@pytest.fixture(scope="session")
def trained(_indexed: TileCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run directory of a VAE that was trained on the normal slides; to be left as it is."""
    from jobs.vae.train import train_vae

    run_dir = tmp_path_factory.mktemp("runs") / "vae"
    train_vae(_indexed.config(run_dir), quiet=True)
    return run_dir


@pytest.fixture(scope="session")
def write_pcam() -> Callable[..., tuple[Path, Path]]:
    """Return a function that writes files as those of PatchCamelyon: folder, labels → images, labels."""
    import h5py

    def write(folder: Path, labels: list[int], side_px: int = 32) -> tuple[Path, Path]:
        image = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
        tiles = [image[k : k + side_px, 2 * k : 2 * k + side_px] for k in range(len(labels))]
        x, y = folder / "x.h5", folder / "y.h5"
        with h5py.File(x, "w") as file:
            file["x"] = np.stack(tiles)
        with h5py.File(y, "w") as file:
            file["y"] = np.array(labels, np.uint8).reshape(-1, 1, 1, 1)
        return x, y

    return write
