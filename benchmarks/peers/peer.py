"""The peers: what is installed for each, which settings are tried, and how an adapter is called."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.peers.adapters.job import Answer, Job

_INSTALL_TIMEOUT_S: Final = 3600
_REPOSITORY: Final = Path(__file__).resolve().parents[2]


class PeerError(Exception):
    """A peer can't be installed or run; the table says so."""


class PeerTimeoutError(PeerError):
    """A peer took longer than it may, or hangs."""


@dataclass(frozen=True)
class Peer:
    """Another tool.

    Attributes
    ----------
    name
        Of the tool, and of its adapter: ``adapters/<name>_flow.py``.
    packages
        What is installed, readers that the tool can use included.
    readers
        Names of its readers, as the tool spells them, all of which are tried.
    """

    name: str
    packages: tuple[str, ...]
    readers: tuple[str, ...]


PEERS: Final = (
    Peer(
        "lazyslide",
        ("lazyslide", "fastslide", "tiffslide", "cucim-cu12"),
        ("openslide", "fastslide", "tiffslide", "cucim"),
    ),
    Peer("slide2vec", ("slide2vec", "openslide-bin"), ("openslide", "cucim", "tifffile")),
    Peer("tiatoolbox", ("tiatoolbox",), ("default",)),
)


@dataclass(frozen=True)
class Setting:
    """How a peer is run.

    Attributes
    ----------
    reader
        One of the peer's.
    num_workers
        Processes of its DataLoader.
    threads
        Of torch in the main process; 0 is torch's default, all cores.
    batch_size
        Tiles a batch.
    """

    reader: str
    num_workers: int
    threads: int
    batch_size: int

    def __str__(self) -> str:
        threads = f", {self.threads} torch thread" if self.threads else ""
        return f"{self.reader}, {self.num_workers} workers{threads}, batches of {self.batch_size}"


def settings_of(
    peer: Peer, n_cores: int, batch_size: int, readers: Sequence[str] = ()
) -> list[Setting]:
    """Return what is tried: each reader (or those named) with 0, n - 1 and n workers."""
    workers = sorted({0, max(1, n_cores - 1), n_cores})
    return [
        Setting(reader, n, threads, batch_size)
        for reader in peer.readers
        if not readers or reader in readers
        for n in workers
        for threads in ((0,) if n == 0 else (0, 1))
    ]


def environment(peer: Peer, folder: Path) -> Path:
    """Return the Python of a peer's environment, made with uv (or venv and pip) unless it is there.

    Raises
    ------
    PeerError
        It can't be installed; says the installer's last line.
    """
    place = folder / f"env_{peer.name}"
    python = python_of(place)
    if python.is_file() and (place / "complete").is_file():
        return python
    uv = shutil.which("uv")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if uv is not None:
        _install([uv, "venv", "--quiet", "--clear", "--python", here, str(place)])
        _install([uv, "pip", "install", "--quiet", "--python", str(python), *peer.packages])
    else:
        _install([sys.executable, "-m", "venv", "--clear", str(place)])
        _install([str(python), "-m", "pip", "install", "--quiet", *peer.packages])
    (place / "complete").touch()
    return python


def python_of(place: Path) -> Path:
    """Return the interpreter of an environment."""
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run_job(peer: Peer, python: Path, job: Job, scratch: Path, timeout_s: float) -> Answer:
    """Run a peer's adapter in a process of its own.

    Raises
    ------
    PeerError
        It failed or took too long; says its last line.
    """
    asked, answered = scratch / "job.json", scratch / "answer.json"
    asked.write_text(job.to_json())
    answered.unlink(missing_ok=True)
    module = f"benchmarks.peers.adapters.{peer.name}_flow"
    command = [str(python), "-m", module, str(asked), str(answered)]
    # a session of its own: a peer that hangs is ended with the processes that it started
    process = subprocess.Popen(
        command,
        cwd=scratch,  # some write logs where they are
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise PeerTimeoutError(f"took longer than {timeout_s:.0f} s") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0 or not answered.is_file():
        raise PeerError(_last_line(said) or f"ended with {process.returncode}")
    return Answer(**json.loads(answered.read_text()))


def _install(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError("the installation took longer than an hour") from error
    if done.returncode != 0:
        raise PeerError(f"not installed: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
