"""The training loop that all model jobs share: epochs, schedule, early stopping, best and last checkpoint, resume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from torch import Tensor, nn

B = TypeVar("B")
B_contra = TypeVar("B_contra", contravariant=True)


@dataclass(frozen=True)
class FitSpec:
    """How a model is trained, whatever it is.

    Attributes
    ----------
    epochs
        At the most.
    lr, weight_decay
        Of AdamW.
    warmup_epochs
        Epochs over which the learning rate rises linearly from 0; then a cosine to 0.
    monitor, mode
        Which value of ``validate`` chooses the epoch, and whether less or more of it is better.
    patience
        Epochs without a better one after which training stops; None never stops early.
    grad_clip
        Largest norm of the gradient; None does not clip.
    amp
        Autocast (bfloat16 on CPU, float16 with a scaler or bfloat16 on CUDA).
    device
        ``auto``, ``cpu`` or ``cuda``.
    threads
        CPU threads of torch while training: the bits depend on it, so it is part of the settings.
    seed
        Of everything random. Each epoch is seeded by (seed, epoch): a resumed training repeats no state.
    """

    epochs: int = 50
    lr: float = 2e-4
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
    monitor: str = "val_loss"
    mode: Literal["min", "max"] = "min"
    patience: int | None = None
    grad_clip: float | None = None
    amp: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    seed: int = 0


class Trainable(Protocol, Generic[B]):
    """What a model job gives the loop.

    ``batches`` and everything random in it must follow from (seed, epoch) alone.
    """

    model: nn.Module

    def batches(self, epoch: int) -> Iterable[B]:
        """Yield the epoch's batches."""
        ...

    def n_batches(self) -> int:
        """Batches an epoch has: the schedule's unit."""
        ...

    def loss(self, batch: B) -> Mapping[str, Tensor]:
        """Return scalars; ``loss`` is minimised, others are averaged and logged."""
        ...

    def validate(self, epoch: int) -> Mapping[str, float]:
        """Judge the model (in eval mode, without gradients) after an epoch; also returns what to log of the epoch."""
        ...


@dataclass(frozen=True)
class EpochRecord:
    """What happened in one epoch.

    Attributes
    ----------
    epoch
        From 0.
    values
        ``train_<term>`` of every loss term, what ``validate`` said, ``lr``, ``seconds``.
    is_best
        Whether the monitored value is the best so far.
    warnings
        Sentences of the diagnostics.
    """

    epoch: int
    values: Mapping[str, float]
    is_best: bool
    warnings: tuple[str, ...] = ()


class FitObserver(Protocol):
    """Is told of every epoch: log, curves, TensorBoard, pictures."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Hear of a finished epoch, after its checkpoint is written."""
        ...


@dataclass(frozen=True)
class FitResult:
    """What training came to; the model holds the best epoch's weights.

    Attributes
    ----------
    best_epoch, best_value
        By ``FitSpec.monitor``.
    history
        One record an epoch, those before a resume included.
    stopped_early
        Whether patience ran out.
    """

    best_epoch: int
    best_value: float
    history: tuple[EpochRecord, ...]
    stopped_early: bool


def checkpoint_paths(directory: Path) -> tuple[Path, Path]:
    """Return the paths of the best weights and of the resumable last state."""
    return directory / "model.safetensors", directory / "last.safetensors"
