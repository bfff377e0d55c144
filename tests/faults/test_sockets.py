"""Who may come in: sockets listen on 127.0.0.1 unless told otherwise, and then they ask for TLS."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import dask
import psutil
import pytest
from distributed import Client
from distributed.security import Security

from dataflow.cluster import ClusterSpec, connect_to, embedded_cluster, is_loopback
from dataflow.executors import DaskExecutor
from dataflow.receipts import BlockReceipt
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver
from store_schema.errors import ClusterError
from store_schema.store import create_store

ROLES = ("scheduler", "worker", "client")
_TLS_ALERT = b"\x15"
Listening = set[tuple[str, int]]


def listening(pid: int | None = None) -> Listening:
    """Return address and port of each listening TCP socket of a process and its descendants."""
    process = psutil.Process(pid)
    return {
        (connection.laddr.ip, connection.laddr.port)
        for each in [process, *process.children(recursive=True)]
        for connection in each.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


class Watching(StreamObserver):
    """Looks at the sockets while blocks are done."""

    def __init__(self) -> None:
        self.found: Listening = set()

    def block(self, receipt: BlockReceipt) -> None:
        assert receipt.failure is None
        self.found |= listening()


def test_a_run_listens_on_loopback_only(
    cluster: Client, fault_run: ModuleType, tmp_path: Path, fault_counts: Callable[..., None]
) -> None:
    fault_run.make_slides(tmp_path / "slides", 1)
    store = str(tmp_path / "store.zarr")
    create_store(store)
    watching = Watching()
    spec = fault_run.stream_spec(store, fault_run.FaultModelFactory())
    run_stream(DaskExecutor(cluster), spec, fault_run.sources(tmp_path / "slides"), watching)
    # scheduler, dashboard, and of each worker: its nanny, itself, its pages
    assert len(watching.found) >= 2 + 3 * 2
    assert {address for address, _ in watching.found} == {"127.0.0.1"}
    scheduler = urlsplit(cluster.scheduler_info()["address"])
    assert not asks_for_tls(str(scheduler.hostname), scheduler.port or 0), "nothing would"
    fault_counts("sockets of a run beyond 127.0.0.1", tried=len(watching.found), detected=0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.0.1.1", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.5", False), ("example.org", False),
    ],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_refused_without_tls(
    host: str, slidestream: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match=r"TLS.*distributed\.comm"):
        embedded_cluster(ClusterSpec(1, 1, host=host)).__enter__()
    code, _, err = slidestream("cluster", "start", "--host", host, "--workers", 1)
    assert code == 1
    assert "require-encryption" in err
    assert "DASK_DISTRIBUTED__COMM__" in err
    assert not (tmp_path / "state" / "cluster.json").exists()


@pytest.mark.parametrize("lost", ["ca-file", "scheduler.cert", "worker.cert", "client.cert"])
def test_half_a_tls_setup_is_none(lost: str, tmp_path: Path) -> None:
    with tls(tmp_path) as files:
        (tmp_path / files[lost]).unlink()
        with pytest.raises(ClusterError, match=f"set tls.{lost} below"):
            embedded_cluster(ClusterSpec(1, 1, host="0.0.0.0")).__enter__()


@contextmanager
def tls(folder: Path, monkeypatch: pytest.MonkeyPatch | None = None) -> Iterator[dict[str, str]]:
    """Make a certificate and have Dask's settings ask for it, those of child processes too; setting → file."""
    folder.mkdir(exist_ok=True)
    made = Security.temporary()
    chosen: dict[str, object] = {"distributed.comm.require-encryption": True}
    files = {}
    for setting in ("ca-file", *(f"{r}.{k}" for r in ROLES for k in ("cert", "key"))):
        path = folder / f"{setting}.pem"
        path.write_text(getattr(made, "tls_" + setting.replace("-", "_").replace(".", "_")))
        chosen[f"distributed.comm.tls.{setting}"] = str(path)
        files[setting] = path.name
    if monkeypatch is not None:
        for key, value in chosen.items():
            name = "DASK_" + key.upper().replace(".", "__").replace("-", "_")
            monkeypatch.setenv(name, str(value))
    with dask.config.set(chosen):
        yield files


def outer_address() -> str:
    """Return an address of this machine that others may reach, or skip."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not is_loopback(each.address):
                return str(each.address)
    pytest.skip("this machine has no address but loopback")


def test_another_address_with_tls(
    slidestream: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault_counts: Callable[..., None],
) -> None:
    host = outer_address()
    with tls(tmp_path / "tls", monkeypatch):
        code, out, err = slidestream(
            "cluster", "start", "--host", host, "--workers", 1, "--threads", 1, "--dashboard-port", 0, "--json"
        )  # fmt: skip
        assert code == 0, err
        try:
            state = json.loads(out)
            assert state["scheduler"].startswith(f"tls://{host}:")
            assert state["dashboard"].startswith("http://127.0.0.1:")
            found = listening(state["pid"])
            outside = {(address, port) for address, port in found if address != "127.0.0.1"}
            assert {address for address, _ in outside} == {host}
            refused = sum(asks_for_tls(address, port) for address, port in outside)
            assert refused == len(outside) == 3, "scheduler, nanny and worker"

            client = connect_to(state["scheduler"])
            with client:
                assert client.submit(pow, 2, 5).result(timeout=60) == 32

            strangers = {"tls": Security.temporary(), "tcp": Security(require_encryption=False)}
            for scheme, stranger in strangers.items():
                address = state["scheduler"].replace("tls", scheme)
                with pytest.raises(OSError, match=r"imed out|losed|ertificate"):
                    Client(address, security=stranger, timeout="2s", set_as_default=False)
        finally:
            slidestream("cluster", "stop")
    (tmp_path / "scheduler.json").write_text(json.dumps({"address": state["scheduler"]}))
    for where in (state["scheduler"], str(tmp_path / "scheduler.json")):
        with pytest.raises(ClusterError, match="asks for TLS"):
            connect_to(where)
    tried = len(outside) + len(strangers)
    fault_counts("TLS: strangers at the door", tried=tried, detected=tried)


def asks_for_tls(host: str, port: int) -> bool:
    """Tell whether a server has nothing but a TLS alert for somebody who just talks."""
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        try:
            reply = connection.recv(1)
        except ConnectionResetError:
            return True
        return reply in (b"", _TLS_ALERT)
