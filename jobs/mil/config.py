"""The frozen settings of ``mil train`` and ``mil cv``, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from jobs.run_config import ClusterSettings

if TYPE_CHECKING:
    from models.bag_losses import LossSpec
    from models.fit import FitSpec

BagLevel: TypeAlias = Literal["slide", "patient"]
Protocol: TypeAlias = Literal["strict", "published"]
ThresholdRule: TypeAlias = Literal["youden", "f1", "argmax"]
Setting: TypeAlias = str | int | float | bool

LEAKY: Final = "LEAKY: epoch and threshold were chosen on the test fold"
"""Said wherever a result of ``--protocol published`` is shown."""

PRESETS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        # the four passes of the two-pass report: attention-based MIL on L2-normalized features; its final pass has
        # 100 epochs, the bootstrap pass is `--epochs 50`
        "two-pass": {
            "model": "abmil",
            "epochs": 100,
            "l2_normalize": True,
            "standardize": False,
            "loss": "ce",
        },
        # the re-training that the audit of the dual-stream training asks for
        "dual-stream-audit": {
            "model": "dsmil",
            "epochs": 60,
            "batch_size": 4,
            "bag_size": 32,
            "plot_every": 1,
            "class_weights": True,
            "label_smoothing": 0.2,
            "loss": "ce",
            "balanced_sampling": True,
            "standardize": False,
            "amp": True,
        },
    }
)
"""Preset → option (as click names it) → value; an option that the user gives wins."""


@dataclass(frozen=True)
class BagSettings:
    """Where bags come from.

    Attributes
    ----------
    store, features, grid, selection
        Of the store; features and grid may be None where it has only one. ``{fold}`` in the selection's name stands
        for the number of a fold.
    labels
        Path of the label table.
    bags_csv
        A table of bags (label, bag, features…) instead of store and labels.
    bag_level
        What a bag is.
    allow_incomplete
        Take slides whose features are not complete, with the tiles that they have.
    """

    store: str | None = None
    features: str | None = None
    grid: str | None = None
    labels: str | None = None
    bags_csv: str | None = None
    selection: str | None = None
    bag_level: BagLevel = "slide"
    allow_incomplete: bool = False

    def of_fold(self, fold: int) -> BagSettings:
        """Return the settings of one fold: ``{fold}`` in the selection's name stands for its number."""
        name = self.selection
        return self if name is None else replace(self, selection=name.replace("{fold}", str(fold)))


@dataclass(frozen=True)
class SplitSettings:
    """How bags are split.

    Attributes
    ----------
    files
        Split tables, one a fold; empty makes folds by patient.
    folds, repeats, val_fraction
        Of the folds that are made: each repeat shuffles anew.
    fold, repeat
        The one that is trained.
    """

    files: tuple[str, ...] = ()
    folds: int = 5
    repeats: int = 1
    val_fraction: float = 0.2
    fold: int = 0
    repeat: int = 0


@dataclass(frozen=True)
class MilConfig:
    """One call of ``mil train`` or ``mil cv``, resolved.

    Attributes
    ----------
    command
        Which of the two.
    bags, splits, loss, fit, cluster
        Its parts.
    model, model_settings
        The slide model by name, and what of its config is not the default.
    balanced_sampling
        Draw training bags so that classes come equally often.
    bag_size
        Random tiles of a bag a training epoch; None takes all. Evaluation always takes all.
    batch_size
        Bags per optimizer step.
    l2_normalize
        Bring each tile's features to unit length.
    standardize
        Then bring each feature to mean 0 and standard deviation 1 over the training tiles.
    threshold
        How the threshold of the positive class is chosen, on validation bags; ``argmax`` chooses none.
    protocol
        ``published`` chooses epoch and threshold on the test fold, as the DSMIL authors' code does: leaky.
    preset
        Which preset gave the options that were not given.
    plot_every
        Epochs between pictures; 0 draws only at the end.
    tensorboard
        Whether to write event files.
    run_dir
        Where everything goes.
    """

    command: Literal["train", "cv"]
    bags: BagSettings
    model: str
    loss: LossSpec
    fit: FitSpec
    model_settings: tuple[tuple[str, Setting], ...] = ()
    splits: SplitSettings = field(default_factory=SplitSettings)
    balanced_sampling: bool = True
    bag_size: int | None = None
    batch_size: int = 1
    l2_normalize: bool = True
    standardize: bool = True
    threshold: ThresholdRule = "youden"
    protocol: Protocol = "strict"
    preset: str | None = None
    plot_every: int = 1
    tensorboard: bool = False
    run_dir: str = ""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)

    @property
    def leaky(self) -> bool:
        """Whether the test fold took part in choosing what it judges."""
        return self.protocol == "published"

    @property
    def label(self) -> str:
        """What plots and tables call a run of this: the model, and a warning where results are leaky."""
        return f"{self.model} · {LEAKY}" if self.leaky else self.model

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON-able mapping."""
        return {**asdict(self), "model_settings": dict(self.model_settings)}

    def for_fold(self, fold: int, repeat: int, run_dir: str) -> MilConfig:
        """Return the settings of one fold: each repeat has its own seed, from which all that is random follows."""
        return replace(
            self,
            command="train",
            fit=replace(self.fit, seed=self.fit.seed + repeat),
            splits=replace(self.splits, fold=fold, repeat=repeat),
            run_dir=run_dir,
        )
