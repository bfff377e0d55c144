"""The files of a training's run directory besides weights: settings that must not change, metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from store_schema.errors import InputError, SettingsConflictError

METRICS: Final = "metrics.json"
_SHOWN: Final = 4


def check_same_settings(directory: Path, config: Mapping[str, Any], free: tuple[str, ...]) -> None:
    """Refuse a directory that was begun with other settings.

    Parameters
    ----------
    directory
        Of a run; may not exist yet.
    config
        The settings asked for now, JSON-able.
    free
        Starts of the names (parts joined by dots) that may differ, since no result follows from them.

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
        if stored.get(key) != asked.get(key)
        and not key.startswith(("slidestream", "run_dir", *free))
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
