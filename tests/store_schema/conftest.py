"""Stores on a local path and in memory: everything is to work on both."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from store_schema.store import Store, create_store


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}.zarr"
    return str(tmp_path / "cohort.zarr")


@pytest.fixture
def store(url: str) -> Store:
    return create_store(url)


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "cohort.zarr")
