"""A store behind S3: the same run, broken off, through an outage, resumed; equal to a local one, object by object."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import fsspec
import numpy as np
import pytest
import xarray as xr
from botocore.session import get_session  # type: ignore[import-untyped]
from distributed import Client
from moto.server import ThreadedMotoServer

from dataflow.executors import DaskExecutor, SerialExecutor
from dataflow.receipts import BlockReceipt
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver
from store_schema.errors import StorageError
from store_schema.leftovers import remove_leftovers
from store_schema.objects import open_objects
from store_schema.store import create_store, open_store
from store_schema.validate import validate

STORE: Final = "s3://bucket/cohort.zarr"
N_SLIDES: Final = 2


@dataclass
class S3:
    """A server of this process; what it keeps outlives a stop."""

    port: int
    server: ThreadedMotoServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]

    def down(self) -> None:
        assert self.server is not None
        self.server.stop()


@pytest.fixture(scope="module")
def s3(cluster: Client, fault_run: ModuleType) -> Iterator[S3]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3(0)
    server.up()
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_MAX_ATTEMPTS": "1",
    }
    cluster.run(fault_run.set_environment, variables)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        get_session().create_client("s3").create_bucket(Bucket="bucket")
        yield server
    server.down()


class BreakingOff(StreamObserver):
    """Cancels after some blocks, or has the service go away then."""

    def __init__(self, after: int, then: Callable[[], None] | None = None) -> None:
        self.left, self.then = after, then

    def block(self, receipt: BlockReceipt) -> None:
        self.left -= 1
        if self.left == 0 and self.then is not None:
            self.then()

    def cancelled(self) -> bool:
        return self.left <= 0 and self.then is None


def test_a_run_on_s3(
    s3: S3,
    cluster: Client,
    fault_run: ModuleType,
    tmp_path: Path,
    fault_counts: Callable[..., None],
) -> None:
    fault_run.make_slides(tmp_path / "slides", N_SLIDES)
    slides, local = fault_run.sources(tmp_path / "slides"), str(tmp_path / "local.zarr")
    create_store(local)
    model = fault_run.FaultModelFactory()
    spec = fault_run.stream_spec(local, model)
    assert run_stream(SerialExecutor(), spec, slides, StreamObserver()).failures == []
    create_store(STORE)
    slow = fault_run.stream_spec(STORE, fault_run.FaultModelFactory(0.1))

    broken_off = run_stream(DaskExecutor(cluster), slow, slides, BreakingOff(2))
    assert broken_off.cancelled
    assert {found.code for found in validate(STORE)} <= {"missing-block", "missing-array"}

    outage = run_stream(DaskExecutor(cluster), slow, slides, BreakingOff(2, s3.down))
    assert outage.stopped is not None
    assert outage.stopped.reason == "storage"
    assert "\n" not in outage.stopped.message
    assert "run the same command again" in outage.stopped.message
    s3.up()
    done = sum(result.blocks_done for result in (*broken_off.slides, *outage.slides))
    assert {found.code for found in validate(STORE)} <= {"missing-block", "missing-array"}

    resumed = fault_run.run(cluster, tmp_path / "slides", STORE, model)
    assert resumed.failures == []
    assert done > 0
    again = sum(result.blocks_done for result in resumed.slides)
    assert again <= N_SLIDES * fault_run.BLOCKS_PER_SLIDE - done, "finished blocks were done again"
    assert validate(STORE) == []
    ours, theirs = open_objects(local), open_objects(STORE)
    assert ours.sizes("") == theirs.sizes("")
    for key in ours.sizes(""):
        if key != "zarr.json":  # it has the time in it
            assert ours.get(key) == theirs.get(key), key
    assert remove_leftovers(open_store(STORE, mode="r+"), min_age_s=0) == []

    grid = spec.grid_name
    expected = open_store(local)["s1"].tiles(grid).features.values
    np.testing.assert_array_equal(open_store(STORE)["s1"].tiles(grid).features.values, expected)
    plain = xr.open_zarr(
        STORE,
        group=f"s1/{grid}/features/colour",
        consolidated=False,
        storage_options={"endpoint_url": s3.url},
    )
    np.testing.assert_array_equal(plain.features.values, expected)
    fault_counts("S3: broken off, outage", tried=2, detected=2, recovered=2)


def test_one_of_many_creates_an_object(s3: S3, fault_counts: Callable[..., None]) -> None:
    objects = open_objects("s3://bucket/races")
    for race in range(10):
        with ThreadPoolExecutor(8) as pool:
            won = list(
                pool.map(objects.put_new, [f"k{race}"] * 8, map(bytes, [[i] for i in range(8)]))
            )
        assert sum(won) == 1
        assert objects.get(f"k{race}") == bytes([won.index(True)])
    fault_counts("S3: exclusive creation races", tried=10, recovered=10)


def test_what_s3_refuses_is_one_sentence(
    s3: S3,
    slidestream: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    fault_counts: Callable[..., None],
) -> None:
    with pytest.raises(StorageError, match="bucket does not exist"):
        create_store("s3://missing/cohort.zarr")
    code, _, err = slidestream("store", "show", "s3://missing/cohort.zarr")
    assert (code, err.count("\n")) == (1, 1), err

    # fsspec keeps one client a set of settings: others get another
    other = {"client_kwargs": {"region_name": "us-west-2"}}
    monkeypatch.setitem(fsspec.config.conf, "s3", other)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    code, _, err = slidestream("store", "show", STORE)
    assert (code, err.count("\n")) == (1, 1), err
    assert "credentials" in err

    nowhere = {"endpoint_url": "http://127.0.0.1:1", "key": "test", "secret": "test"}
    monkeypatch.setitem(fsspec.config.conf, "s3", nowhere)
    code, _, err = slidestream("store", "show", STORE)
    assert (code, err.count("\n")) == (1, 1), err
    assert "endpoint" in err
    fault_counts("S3: bucket, credentials, endpoint", tried=3, detected=3)
