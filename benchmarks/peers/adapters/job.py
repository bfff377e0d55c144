"""What an adapter is told, and what it answers; needs numpy and torch only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # torch comes after the peer's reader: cuCIM hangs when it is imported second
    from torch import nn

Floats = npt.NDArray[np.float32]
Corners = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes
    ----------
    slide, corners
        The slide's file, and an .npy of int (tile, 2), x and y [px, level 0].
    tile_px
        Side of a tile.
    encoder, weights
        ``near-free`` or ``resnet18``, and the latter's weights.
    reader
        The peer's reader, by its own name.
    num_workers
        Processes that load.
    batch_size
        Tiles a batch.
    threads
        Of torch in the main process; 0 leaves torch's default.
    repeats
        How often.
    features
        Where the features of the last repeat go, float32 .npy in the order of the tiles.
    """

    slide: str
    corners: str
    tile_px: int
    encoder: str
    weights: str
    reader: str
    num_workers: int
    batch_size: int
    threads: int
    repeats: int
    features: str

    def read_corners(self) -> Corners:
        """Return int64 (tile, 2)."""
        return np.asarray(np.load(self.corners), dtype=np.int64)

    def network(self) -> nn.Module:
        """Return the encoder: uint8 tiles, channels last or first → float32 features."""
        from benchmarks.networks import NearFree, OnBytes, resnet18

        if self.encoder == "near-free":
            return NearFree(self.tile_px).eval()
        return OnBytes(resnet18(Path(self.weights))).eval()

    def to_json(self) -> str:
        """Return the job as text."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Answer:
    """What came of a job.

    Attributes
    ----------
    version
        Of the peer.
    seconds
        Of each repeat: from the opened, tiled slide to all features in memory.
    note
        What is to be said of it.
    """

    version: str
    seconds: list[float] = field(default_factory=list)
    note: str = ""


def answer(version: str, run: Callable[[Job], Callable[[], Floats]]) -> None:
    """Do the job of the command line and write the answer to the file named there.

    Parameters
    ----------
    version
        Of the peer.
    run
        Job → what is timed: a function that returns the features, one row a tile of the job's list.
    """
    job_file, answer_file = (Path(argument) for argument in sys.argv[1:3])
    job = Job(**json.loads(job_file.read_text()))
    timed = run(job)
    if job.threads:
        import torch

        torch.set_num_threads(job.threads)
    seconds: list[float] = []
    features: Any = None
    for _ in range(job.repeats):
        begun = time.perf_counter()
        features = timed()
        seconds.append(time.perf_counter() - begun)
    np.save(job.features, np.asarray(features, dtype=np.float32))
    answer_file.write_text(json.dumps(asdict(Answer(version, seconds))))


def in_order(found: Corners, wanted: Corners) -> npt.NDArray[np.int64]:
    """Return the rows of ``found`` in the order of ``wanted``; raises unless both are the same tiles."""
    ours, theirs = (np.lexsort((c[:, 1], c[:, 0])) for c in (wanted, found))
    if not np.array_equal(found[theirs], wanted[ours]):
        raise ValueError(
            f"the peer laid {len(found)} tiles that aren't the {len(wanted)} of the list"
        )
    rows = np.empty(len(wanted), np.int64)
    rows[ours] = theirs
    return rows
