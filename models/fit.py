"""The training loop that all model jobs share: epochs, schedule, early stopping, best and last checkpoint, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import load_weights, write_tensors
from models.determinism import autocast_precision, repeatable, resolve_device
from models.fit_spec import B, EpochRecord, FitObserver, FitResult, FitSpec, Trainable
from models.fit_state import FitState, read_state_file, write_state_file
from models.precision import DeviceType, Precision, arithmetic
from store_schema.errors import ModelError

__all__ = [
    "EpochRecord",
    "FitObserver",
    "FitResult",
    "FitSpec",
    "Trainable",
    "checkpoint_paths",
    "fit",
]

# Looking at a loss waits for the GPU; one look at many batches costs nothing and still stops a
# diverged training soon.
_LOOK_EVERY: Final = 50


def checkpoint_paths(directory: Path) -> tuple[Path, Path]:
    """Return the paths of the best weights and of the resumable last state."""
    return directory / "model.safetensors", directory / "last.safetensors"


def fit(
    job: Trainable[B],
    spec: FitSpec,
    directory: Path,
    observers: Sequence[FitObserver] = (),
    resume: bool = True,
) -> FitResult:
    """Train a job's model with AdamW, and leave the best epoch's weights in it.

    After every epoch ``last.safetensors`` holds all that a resume needs, after every best one
    ``model.safetensors`` the weights. A training that was stopped at any moment and resumed ends in
    the same bits as one that was not, on the same device.

    Parameters
    ----------
    job
        What is trained; its model is moved to the device.
    spec
        How.
    directory
        Of the checkpoints; made if need be.
    observers
        Told of every epoch that this call trains, not of those before a resume: they are in the
        result's history.
    resume
        Go on from the directory's checkpoint, if there is one; else start over.

    Raises
    ------
    ModelError
        If a loss or the monitored value is not finite or missing, or the checkpoint is of other
        settings or another model.
    DeviceError
        If ``cuda`` is asked for and there is none.
    """
    directory.mkdir(parents=True, exist_ok=True)
    best_path, last_path = checkpoint_paths(directory)
    device = resolve_device(spec.device)
    with repeatable(device, spec.threads):
        loop = _Loop(job, spec, device)
        state = FitState()
        if resume and last_path.exists():
            state = read_state_file(last_path, job, spec, loop.optimizer, loop.scaler)
        else:
            last_path.unlink(missing_ok=True)
        while not state.is_over(spec):
            record = loop.epoch(state)
            # in this order: killed in between, the epoch is repeated and writes the same weights
            if record.is_best:
                write_tensors(best_path, job.model.state_dict())
            state = state.after(record, spec, best_path)
            write_state_file(last_path, state, job, spec, loop.optimizer, loop.scaler)
            for observer in observers:
                observer.on_epoch(record)
        state.check_best(best_path, last_path)
        load_weights(job.model, best_path)
        job.model.eval()
    return state.result(spec)


class _Loop:
    """One epoch after another of a job on a device."""

    def __init__(self, job: Trainable[Any], spec: FitSpec, device: torch.device) -> None:
        self.job = job
        self.spec = spec
        self.device_type: DeviceType = "cuda" if device.type == "cuda" else "cpu"
        self.precision: Precision = autocast_precision(device) if spec.amp else "fp32"
        job.model.to(device)
        # fused: a slide model's step is as long as its forward and backward pass otherwise
        self.optimizer = torch.optim.AdamW(
            job.model.parameters(), lr=spec.lr, weight_decay=spec.weight_decay, fused=True
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def epoch(self, state: FitState) -> EpochRecord:
        """Train and validate the epoch that follows ``state``."""
        started = time.perf_counter()
        epoch = len(state.history)
        seed = np.random.SeedSequence([self.spec.seed, epoch]).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0]))
        values = {f"train_{name}": mean for name, mean in self._train(epoch).items()}
        self.job.model.eval()
        with torch.no_grad(), arithmetic(self.precision, self.device_type):
            values.update(self.job.validate(epoch))
        monitored = self._monitored(values, epoch)
        if "val_loss" in values and "train_loss" in values:
            values["loss_gap"] = values["val_loss"] - values["train_loss"]
        values["lr"] = float(self.optimizer.param_groups[0]["lr"])
        values["seconds"] = time.perf_counter() - started
        past = [record.values for record in state.history]
        return EpochRecord(
            epoch,
            values,
            is_best=self.spec.better(monitored, state.best_value),
            warnings=tuple(self.job.warnings([*past, values])),
        )

    def _train(self, epoch: int) -> dict[str, float]:
        self.job.model.train()
        n_batches = self.job.n_batches()
        terms: dict[str, list[Tensor]] = {}
        looked = 0
        for number, batch in enumerate(self.job.batches(epoch)):
            factor = self.spec.lr_factor(epoch * n_batches + number, n_batches)
            for group in self.optimizer.param_groups:
                group["lr"] = self.spec.lr * factor
            with arithmetic(self.precision, self.device_type):
                losses = self.job.loss(batch)
            self._step(losses["loss"])
            for name, value in losses.items():
                terms.setdefault(name, []).append(value.detach().float())
            if len(terms["loss"]) - looked == _LOOK_EVERY:
                _check_finite(terms["loss"][looked:], epoch, looked)
                looked += _LOOK_EVERY
        if not terms:
            raise ModelError("There is nothing to train on: an epoch has no batches.")
        _check_finite(terms["loss"][looked:], epoch, looked)
        return {name: float(torch.stack(values).mean()) for name, values in terms.items()}

    def _step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.spec.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.job.model.parameters(), self.spec.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _monitored(self, values: Mapping[str, float], epoch: int) -> float:
        name = self.spec.monitor
        if name not in values:
            raise ModelError(
                f"The validation gives no {name}, which is to choose the epoch (there are "
                f"{', '.join(sorted(values))}): monitor one of these, or validate on data that define it."
            )
        if not math.isfinite(values[name]):
            raise ModelError(
                f"{name} is {values[name]} after epoch {epoch + 1}: lower the learning rate, or clip gradients."
            )
        return values[name]


def _check_finite(losses: Sequence[Tensor], epoch: int, first_batch: int) -> None:
    if not losses:
        return
    finite = torch.isfinite(torch.stack(list(losses))).tolist()
    if not all(finite):
        batch = first_batch + finite.index(False)
        raise ModelError(
            f"The loss is not finite in epoch {epoch + 1}, batch {batch + 1}: lower the learning "
            "rate, clip gradients, or look for damaged values in the data."
        )
