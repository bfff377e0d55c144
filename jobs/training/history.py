"""A training's history: one line of JSON an epoch, which can be followed while it goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.run_directory import RunDirectory, write_whole
from store_schema.errors import InputError

if TYPE_CHECKING:
    from models.fit import EpochRecord

HISTORY: Final = "history.jsonl"


def record_line(record: EpochRecord) -> str:
    """Write an epoch as one line of JSON; values that are not finite become null."""
    values = {name: _finite(value) for name, value in record.values.items()}
    return json.dumps(
        {
            "epoch": record.epoch,
            "is_best": record.is_best,
            "values": values,
            "warnings": list(record.warnings),
        }
    )


def write_history(directory: Path, history: Iterable[EpochRecord]) -> None:
    """Write the whole history, one line an epoch."""
    write_whole(directory / HISTORY, "".join(f"{record_line(record)}\n" for record in history))


def read_history(directory: Path) -> list[dict[str, Any]]:
    """Return the epochs that ``history.jsonl`` holds, none where there is no such file.

    Raises
    ------
    InputError
        The file is damaged.
    """
    path = directory / HISTORY
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({error}): restore it, or remove it to go without its curves."
        ) from error


def column(history: Sequence[Mapping[str, Any]], name: str) -> list[float | None]:
    """Return one value by epoch."""
    return [epoch["values"].get(name) for epoch in history]


def begin_history(run: RunDirectory) -> int | None:
    """Bring history.jsonl to what the checkpoint says; return the first epoch that is to be trained, if not 0."""
    from models.fit import checkpoint_paths
    from models.fit_state import read_history as read_trained

    _, last = checkpoint_paths(run.path)
    history = read_trained(last) if last.exists() else ()
    write_history(run.path, history)
    if not history:
        return None
    run.logger.info("resumed after epoch %d", history[-1].epoch + 1)
    return history[-1].epoch + 1


def warnings_of(history: Iterable[EpochRecord]) -> list[dict[str, Any]]:
    """Return each warning once: its kind, its last sentence, the first and last epoch (from 0) that it held in."""
    found: dict[str, dict[str, Any]] = {}
    for record in history:
        for sentence in record.warnings:
            kind = sentence.partition(":")[0]
            entry = found.setdefault(kind, {"kind": kind, "first_epoch": record.epoch})
            entry |= {"last_epoch": record.epoch, "message": sentence}
    return list(found.values())


def warning_of_all_epochs(kind: str, message: str) -> dict[str, Any]:
    """Return a warning that is of no epoch, in the form of :func:`warnings_of`."""
    return {"kind": kind, "first_epoch": None, "last_epoch": None, "message": message}


def warning_text(warning: Mapping[str, Any], unit: str = "epoch") -> str:
    """Write a warning as people read it: epochs, or what they are called, count from 1."""
    if warning["first_epoch"] is None:
        return str(warning["message"])
    first, last = warning["first_epoch"] + 1, warning["last_epoch"] + 1
    return f"{unit}s {first} to {last}: {warning['message']}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
