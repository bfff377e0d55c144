"""Fixtures that all tests share."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the long tests too")


def pytest_configure(config: pytest.Config) -> None:
    """Take the same examples in every short run, so that a red one speaks of the change; --slow takes new ones."""
    if not config.getoption("--slow"):
        settings.register_profile("same-examples", derandomize=True, database=None)
        settings.load_profile("same-examples")


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


@pytest.fixture(scope="session")
def store_digests() -> Callable[[Path], dict[str, str]]:
    """Return a function: store folder → digest of every object, to compare two stores bit for bit."""

    def digests(root: Path) -> dict[str, str]:
        found = {}
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            data = path.read_bytes()
            if path == root / "zarr.json":  # the only place with a time in it
                document = json.loads(data)
                document["attributes"]["slidestream"].pop("created")
                document["attributes"]["slidestream"].pop(
                    "digest", None
                )  # of what is said, the time too
                data = json.dumps(document, sort_keys=True).encode()
            found[path.relative_to(root).as_posix()] = hashlib.sha256(data).hexdigest()
        return found

    return digests


@pytest.fixture(scope="session")
def flip() -> Callable[[bytes], bytes]:
    """Return a function that flips a bit in the middle."""
    return _SPOILED["flipped"]


@pytest.fixture(params=["flipped", "cut", "emptied", "zeroed"])
def spoil(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    """Return a function that spoils the bytes of a file; the test runs for each kind of damage."""
    return _SPOILED[request.param]


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


_SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "flipped": _flipped,
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "zeroed": lambda data: bytes(len(data)),
}
