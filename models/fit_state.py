"""What a training remembers from epoch to epoch, and the one file that holds it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from models.checkpoint import read_tensors, shape_differences, write_tensors
from models.fit_spec import B, EpochRecord, FitResult, FitSpec, Trainable
from models.weights import file_digest
from store_schema.errors import ModelError, SettingsConflictError


@dataclass(frozen=True)
class FitState:
    """How far a training has come.

    Attributes
    ----------
    history
        One record a finished epoch.
    best_epoch, best_value
        So far; None before the first epoch.
    best_digest
        Of the file with the best epoch's weights, so that no others are taken for them.
    """

    history: tuple[EpochRecord, ...] = ()
    best_epoch: int | None = None
    best_value: float | None = None
    best_digest: str | None = None

    def after(self, record: EpochRecord, spec: FitSpec, best_path: Path) -> FitState:
        """Return the state after one more epoch; if that is the best, its weights are at ``best_path``."""
        history = (*self.history, record)
        if record.is_best:
            value = record.values[spec.monitor]
            return FitState(history, record.epoch, value, file_digest(best_path))
        return replace(self, history=history)

    def check_best(self, best_path: Path, last_path: Path) -> None:
        """Raise ModelError unless the best epoch's weights are as they were written."""
        if not best_path.is_file() or file_digest(best_path) != self.best_digest:
            raise ModelError(
                f"{best_path} does not hold the weights of epoch {self.best_epoch} any more: restore it, or remove "
                f"{last_path} and run the same command again to train anew."
            )

    def out_of_patience(self, spec: FitSpec) -> bool:
        """Tell whether too many epochs went by without a better one."""
        if spec.patience is None or self.best_epoch is None:
            return False
        return self.history[-1].epoch - self.best_epoch >= spec.patience

    def is_over(self, spec: FitSpec) -> bool:
        """Tell whether there is nothing left to train."""
        return len(self.history) >= spec.epochs or self.out_of_patience(spec)

    def result(self, spec: FitSpec) -> FitResult:
        """Return what a finished training came to."""
        if self.best_epoch is None or self.best_value is None:
            raise ValueError("no epoch is finished")
        early = len(self.history) < spec.epochs
        return FitResult(self.best_epoch, self.best_value, self.history, stopped_early=early)


def read_history(last_path: Path) -> tuple[EpochRecord, ...]:
    """Return the finished epochs that a ``last.safetensors`` tells of.

    Raises
    ------
    ModelError
        If the file is missing, damaged, or a pickle.
    """
    return _history(read_tensors(last_path)[1])


def write_state_file(
    path: Path,
    state: FitState,
    job: Trainable[B],
    spec: FitSpec,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write everything that a resume needs as one object."""
    tensors = {f"model.{name}": tensor for name, tensor in job.model.state_dict().items()}
    for number, entries in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{number}.{name}": entry for name, entry in entries.items()})
    tensors.update({f"job.{name}": tensor for name, tensor in job.state().items()})
    metadata = {
        "settings": _settings(job, spec),
        "history": [asdict(record) for record in state.history],
        "best_epoch": state.best_epoch,
        "best_value": state.best_value,
        "best_digest": state.best_digest,
        "scaler": scaler.state_dict(),
    }
    write_tensors(path, tensors, metadata)


def read_state_file(
    path: Path,
    job: Trainable[B],
    spec: FitSpec,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> FitState:
    """Bring model, optimizer, scaler and job to where a training stopped.

    Raises
    ------
    SettingsConflictError
        If the file is of other settings or another model; the differences are named.
    ModelError
        If the file is damaged, or a pickle.
    """
    tensors, metadata = read_tensors(path)
    if "settings" not in metadata:
        raise ModelError(f"{path} is no state of a training: remove it, or choose another folder.")
    saved = dict(_flat(metadata["settings"]))
    asked = dict(_flat(_settings(job, spec)))
    differences = [
        f"{name} is {_shown(asked, name)}, was {_shown(saved, name)}"
        for name in sorted(saved.keys() | asked.keys())
        if _shown(saved, name) != _shown(asked, name)
    ] or shape_differences(_below(tensors, "model."), job.model.state_dict())
    if differences:
        raise SettingsConflictError(
            f"The training in {path.parent} was begun otherwise ({'; '.join(differences)}): use its "
            "settings, choose another folder, or start over without resuming."
        )
    job.model.load_state_dict(_below(tensors, "model."))
    job.load_state(_below(tensors, "job."))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        number, _, key = name.partition(".")
        moments.setdefault(int(number), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    scaler.load_state_dict(cast("dict[str, Any]", metadata["scaler"]))
    return FitState(
        _history(metadata),
        cast("int | None", metadata["best_epoch"]),
        cast("float | None", metadata["best_value"]),
        cast("str | None", metadata.get("best_digest")),
    )


def _settings(job: Trainable[B], spec: FitSpec) -> dict[str, object]:
    return {**asdict(spec), "job": dict(job.settings())}


def _history(metadata: Mapping[str, object]) -> tuple[EpochRecord, ...]:
    records = cast("list[dict[str, Any]]", metadata["history"])
    return tuple(EpochRecord(**{**r, "warnings": tuple(r["warnings"])}) for r in records)


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _shown(settings: Mapping[str, object], name: str) -> str:
    # as JSON: what was a tuple comes back as a list
    return json.dumps(settings[name]) if name in settings else "not set"
