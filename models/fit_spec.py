"""How a training is set up, and what its epochs and its end look like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from store_schema.errors import InputError

B = TypeVar("B")


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
        Autocast: bfloat16 on CPU and on CUDA devices that have it, else float16 with a scaler.
    device
        ``auto``, ``cpu`` or ``cuda``.
    threads
        CPU threads of torch while training: the bits depend on it, so it is part of the settings.
    seed
        Of everything random. Each epoch is seeded by (seed, epoch): a resumed training repeats no state.

    Raises
    ------
    InputError
        If a number makes no sense.
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

    def __post_init__(self) -> None:
        least = {"epochs": self.epochs, "threads": self.threads, "patience": self.patience}
        for name, value in least.items():
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: give 1 or more.")
        above = {"lr": self.lr, "grad_clip": self.grad_clip}
        for name, number in above.items():
            if number is not None and not (math.isfinite(number) and number > 0):
                raise InputError(f"{name} is {number}: give a number above 0.")
        if min(self.weight_decay, self.warmup_epochs, self.seed) < 0:
            raise InputError("weight_decay, warmup_epochs and seed can't be negative.")

    def epoch_rng(self, epoch: int) -> np.random.Generator:
        """Return the epoch's own numpy generator, the same every time."""
        return np.random.default_rng([self.seed, epoch])

    def lr_factor(self, step: int, batches_an_epoch: int) -> float:
        """Return what the learning rate is multiplied with in a step, from 0, of the whole training."""
        warmup = round(self.warmup_epochs * batches_an_epoch)
        if step < warmup:
            return (step + 1) / warmup
        past = (step - warmup) / max(1, self.epochs * batches_an_epoch - warmup)
        return 0.5 * (1 + math.cos(math.pi * past))

    def better(self, value: float, than: float | None) -> bool:
        """Tell whether a monitored value beats the best so far."""
        if than is None:
            return True
        return value < than if self.mode == "min" else value > than


@dataclass(frozen=True)
class EpochRecord:
    """What happened in one epoch.

    Attributes
    ----------
    epoch
        From 0.
    values
        ``train_<term>`` of every loss term, what ``validate`` said, ``loss_gap`` (``val_loss`` less
        ``train_loss``, where there are both), ``lr`` (of the last step), ``seconds``.
    is_best
        Whether the monitored value is the best so far.
    warnings
        Sentences of the diagnostics that hold now. What stands before the colon does not change from
        epoch to epoch.
    """

    epoch: int
    values: Mapping[str, float]
    is_best: bool
    warnings: tuple[str, ...] = ()


class Trainable(Protocol, Generic[B]):
    """What a model job gives the loop.

    ``batches`` and everything random in it must follow from (seed, epoch) alone.
    """

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        ...

    def settings(self) -> Mapping[str, object]:
        """Return what must be the same for a resume to make sense (settings, data), as JSON."""
        ...

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
        """Judge the model after an epoch; also returns what to log of the epoch.

        The loop has put the model into eval mode, and turned gradients off and autocast on.
        """
        ...

    def warnings(self, history: Sequence[Mapping[str, float]]) -> Sequence[str]:
        """Return sentences about what the values of all epochs so far show, the latest last."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """Return what a resume needs besides model and optimizer; may be empty."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` returned."""
        ...


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
