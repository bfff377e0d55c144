"""The background cluster: found again, on loopback only, stopped without a trace."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import dask
import psutil
import pytest
from distributed import Client

from dataflow.cluster import (
    ClusterSpec,
    answering,
    dashboard_link,
    embedded_cluster,
    require_gpu_workers,
)
from dataflow.executors import DaskExecutor
from jobs import background_cluster
from jobs.detached import JobRecord, list_jobs
from store_schema.errors import ClusterError


class Answer(Protocol):
    code: int
    out: str
    err: str


def test_start_status_stop(
    slidestream: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLIDESTREAM_STATE_DIR", str(tmp_path))
    assert slidestream("cluster", "status").code == 1
    started = slidestream("cluster", "start", "--workers", 1, "--dashboard-port", 0, "--json")
    assert started.code == 0, started.err
    state = json.loads(started.out)
    try:
        process = psutil.Process(state["pid"])
        listening = [
            connection.laddr.ip
            for each in [process, *process.children(recursive=True)]
            for connection in each.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(listening) >= 3, "scheduler, dashboard and worker listen somewhere"
        assert set(listening) == {"127.0.0.1"}

        status = json.loads(slidestream("cluster", "status", "--json").out)
        assert status["scheduler"] == state["scheduler"]
        assert [worker["threads"] >= 1 for worker in status["workers"].values()] == [True]

        again = slidestream("cluster", "start")
        assert again.code == 1
        assert "runs already" in again.err
    finally:
        stopped = slidestream("cluster", "stop")
    assert stopped.code == 0, stopped.err
    assert not psutil.pid_exists(state["pid"])
    assert slidestream("cluster", "stop").code == 1
    assert slidestream("jobs", "list").code == 1


def test_a_state_file_of_a_dead_cluster_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLIDESTREAM_STATE_DIR", str(tmp_path))
    (tmp_path / "cluster.json").write_text(
        json.dumps({"pid": 2**22 - 1, "scheduler": "tcp://127.0.0.1:1", "dashboard": "-"})
    )
    assert background_cluster.find() is None
    assert not (tmp_path / "cluster.json").exists()


def test_jobs_of_a_cluster_that_died(
    slidestream: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLIDESTREAM_STATE_DIR", str(tmp_path))
    (tmp_path / "cluster.json").write_text(
        json.dumps({"pid": 2**22 - 1, "scheduler": "tcp://127.0.0.1:1", "dashboard": "-"})
    )
    first, second = (slidestream("jobs", "list") for _ in range(2))
    assert (first.code, second.code) == (1, 1)
    assert "tcp://127.0.0.1:1 is gone" in first.err
    assert "No background cluster is running" in second.err
    for answer in (first, second):
        assert "cluster start" in answer.err
        assert "--detach" not in answer.err


def test_a_state_folder_that_cant_be_used(
    slidestream: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SLIDESTREAM_STATE_DIR", str(tmp_path / "file" / "state"))
    assert slidestream("cluster", "status").code == 1
    answer = slidestream("cluster", "start")
    assert answer.code == 1
    assert "SLIDESTREAM_STATE_DIR" in answer.err
    assert "Traceback" not in answer.err

    monkeypatch.setenv("SLIDESTREAM_STATE_DIR", str(tmp_path))
    (tmp_path / "cluster.json").write_text("{")
    answer = slidestream("jobs", "list")
    assert answer.code == 1
    assert "remove it" in answer.err


def test_a_scheduler_that_goes_away_is_said_in_a_sentence() -> None:
    with (
        embedded_cluster(ClusterSpec(1, 1, dashboard_port=0)) as cluster,
        Client(cluster.scheduler_address, set_as_default=False, timeout="1s") as client,
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
    ):
        assert DaskExecutor(client).window > 1
        cluster.close()
        with pytest.raises(ClusterError, match="does not answer any more"):
            dashboard_link(client)
        while client.status not in ("closing", "closed"):  # it gives up by itself
            time.sleep(0.1)
        for ask in (
            lambda: DaskExecutor(client).window,
            lambda: dashboard_link(client),
            lambda: require_gpu_workers(client),
            lambda: DaskExecutor(client).submit("index", abs, -1, gpu=False),
            lambda: client_jobs(client),
        ):
            with pytest.raises(ClusterError, match="does not answer any more"):
                ask()


def client_jobs(client: Client) -> list[JobRecord]:
    with answering(client):
        return list_jobs(client)
