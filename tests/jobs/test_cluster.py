"""The background cluster: found again, on loopback only, stopped without a trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from jobs import background_cluster


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
