"""The background cluster of this machine: one process, found again through a small state file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from jobs.run_config import ClusterSettings
from store_schema.errors import ClusterError

if TYPE_CHECKING:
    from dataflow.cluster import ClusterSpec

LOOPBACK: Final = "127.0.0.1"
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 20.0

_children: dict[int, subprocess.Popen[bytes]] = {}  # those that this process started itself


@dataclass(frozen=True)
class BackgroundSettings(ClusterSettings):
    """What the options of ``cluster start`` say.

    Attributes
    ----------
    host, dashboard_host
        Where scheduler and workers, and the dashboard, listen.
    """

    host: str = LOOPBACK
    dashboard_host: str = LOOPBACK

    def spec(self) -> ClusterSpec:
        """Return the shape of the cluster; jobs without a client have nobody but the scheduler to try them again."""
        return replace(
            super().spec(), host=self.host, dashboard_host=self.dashboard_host, task_retries=2
        )


@dataclass(frozen=True)
class BackgroundCluster:
    """What the state file says.

    Attributes
    ----------
    pid
        Of the process that holds scheduler and workers.
    scheduler, dashboard
        Their addresses.
    """

    pid: int
    scheduler: str
    dashboard: str


def state_dir() -> Path:
    """Return the folder of the state file and log: ``$SLIDESTREAM_STATE_DIR``, or the user's state folder."""
    if explicit := os.environ.get("SLIDESTREAM_STATE_DIR"):
        return Path(explicit)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "slidestream"


def _state_file() -> Path:
    return state_dir() / "cluster.json"


def log_file() -> Path:
    """Return the file that takes what the background processes print."""
    return state_dir() / "cluster.log"


def find() -> BackgroundCluster | None:
    """Return the running background cluster, or None; a state file that a dead one left is removed."""
    state = _recorded()
    if state is None or _alive(state.pid):
        return state
    _state_file().unlink(missing_ok=True)
    return None


def _recorded() -> BackgroundCluster | None:
    """Read the state file, whether its cluster lives or not."""
    try:
        return BackgroundCluster(**json.loads(_state_file().read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"The state file {_state_file()} can't be read ({error}); remove it, or set SLIDESTREAM_STATE_DIR."
        ) from error


def background_address() -> str:
    """Return the scheduler address of the running background cluster.

    Raises
    ------
    ClusterError
        None is running.
    """
    recorded = _recorded()
    state = find()
    if state is not None:
        return state.scheduler
    happened = (
        "No background cluster is running"
        if recorded is None
        else f"The background cluster at {recorded.scheduler} is gone, and its jobs with it (what they stored is kept)"
    )
    raise ClusterError(
        f"{happened}; start one with `slidestream cluster start`, or pass --scheduler."
    )


def start(settings: BackgroundSettings) -> BackgroundCluster:
    """Start the background cluster and wait until it answers.

    Raises
    ------
    ClusterError
        One is running already, it did not come up, or other machines could reach it without TLS.
    """
    if (running := find()) is not None:
        raise ClusterError(
            f"A background cluster runs already at {running.scheduler}; stop it first."
        )
    if settings.host != LOOPBACK:
        from dataflow.cluster import check_host

        check_host(settings.host)
    command = [sys.executable, "-m", "jobs.background_cluster", json.dumps(asdict(settings))]
    with _opened_log() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    _children[process.pid] = process
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if (state := find()) is not None:
            return state
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.terminate()
    raise ClusterError(f"The background cluster did not start; see {log_file()}.")


def _opened_log() -> BinaryIO:
    try:
        state_dir().mkdir(parents=True, exist_ok=True)
        return log_file().open("ab")
    except OSError as error:
        raise ClusterError(
            f"The state folder {state_dir()} can't be made or written ({error.strerror}); "
            "set SLIDESTREAM_STATE_DIR to another."
        ) from error


def stop() -> BackgroundCluster | None:
    """Stop the background cluster; return what was stopped, or None when none was running."""
    state = find()
    if state is None:
        return None
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while _alive(state.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    if _alive(state.pid):
        os.killpg(state.pid, signal.SIGKILL)
    _state_file().unlink(missing_ok=True)
    return state


def _alive(pid: int) -> bool:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:  # started by this very process: reap it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def serve(settings: BackgroundSettings) -> None:
    """Hold a cluster until SIGTERM; the body of the background process."""
    from dataflow.cluster import embedded_cluster

    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    with embedded_cluster(settings.spec()) as cluster:
        state = BackgroundCluster(os.getpid(), cluster.scheduler_address, cluster.dashboard_link)
        partial = _state_file().with_suffix(".partial")
        partial.write_text(json.dumps(asdict(state)))
        partial.replace(_state_file())
        try:
            while not stopping:
                time.sleep(0.2)
        finally:
            _state_file().unlink(missing_ok=True)


if __name__ == "__main__":
    serve(BackgroundSettings(**json.loads(sys.argv[1])))
