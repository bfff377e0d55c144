"""Faults: what was tried, detected and recovered, told by each test and printed as one table at the end."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest


@dataclass(frozen=True)
class FaultCounts:
    """What one fault test did: how many faults it made, how many were noticed, how many mended."""

    name: str
    tried: int
    detected: int | None
    recovered: int | None


_COUNTS = pytest.StashKey[list[FaultCounts]]()


@pytest.fixture(scope="session")
def fault_counts(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that tells the counts of a fault; what has no meaning for it is left out."""
    told = request.config.stash.setdefault(_COUNTS, [])

    def tell(
        name: str, *, tried: int, detected: int | None = None, recovered: int | None = None
    ) -> None:
        told.append(FaultCounts(name, tried, detected, recovered))

    return tell


@pytest.fixture(scope="session")
def fault_run() -> Iterator[ModuleType]:
    """Return the module of the run that faults are made in, which worker processes can import too."""
    here = str(Path(__file__).parent)
    before = os.environ.get("PYTHONPATH")
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [here, str(Path(__file__).parents[2]), before])
    )
    yield importlib.import_module("fault_run")
    sys.path.remove(here)
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    told = config.stash.get(_COUNTS, [])
    if not told:
        return
    width = max(len(each.name) for each in told)
    terminalreporter.section("faults")
    terminalreporter.write_line(
        f"{'fault':<{width}}  {'tried':>8}  {'detected':>8}  {'recovered':>9}"
    )
    for each in told:
        terminalreporter.write_line(
            f"{each.name:<{width}}  {each.tried:>8,}  {_shown(each.detected):>8}  {_shown(each.recovered):>9}"
        )


def _shown(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"
