"""Other tools beside ours: the same slide, the same list of tiles, the same encoder, one table from one run.

    uv run python -m benchmarks.peers [--encoder near-free|resnet18] [--tiles N] [--peers lazyslide …] [--env NAME=DIR]

Each peer lives in an environment of its own below ``--work``, made here (``--env`` names one that is there), and is
called by an adapter (``adapters/<peer>_flow.py``) in the way its own commands go: its tiling or tile list, its dataset,
reader and DataLoader, its forward loop. All run the same network in float32 on the same bytes: uint8 tiles go through
the loaders, and the network converts whole batches, which is the fastest that each of them can do.

Every reader that a peer has, with 0, n - 1 and n loader processes and with torch's own number of threads or one, is
tried on a smaller slide (``--tuning-tiles``); the best setting runs ``--repeats`` times on the slide of the table,
and the best repeat counts. Time runs from an opened and tiled slide to all features: in the peer's memory (TIAToolbox:
in its zarr, its API has no other way), of ours in the store, synced to disk. Imports, loading weights and compiling
don't count, starting DataLoader processes does, as it comes with every slide; ours has its cluster started and a first
run behind it. Features must agree: the least cosine between a peer's and ours is 0.999, or the row says otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.encoders import EncoderName, PlacedFactory, encoder, resnet_weights
from benchmarks.flow_run import embedded, grid_spec, index_spec, run_flow, stream_spec, warm_up
from benchmarks.machine import machine, n_cores
from benchmarks.peers.adapters.job import Floats, Job
from benchmarks.peers.peer import (
    PEERS,
    Peer,
    PeerError,
    PeerTimeoutError,
    Setting,
    environment,
    python_of,
    run_job,
    settings_of,
)
from benchmarks.slide import FULL_TILES, TILE_PX, benchmark_slide, default_work
from dataflow.discover import SlideSource
from dataflow.index import index_slide
from dataflow.stain import StainSpec
from models.precision import PrecisionChoice
from store_schema.store import create_store, open_store

_LEAST_COSINE: Final = 0.999
_WARM_UP_TILES: Final = 256
_TUNING_TILES: Final[dict[EncoderName, int]] = {"near-free": 1600, "resnet18": 256}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    name, setting
        Who, and how.
    seconds
        Of each repeat.
    n_tiles
        Of the slide.
    cosine
        The least between its features and ours, None of ours.
    problem
        Why there is no figure.
    """

    name: str
    setting: str = ""
    seconds: tuple[float, ...] = ()
    n_tiles: int = 0
    cosine: float | None = None
    problem: str = ""

    @property
    def tiles_per_s(self) -> float:
        """Of the best repeat; 0 where there is none."""
        return self.n_tiles / min(self.seconds) if self.seconds else 0.0


@dataclass(frozen=True)
class Ours:
    """How our flow is run.

    Attributes
    ----------
    label
        In the table.
    precision, compiled
        Of ResNet-18.
    """

    label: str
    precision: PrecisionChoice = "fp32"
    compiled: bool = False


OURS: Final[dict[EncoderName, tuple[Ours, ...]]] = {
    "near-free": (Ours("slidestream"),),
    "resnet18": (
        Ours("slidestream, fp32"),
        Ours("slidestream, fp32, compiled", compiled=True),
        Ours("slidestream, auto, compiled", "auto", True),
    ),
}


@dataclass(frozen=True)
class Task:
    """What everybody is given.

    Attributes
    ----------
    slide, tuning
        The slide of the table, and the smaller one on which settings are tried.
    work
        Where environments and weights are.
    scratch
        A folder for this run.
    repeats, batch_size, timeout_s, readers
        As asked.
    """

    encoder: EncoderName
    slide: Path
    tuning: Path
    work: Path
    scratch: Path
    repeats: int
    batch_size: int
    timeout_s: float
    readers: tuple[str, ...]

    def corners_of(self, slide: Path) -> Path:
        """Return the .npy of a slide's tiles, in our order."""
        path = self.scratch / f"{slide.stem}.npy"
        if not path.is_file():
            store = create_store(self.scratch / "tiles.zarr")
            view, _ = index_slide(store, index_spec(), SlideSource(slide.stem, str(slide)))
            table = view.tile_table(grid_spec().name)
            np.save(path, np.stack([table.x, table.y], axis=1).astype(np.int64))
        return path

    def job(self, slide: Path, setting: Setting, repeats: int) -> Job:
        """Return what an adapter is told."""
        weights = "" if self.encoder == "near-free" else str(resnet_weights(self.work))
        return Job(
            slide=str(slide),
            corners=str(self.corners_of(slide)),
            tile_px=TILE_PX,
            encoder=self.encoder,
            weights=weights,
            repeats=repeats,
            features=str(self.scratch / "features.npy"),
            **dataclasses.asdict(setting),
        )


def run_ours(task: Task, ours: Ours) -> tuple[Row, Floats]:
    """Encode the slide, which is indexed before the clock starts."""
    factory: PlacedFactory = encoder(
        task.encoder,
        task.work,
        precision=ours.precision,
        compiled=ours.compiled,
        device="cpu",
        batch_size=task.batch_size,
    )
    seconds = []
    with embedded(n_cores()) as (client, _):
        warm_slide = benchmark_slide(task.work, _WARM_UP_TILES)
        warm_up(client, warm_slide, factory, StainSpec(), task.scratch)
        for repeat in range(task.repeats):
            store = task.scratch / f"{ours.label}-{repeat}.zarr"
            source = SlideSource(task.slide.stem, str(task.slide))
            index_slide(create_store(store), index_spec(), source)
            flow = run_flow(client, stream_spec(store, factory, StainSpec(), None), [task.slide])
            seconds.append(flow.seconds)
    features = open_store(store).bags()[0].load().astype(np.float32)
    setting = f"{n_cores()} threads, {factory.precision}, batches of {task.batch_size}"
    return Row(ours.label, setting, tuple(seconds), len(features)), features


