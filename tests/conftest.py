"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the long tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="long: run with --slow"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real slides, or skip."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("SLIDESTREAM_TEST_DATA", default))
    if not (path / "slides").is_dir():
        pytest.skip(f"no real slides at {path}; set SLIDESTREAM_TEST_DATA")
    return path
