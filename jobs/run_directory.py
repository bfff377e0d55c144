"""The directory that every run leaves: resolved config, log, metrics."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from store_schema.errors import StorageError
from store_schema.objects import LocalObjects


@dataclass(frozen=True)
class RunDirectory:
    """Files of one run.

    Attributes
    ----------
    path
        The directory; its name is the run's id.
    logger
        Writes to ``run.log``; one for each run, since several may share a worker process.
    """

    path: Path
    logger: logging.Logger

    @property
    def run_id(self) -> str:
        """Identifier of the run."""
        return self.path.name

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write ``metrics.json``."""
        write_whole(self.path / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: a kill or a full disk leaves the old one, never half of the new one.

    Raises
    ------
    StorageError
        It can't be written.
    """
    LocalObjects(path.parent).put(path.name, text.encode(errors="backslashreplace"))


def new_run_path(parent: Path, command: str) -> Path:
    """Choose the directory of a new run: sortable by time, unique also when two start in one second."""
    return parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{command}-{secrets.token_hex(2)}"


@contextmanager
def run_directory(path: Path, config: Mapping[str, Any]) -> Iterator[RunDirectory]:
    """Make a run's directory with its config, and log to it while the run lasts.

    Parameters
    ----------
    path
        Where; may exist already.
    config
        Resolved settings, JSON-able.

    Raises
    ------
    StorageError
        The directory can't be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        described = {"slidestream": version("slidestream"), **config}
        write_whole(
            path / "config.yaml", yaml.safe_dump(json.loads(json.dumps(described)), sort_keys=False)
        )
        # names of slides need not be valid text
        handler = logging.FileHandler(path / "run.log", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StorageError(
            f"The run directory {path} can't be written ({error.strerror}); choose another --run-dir."
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger(f"slidestream.{path.name}")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield RunDirectory(path, logger)
    finally:
        logger.removeHandler(handler)
        handler.close()
