"""Dask preload of our own clusters: imports ahead of the first task, and Ctrl-C left to the client."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import threading
from typing import Any


def dask_setup(worker: Any) -> None:
    """Import in the background what takes seconds, while the client still plans; tasks wait for Python's import lock.

    A terminal sends Ctrl-C to the workers too. It is the client that ends them then; by themselves they would die with
    a traceback each.
    """
    in_own_process = multiprocessing.parent_process() is not None
    if in_own_process and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_import_all, name="import-ahead", daemon=True).start()


def _import_all() -> None:
    importlib.import_module("dataflow.stream")
    importlib.import_module("timm")
