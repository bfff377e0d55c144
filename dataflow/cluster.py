"""Dask clusters: one embedded in a run, one in the background of this machine, or anybody's by address."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dask
import torch
from distributed import Client, LocalCluster
from distributed.client import ClosedClientError
from distributed.security import Security
from distributed.utils import silence_logging_cmgr

from store_schema.errors import ClusterError, DeviceError

LOOPBACK: Final = "127.0.0.1"
DASHBOARD_PORT: Final = 8787
_CORES_PER_WORKER: Final = 4  # torch scales well inside a process up to about here
_CONNECT_TIMEOUT: Final = "10s"
_TLS_FILES: Final = {  # of distributed's Security → of its settings; keys may be in the certificates' files
    "tls_ca_file": "ca-file",
    "tls_scheduler_cert": "scheduler.cert",
    "tls_worker_cert": "worker.cert",
    "tls_client_cert": "client.cert",
}


@dataclass(frozen=True)
class ClusterSpec:
    """Shape of a local cluster.

    Attributes
    ----------
    n_workers
        Worker processes; None chooses one a GPU, or one for every four cores.
    threads_per_worker
        Cores that each worker may keep busy; None shares the machine out.
    memory_limit
        Of each worker, as Dask spells it, e.g. ``8GiB``; ``auto`` shares the machine out.
    dashboard_port
        Port of the dashboard on 127.0.0.1; None takes 8787, or any free one when that is taken.
    preload
        Modules that workers load at their start, as Dask's ``--preload``.
    host
        Address that scheduler and workers listen on; one that other machines reach takes TLS in Dask's settings.
    dashboard_host
        Address that the dashboard listens on.
    task_retries
        How often the scheduler tries a task again whose worker died. It blames all tasks of a dead worker alike; the
        stream tries tasks again itself, and finds the one to blame.
    """

    n_workers: int | None = None
    threads_per_worker: int | None = None
    memory_limit: str = "auto"
    dashboard_port: int | None = None
    preload: tuple[str, ...] = ()
    host: str = LOOPBACK
    dashboard_host: str = LOOPBACK
    task_retries: int = 2


@contextmanager
def connect(scheduler: str | None, spec: ClusterSpec) -> Iterator[Client]:
    """Connect to a scheduler, or start an embedded cluster for the time of a run.

    Parameters
    ----------
    scheduler
        ``tcp://…``/``tls://…`` address, path of a scheduler file, or None for the embedded cluster.
    spec
        Shape of the embedded cluster; a scheduler of somebody else's has its own.

    Raises
    ------
    ClusterError
        The scheduler does not answer, or the scheduler file can't be read.
    """
    if scheduler is None:
        with embedded_cluster(spec) as cluster, Client(cluster, set_as_default=False) as client:
            yield client
    else:
        with connected(scheduler) as client:
            yield client


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """Connect to a running scheduler for a while; what Dask logs of lost connections is not shown: we say it.

    Parameters
    ----------
    scheduler
        Address or path of a scheduler file.
    """
    with silence_logging_cmgr(logging.CRITICAL):
        client = connect_to(scheduler)
        try:
            yield client
        finally:
            client.close()


def connect_to(scheduler: str) -> Client:
    """Return a client of a running scheduler.

    Parameters
    ----------
    scheduler
        Address or path of a scheduler file.
    """
    address = scheduler
    where: dict[str, str] = {"address": scheduler}
    if "://" not in scheduler and Path(scheduler).suffix == ".json":
        where = {"scheduler_file": scheduler}
        address = _address_in(Path(scheduler))
    if address.startswith("tls://") and not Security().get_connection_args("client")["ssl_context"]:
        raise ClusterError(
            f"The scheduler at {address} asks for TLS: give this machine the certificates too, as "
            "distributed.comm.tls.ca-file, client.cert and client.key of Dask's settings."
        )
    try:
        return Client(**where, timeout=_CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"No scheduler answers at {scheduler} ({type(error).__name__}); check the address, or leave "
            "--scheduler out to run on an embedded cluster."
        ) from error


def _address_in(scheduler_file: Path) -> str:
    try:
        return str(json.loads(scheduler_file.read_text())["address"])
    except FileNotFoundError as error:
        raise ClusterError(
            f"There is no scheduler file {scheduler_file}; start the scheduler first or give its address."
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ClusterError(
            f"The scheduler file {scheduler_file} can't be read ({error}); give the scheduler's address."
        ) from error


@contextmanager
def embedded_cluster(spec: ClusterSpec) -> Iterator[LocalCluster]:
    """Start workers of this machine, reachable from this machine only unless ``spec`` says otherwise.

    Parameters
    ----------
    spec
        Its shape.

    Raises
    ------
    ClusterError
        Other machines could reach it, and Dask's settings don't ask for TLS.
    """
    check_host(spec.host)
    n_workers, threads, resources = local_shape(spec)
    # when two clusters start at once, one loses the port and takes another; the link that we print is right
    warnings.filterwarnings("ignore", "Port [0-9]+ is already in use", UserWarning)
    port = spec.dashboard_port if spec.dashboard_port is not None else free_port(DASHBOARD_PORT)
    only_here = is_loopback(spec.host)
    with (
        dask.config.set(settings(spec)),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=threads,
            memory_limit=spec.memory_limit,
            host=spec.host,
            dashboard_address=f"{_bracketed(spec.dashboard_host)}:{port}",
            # workers have pages too, which nothing encrypts
            worker_dashboard_address=None if only_here else f"{LOOPBACK}:0",
            resources=resources,
            preload=list(spec.preload),
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield cluster


def settings(spec: ClusterSpec) -> dict[str, Any]:
    """Dask settings of a cluster that we start.

    A worker keeps its memory for decoded pixels and models, which Dask can't spill: ending at the limit is all that
    helps, and one that paused before could wait for ever for memory that nothing gives back. Work stealing would move
    blocks away from the worker that has their slide open. LocalCluster dismisses a worker that isn't there this long
    after it died, also where its nanny is just starting it again after another death: nannies are to see to that alone.

    Dask starts workers with a MALLOC_TRIM_THRESHOLD_ that has glibc give every batch's memory back to the system and
    ask for it again: the pages' faults cost a cheap model more than its computing. Left alone, glibc adapts.
    """
    chosen: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": spec.task_retries,
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
        "distributed.admin.tick.interval": "500ms",  # fifty a second cost more than the tasks
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.98,
        "distributed.comm.timeouts.connect": "30s",
        "distributed.deploy.lost-worker-timeout": "30 days",
    }
    if spec.dashboard_host != spec.host:
        host = _bracketed(spec.dashboard_host)
        chosen["distributed.dashboard.link"] = "{scheme}://" + host + ":{port}/status"
    return chosen


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_host(host: str) -> None:
    """Check that a cluster may listen there: whoever reaches a scheduler can run anything as its user.

    Raises
    ------
    ClusterError
        Other machines reach it, and Dask's settings don't ask for TLS, or lack files for it.
    """
    if is_loopback(host):
        return
    security = Security()
    lacking = [] if security.require_encryption else ["require-encryption: true"]
    for name, setting in _TLS_FILES.items():
        path = getattr(security, name)
        if path is None or not Path(path).is_file():
            lacking.append(f"tls.{setting}")
    if lacking:
        raise ClusterError(
            f"Whoever reaches a scheduler at {host} can run anything as this user, so it must ask for TLS: set "
            f"{', '.join(lacking)} below distributed.comm in a Dask configuration file, or as variables "
            "(DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION, DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …)."
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def local_shape(spec: ClusterSpec) -> tuple[int, int, dict[str, float]]:
    """Choose workers, threads per worker and resources for this machine."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus > 1:
        # one process a GPU needs CUDA_VISIBLE_DEVICES per worker, which LocalCluster can't give
        raise DeviceError(
            f"This machine has {gpus} GPUs; start one worker for each (dask-cuda's "
            "`dask cuda worker --resources GPU=1`) and pass its --scheduler, or choose one with CUDA_VISIBLE_DEVICES."
        )
    n_workers = spec.n_workers or (gpus or max(1, cores // _CORES_PER_WORKER))
    threads = spec.threads_per_worker or max(1, cores // n_workers)
    return n_workers, threads, {"GPU": 1.0} if gpus else {}


def free_port(wanted: int) -> int:
    """Return ``wanted`` when nobody listens there on 127.0.0.1, else 0 (any)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError:
            return 0
    return wanted


@contextmanager
def answering(client: Client) -> Iterator[None]:
    """Say in a sentence that the scheduler has gone; for calls of the client, which raise all sorts of things then.

    Raises
    ------
    ClusterError
        The scheduler does not answer any more.
    """
    if _is_closed(client):
        raise ClusterError(gone(client))
    try:
        yield
    except BrokenPipeError:  # nobody reads what we print; connections of Dask raise CommClosedError
        raise
    except (ClosedClientError, OSError) as error:  # CommClosedError and TimeoutError are OSErrors
        raise ClusterError(gone(client)) from error
    except (RuntimeError, KeyError) as error:  # what calls meet that the client is closed under
        if not _is_closed(client):
            raise
        raise ClusterError(gone(client)) from error


def _is_closed(client: Client) -> bool:
    """Whether the client gave up: it does so itself some seconds after its scheduler has gone."""
    return client.status in ("closing", "closed")


def gone(client: Client) -> str:
    """Return the sentence of a scheduler that went away."""
    where = client.scheduler.addr if client.scheduler is not None else "its address"
    return (
        f"The scheduler at {where} does not answer any more; what was stored is kept: with a scheduler that runs, "
        "the same command goes on from there."
    )


def dashboard_link(client: Client) -> str | None:
    """Return the dashboard's address, as the user's browser can open it.

    Raises
    ------
    ClusterError
        The scheduler does not answer any more.
    """
    with answering(client):
        link: str | None = client.dashboard_link
    return link


def require_gpu_workers(client: Client) -> None:
    """Check that tasks that need a GPU will find one.

    Raises
    ------
    DeviceError
        No worker has the ``GPU`` resource.
    ClusterError
        The scheduler does not answer any more.
    """
    with answering(client):
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not any(worker["resources"].get("GPU", 0) > 0 for worker in workers):
        raise DeviceError(
            "No worker of the cluster offers a GPU; start its workers with --resources GPU=1, or use --device cpu."
        )
