"""The frozen settings of ``vae train`` and ``vae finetune``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jobs.training.stain_settings import StainSettings
    from models.fit_spec import FitSpec
    from models.tile_head import TileHeadConfig
    from models.tile_head_training import TileHeadTrainingSpec
    from models.vae import VaeConfig
    from models.vae_training import VaeTrainingSpec


@dataclass(frozen=True)
class OriginSettings:
    """Where tiles come from: one of ``store``, ``pcam`` and ``images``.

    Attributes
    ----------
    store, grid, slides, labels, normal, splits
        Slides of a store, see :func:`jobs.vae.chosen_slides.choose_slides`; grid may be None where it has only one.
    truth, positive_from
        Of a classifier: what tells tumour tiles, see :func:`jobs.evaluation.truth.open_truth`, and from which share of
        its area a tile is one.
    pcam, pcam_meta
        Images and labels of PatchCamelyon, and the table of their slides.
    images, mpp
        A folder of images, and their pixel size [µm/px].
    allow_other_grid
        Take tiles of another size or pixel size than the model is made for.
    """

    store: str | None = None
    grid: str | None = None
    slides: tuple[str, ...] = ()
    labels: str | None = None
    normal: tuple[str, ...] = ()
    splits: str | None = None
    truth: str | None = None
    positive_from: float = 0.5
    pcam: tuple[str, str] | None = None
    pcam_meta: str | None = None
    images: str | None = None
    mpp: float | None = None
    allow_other_grid: bool = False


@dataclass(frozen=True)
class TrainingSettings:
    """What trainings on tiles have in common.

    Attributes
    ----------
    origin, stain
        Its parts.
    fit
        Of the loop.
    min_saturation
        Tiles without that much colour are left out.
    val_fraction
        Share of the tiles that validates, where no file says which.
    plot_every
        Epochs between pictures; 0 draws only at the end.
    tensorboard
        Whether to write event files.
    run_dir
        Where everything goes.
    """

    origin: OriginSettings
    stain: StainSettings
    fit: FitSpec
    min_saturation: float = 0.07
    val_fraction: float = 0.15
    plot_every: int = 1
    tensorboard: bool = False
    run_dir: str = ""


@dataclass(frozen=True)
class VaeTrainConfig:
    """One call of ``vae train``, resolved.

    Attributes
    ----------
    common, training
        Its parts.
    network
        With any tile size: it takes that of the tiles.
    preset
        Which preset gave the settings that were not given.
    """

    common: TrainingSettings
    network: VaeConfig
    training: VaeTrainingSpec
    preset: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON-able mapping."""
        return {"command": "vae train", **asdict(self)}


@dataclass(frozen=True)
class VaeFinetuneConfig:
    """One call of ``vae finetune``, resolved.

    Attributes
    ----------
    common, head, training
        Its parts.
    run
        The VAE's run directory or checkpoint.
    allow_other_stain
        Take tiles of another normalization than the VAE was trained on.
    """

    common: TrainingSettings
    run: str
    head: TileHeadConfig
    training: TileHeadTrainingSpec
    allow_other_stain: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON-able mapping."""
        return {"command": "vae finetune", **asdict(self)}


Kind = Literal["train", "finetune"]

FREE = ("common.run_dir", "common.plot_every", "common.tensorboard", "preset")
"""What a run directory may be entered again with, since no result follows from it."""
