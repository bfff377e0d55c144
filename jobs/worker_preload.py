"""Dask preload of our own clusters: workers import what takes seconds while the client still plans."""

from __future__ import annotations

import importlib
import threading
from typing import Any


def dask_setup(worker: Any) -> None:
    """Start the imports in the background; tasks that come earlier wait for Python's import lock."""
    threading.Thread(target=_import_all, name="import-ahead", daemon=True).start()


def _import_all() -> None:
    importlib.import_module("dataflow.stream")
    importlib.import_module("timm")
