"""The frozen settings of ``pbip train``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobs.training.stain_settings import StainSettings

if TYPE_CHECKING:
    from models.fit_spec import FitSpec
    from models.pbip import Similarity
    from models.pbip_training_spec import PbipTrainingSpec


@dataclass(frozen=True)
class WeakTilesSettings:
    """Which tiles, and what is known of them.

    Attributes
    ----------
    labels, splits
        Tables of slides.
    class_order
        The classes; empty takes those of the bank, which they must be in any case.
    tile_labels
        Truth that says which class a tile holds, see :func:`jobs.evaluation.truth.open_truth`; None takes the slide's.
    truth
        Truth that validation tiles are judged by; None takes ``tile_labels``.
    positive_from
        A tile holds a class if more of its area than this is of it.
    val_tiles
        Validation tiles of a slide, at the most.
    """

    labels: str
    splits: str
    class_order: tuple[str, ...] = ()
    tile_labels: str | None = None
    truth: str | None = None
    positive_from: float = 0.5
    val_tiles: int = 64


@dataclass(frozen=True)
class NetworkSettings:
    """The network, as far as bank and grid don't say it.

    Attributes
    ----------
    backbone
        See :func:`models.pyramid_backbones.pyramid_backbone`.
    weights
        Of the backbone: ``published``, ``none`` (random), or a file.
    similarity, hidden
        See :class:`models.pbip.PbipConfig`.
    init
        Run directory or checkpoint of a trained network to go on from.
    """

    backbone: str = "mit_b1"
    weights: str = "published"
    similarity: Similarity = "cosine"
    hidden: int = 256
    init: str | None = None


@dataclass(frozen=True)
class PbipTrainConfig:
    """One call of ``pbip train``, resolved.

    Attributes
    ----------
    store, grid
        Where the tiles are; grid None is that of the bank.
    prototypes
        The bank.
    tiles, network, stain, training
        Its parts.
    fit
        Of the loop, but ``epochs`` and ``warmup_epochs`` count passes over the slides (or tiles), and ``monitor``
        follows from what validation knows.
    encoder
        Of the bank, where it isn't to be found by the bank's own name; see :mod:`models.registry`.
    allow_other_grid, allow_other_stain
        Take tiles of another size or pixel size, of another normalization, than those of the bank.
    plot_every
        Rounds between pictures; 0 draws only at the end.
    tensorboard
        Whether to write event files.
    run_dir
        Where everything goes.
    """

    store: str
    grid: str | None
    prototypes: str
    tiles: WeakTilesSettings
    network: NetworkSettings
    training: PbipTrainingSpec
    fit: FitSpec
    stain: StainSettings = field(default_factory=StainSettings)
    encoder: str | None = None
    allow_other_grid: bool = False
    allow_other_stain: bool = False
    plot_every: int = 1
    tensorboard: bool = False
    run_dir: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON-able mapping."""
        return {"command": "pbip train", **asdict(self)}


FREE: Final = ("run_dir", "plot_every", "tensorboard")
"""What a run directory may be entered again with, since no result follows from it."""
