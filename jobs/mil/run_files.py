"""The files of a training's run directory besides weights: settings that must not change, history, metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from jobs.run_directory import write_whole
from store_schema.errors import InputError, SettingsConflictError

if TYPE_CHECKING:
    from models.fit import EpochRecord

HISTORY: Final = "history.jsonl"
METRICS: Final = "metrics.json"
PREDICTIONS: Final = "predictions.csv"
SPLITS: Final = "splits.csv"
TWO_PASS: Final = "two_pass.json"

# what a run directory may be entered again with, since no result follows from it; splits are compared as such
_FREE: Final = (
    "slidestream", "run_dir", "cluster.", "plot_every", "tensorboard", "preset", "command",
    "splits.files", "splits.fold", "splits.repeat",
)  # fmt: skip
_SHOWN: Final = 4


def check_same_settings(directory: Path, config: Mapping[str, Any]) -> None:
    """Refuse a directory that was begun with other settings.

    Parameters
    ----------
    directory
        Of a run; may not exist yet.
    config
        The settings asked for now, JSON-able.

    Raises
    ------
    SettingsConflictError
        There are differences; the sentence names them.
    InputError
        The directory's config.yaml can't be read.
    """
    path = directory / "config.yaml"
    if not path.exists():
        return
    try:
        loaded = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} can't be read; choose another --run-dir.") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path} holds no settings: restore it, or choose another --run-dir.")
    stored = dict(_flat(loaded))
    asked = dict(_flat(json.loads(json.dumps(config))))
    differences = [
        f"{key} was {stored.get(key)!r} and is now {asked.get(key)!r}"
        for key in sorted(stored.keys() | asked.keys())
        if stored.get(key) != asked.get(key) and not key.startswith(_FREE)
    ]
    if differences:
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise SettingsConflictError(
            f"The run {directory} was begun with other settings: {'; '.join(differences[:_SHOWN])}{more}. "
            "Repeat them, or choose another --run-dir."
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


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


def read_metrics(directory: Path) -> dict[str, Any] | None:
    """Return the metrics of a run of ours, None where there are none yet.

    Raises
    ------
    InputError
        The file is damaged.
    """
    path = directory / METRICS
    if not path.exists():
        return None
    try:
        loaded = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read; remove it and run the command again.") from error
    return loaded if isinstance(loaded, dict) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