def run_peer(task: Task, peer: Peer, python: Path, ours: Floats) -> Row:
    """Find the peer's best setting and measure it."""
    tried: list[tuple[float, Setting]] = []
    problems: list[str] = []
    hanging: set[str] = set()
    for setting in settings_of(peer, n_cores(), task.batch_size, task.readers):
        if setting.reader in hanging:  # more workers would hang as well
            continue
        try:
            job = task.job(task.tuning, setting, 2)  # a first call may still import
            answer = run_job(peer, python, job, task.scratch, task.timeout_s)
        except PeerError as error:
            problems.append(f"{setting}: {error}")
            if isinstance(error, PeerTimeoutError):
                hanging.add(setting.reader)
            print(f"  {peer.name}: {problems[-1]}", flush=True)
            continue
        rate = len(np.load(job.corners)) / min(answer.seconds)
        tried.append((rate, setting))
        print(f"  {peer.name}: {setting}: {rate:,.0f} tiles/s", flush=True)
    if not tried:
        return Row(peer.name, problem=problems[-1] if problems else "has none of the readers")
    best = max(tried, key=lambda pair: pair[0])[1]
    job = task.job(task.slide, best, task.repeats)
    answer = run_job(peer, python, job, task.scratch, task.timeout_s * task.repeats)
    theirs = np.load(job.features)
    cosine = _least_cosine(theirs, ours)
    problem = "" if cosine >= _LEAST_COSINE else "other features than ours"
    name = f"{peer.name} {answer.version}"
    return Row(name, str(best), tuple(answer.seconds), len(theirs), cosine, problem)


def measured_peer(task: Task, peer: Peer, place: Path | None, ours: Floats) -> Row:
    """Install and measure a peer; what goes wrong becomes its row."""
    try:
        python = environment(peer, task.work) if place is None else python_of(place)
        if not python.is_file():
            raise PeerError(f"there is no {python}")
        return run_peer(task, peer, python, ours)
    except PeerError as error:
        return Row(peer.name, problem=str(error))


def print_table(rows: list[Row], mine: list[Row]) -> None:
    """Print all rows, with the ratio of each of ours to each peer."""
    heads = "".join(f" {row.name} / it |" for row in mine)
    print(f"\n| | setting | tiles | s | tiles/s | least cosine |{heads}")
    print("|---|---|---|---|---|---|" + "---|" * len(mine))
    for row in [*mine, *rows]:
        if not row.seconds:
            print(f"| {row.name} | {row.problem} | | | | |" + " |" * len(mine))
            continue
        ratios = "".join(f" {own.tiles_per_s / row.tiles_per_s:.1f} |" for own in mine)
        cosine = "" if row.cosine is None else f"{row.cosine:.6f} {row.problem}".rstrip()
        print(
            f"| {row.name} | {row.setting} | {row.n_tiles:,} | {min(row.seconds):.2f} | {row.tiles_per_s:,.0f} "
            f"| {cosine} |{ratios}"
        )


def main() -> None:
    """Measure ours and the peers, and print the table."""
    args = _arguments()
    places = dict(pair.split("=", 1) for pair in args.env)
    tuning_tiles = args.tuning_tiles or _TUNING_TILES[args.encoder]
    args.work.mkdir(parents=True, exist_ok=True)
    print(machine())
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        task = Task(
            encoder=args.encoder,
            slide=benchmark_slide(args.work, args.tiles).resolve(),
            tuning=benchmark_slide(args.work, tuning_tiles).resolve(),
            work=args.work,
            scratch=Path(scratch),
            repeats=args.repeats,
            batch_size=args.batch_size,
            timeout_s=args.timeout,
            readers=tuple(args.readers),
        )
        mine, features = [], None
        for ours in OURS[task.encoder]:
            row, made = run_ours(task, ours)
            features = made if features is None else features  # float32 is what peers compute in
            mine.append(dataclasses.replace(row, cosine=_least_cosine(made, features)))
            print(f"  {row.name}: {row.tiles_per_s:,.0f} tiles/s", flush=True)
        assert features is not None
        rows = []
        for peer in PEERS:
            if peer.name in args.peers:
                place = Path(places[peer.name]) if peer.name in places else None
                rows.append(measured_peer(task, peer, place, features))
        print_table(rows, mine)
    if args.json is not None:
        result: dict[str, Any] = {"machine": machine(), "encoder": args.encoder}
        result["rows"] = [dataclasses.asdict(row) for row in [*mine, *rows]]
        args.json.write_text(json.dumps(result, indent=1))


def _least_cosine(theirs: Floats, ours: Floats) -> float:
    a, b = theirs.astype(np.float64), ours.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).min())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [peer.name for peer in PEERS]
    parser.add_argument("--encoder", choices=list(OURS), default="near-free")
    parser.add_argument("--tiles", type=int, default=FULL_TILES, help="rounded to a square")
    parser.add_argument("--tuning-tiles", type=int, help="of the slide on which settings are tried")
    parser.add_argument("--peers", nargs="+", choices=names, default=names)
    readers = sorted({reader for peer in PEERS for reader in peer.readers})
    parser.add_argument("--readers", nargs="+", choices=readers, default=[], help="try only these")
    parser.add_argument(
        "--env", nargs="+", default=[], metavar="NAME=DIR", help="environments that are there"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--timeout", type=float, default=300.0, help="of one pass of a peer [s]")
    parser.add_argument(
        "--work", type=Path, default=default_work(), help="keeps slides and environments"
    )
    parser.add_argument("--json", type=Path, help="write all numbers here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
